"""The grounds on which Redis is tested: each backend, with each kind of server it has."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from cleanroom import ServiceHandle
from cleanroom_plugin_redis import RedisPlugin
from cleanroom_plugin_redis._servers import local_servers
from cleanroom_runtime import LocalServer
from tests.availability import cannot_run

Start = Callable[[RedisPlugin], ServiceHandle]

GROUNDS = ("embedded", "installed", "container")


@dataclass(frozen=True)
class Ground:
    """A backend, and the image that makes it run the server that is meant."""

    name: str
    backend: Any
    image: str
    kind: str

    def plugin(self, name: str = "cache", **options: Any) -> RedisPlugin:
        return RedisPlugin(name, self.image, backend=self.backend, **options)


@dataclass(frozen=True)
class Server:
    """A running server that tests share; they leave it as it is."""

    plugin: RedisPlugin
    handle: ServiceHandle


def find_ground(name: str, request: pytest.FixtureRequest) -> Ground:
    """Return a ground by its name; without what it needs the test is skipped, and fails in CI."""
    if name == "container":
        return Ground(name, "container", request.getfixturevalue("redis_image"), "redis")
    server = find_server(name)
    kind = server.source.split()[0]
    image = "valkey/valkey" if kind == "valkey" else "redis"
    return Ground(name, "process", f"{image}:{server.major}", kind)


def find_server(name: str) -> LocalServer:
    """Return the server of the `embedded` extra, or one that is installed."""
    for server in local_servers():
        if ("embedded" in server.source) == (name == "embedded"):
            return server
    cannot_run(f"there is no Redis server here that is {name}")


class Foreign:
    """A Redis server that somebody else runs, with data in some of its databases."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder = folder
        self.settings = settings
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the server; it need not answer yet."""
        program = find_server("installed").executable
        own = ("--port", str(self.port), "--dir", str(self.folder), "--bind", "127.0.0.1")
        self.process = subprocess.Popen(
            [program, *own, "--save", "", *self.settings], stdout=subprocess.DEVNULL
        )
        return self.process

    def until_it_answers(self) -> None:
        deadline = time.monotonic() + 20
        with self.client() as client:
            while True:
                with contextlib.suppress(redis.RedisError):
                    client.ping()
                    return
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def client(self, database: int = 0, **options: Any) -> redis.Redis:
        return redis.Redis(port=self.port, db=database, decode_responses=True, **options)

    def url(self, database: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"

    def fill(self, *databases: int) -> None:
        for database in databases:
            with self.client(database) as client:
                client.set("theirs", f"of {database}")

    def content(self) -> dict[int, dict[str, str]]:
        """Return what is in each database that is not empty."""
        with self.client() as client:
            count = int(client.config_get("databases")["databases"])
        found: dict[int, dict[str, str]] = {}
        for number in range(count):
            with self.client(number) as client:
                keys = client.keys()
                if keys:
                    found[number] = {key: read(client, key) for key in sorted(keys)}
        return found


def read(client: redis.Redis, key: str) -> str:
    return str(client.get(key) if client.type(key) == "string" else client.hgetall(key))
