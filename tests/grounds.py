"""The grounds on which PostgreSQL is tested: each backend, with each kind of server it has."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Any

import pytest

from cleanroom import ServiceHandle
from cleanroom_plugin_postgres import PostgresPlugin
from cleanroom_plugin_postgres._servers import local_servers
from cleanroom_runtime import LocalServer
from tests.availability import cannot_run

GROUNDS = ("embedded", "installed", "container")


@dataclass(frozen=True)
class Ground:
    """A backend, and the image that makes it run the server that is meant."""

    name: str
    backend: Any
    image: str

    def plugin(
        self, name: str = "testdb", database_name: str = "testdb", **options: Any
    ) -> PostgresPlugin:
        return PostgresPlugin(name, self.image, database_name, backend=self.backend, **options)


@dataclass(frozen=True)
class Server:
    """A running server that tests share; they leave it as it is."""

    plugin: PostgresPlugin
    handle: ServiceHandle


def find_ground(name: str, request: pytest.FixtureRequest) -> Ground:
    """Return a ground by its name; without what it needs the test is skipped, and fails in CI."""
    if name == "container":
        return Ground(name, "container", request.getfixturevalue("postgres_image"))
    server = embedded_server() if name == "embedded" else installed_server()
    if server is None:
        cannot_run(f"there is no PostgreSQL here that is {name}")
    return Ground(name, "process", f"postgres:{server.major}")


def embedded_server() -> LocalServer | None:
    return next((each for each in local_servers() if each.source == "the embedded extra"), None)


def installed_server() -> LocalServer | None:
    """Return an installed server of another major version than the embedded one, which wins."""
    embedded = embedded_server()
    majors = (None, embedded.major if embedded else None)
    return next((each for each in local_servers() if each.major not in majors), None)


def processes() -> list[str]:
    """Return the command lines of all processes."""
    listed = subprocess.run(["ps", "-A", "-o", "args"], capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()
