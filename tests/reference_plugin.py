"""A plugin written by hand against the bare protocol: a box with drawers that hold texts.

It is as good as a plugin has to be, and keeps no state in its objects, so that those derived from
it show what the conformance kit finds.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cleanroom import (
    HealthStatus,
    ProcessError,
    ServiceError,
    ServiceHandle,
    ValidationError,
    spans,
)

SERVER = """
import json, socket, sys

secrets = json.loads(sys.stdin.readline())
listener = socket.socket(fileno=int(sys.argv[1]))
drawers = {}
print("ready", flush=True)
while True:
    client, _ = listener.accept()
    with client, client.makefile("rw") as stream:
        try:
            asked = json.loads(stream.readline())
        except ValueError:
            continue
        print("asked to", asked["do"], flush=True)
        drawer = drawers.setdefault(asked["drawer"], [])
        if asked["password"] != secrets["password"]:
            answer = {"error": "wrong password"}
        elif asked["do"] == "add":
            drawer.append(asked["text"])
            answer = {"id": secrets["id"]}
        else:
            answer = {"id": secrets["id"], "texts": drawer[:]}
        if asked["do"] == "clear":
            drawer.clear()
        print(json.dumps(answer), file=stream, flush=True)
"""
"""Answers one question for each connection. It is given the socket, so the port is its own."""

_started: dict[str, subprocess.Popen[bytes]] = {}
"""What this process has to wait for when it ends."""
_folders: list[Path] = []
"""What this process has made."""


class BoxPlugin:
    """A box with drawers.

    Args:
        name: The service's name.
        password: Asked for with every question; a random one, unless given.
        executable: The Python that runs the server.
        health_timeout: Seconds within which `health_check` answers.
    """

    port = 0
    """Where it listens; at a free one, where it is 0."""

    def __init__(
        self,
        name: str = "box",
        password: str | None = None,
        *,
        executable: str = sys.executable,
        health_timeout: float = 2.0,
    ) -> None:
        if not name:
            raise ValidationError(f"name is {name!r}", hint="give it at least one character")
        if health_timeout <= 0:
            raise ValidationError(f"health_timeout is {health_timeout!r}")
        self._name = name
        self._password = password or uuid.uuid4().hex
        self._executable = executable
        self.health_timeout = health_timeout

    @property
    def name(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self._name!r})"

    def start(self) -> ServiceHandle:
        folder = Path(tempfile.mkdtemp(prefix="box-"))
        _folders.append(folder)
        service_id = folder.name
        try:
            with spans.launch_span():
                pid, port = self.launch(folder)
            handle = ServiceHandle(service_id, self._name, self.facts(folder, pid, port))
            with spans.wait_ready_span():
                self.ask(handle, "read", timeout=10)
        except (OSError, ValueError) as error:
            self.end(service_id)
            shutil.rmtree(folder)
            raise ProcessError(f"it did not start: {error}", service=self._name) from error
        return handle

    def launch(self, folder: Path) -> tuple[int, int]:
        with (
            socket.create_server(("127.0.0.1", self.port)) as listener,
            open(folder / "log", "wb") as log,
        ):
            process = subprocess.Popen(
                self.command(listener.fileno()),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[listener.fileno()],
            )
            port: int = listener.getsockname()[1]
        _started[folder.name] = process
        assert process.stdin
        with process.stdin as stdin:
            stdin.write(json.dumps({"id": folder.name, "password": self._password}).encode())
        return process.pid, port

    def command(self, listener: int) -> list[str]:
        return [self._executable, "-S", "-E", "-c", SERVER, str(listener)]

    def facts(self, folder: Path, pid: int, port: int) -> dict[str, Any]:
        return {
            "backend": "process",
            "backend_reason": "there is no other",
            "version": "1.0",
            "host": "127.0.0.1",
            "port": str(port),
            "url": f"box://:{self._password}@127.0.0.1:{port}/service",
            "password": self._password,
            "pid": str(pid),
            "executable": self._executable,
            "folder": str(folder),
            "drawer": "service",
        }

    def ask(
        self, handle: ServiceHandle, do: str, text: str = "", timeout: float | None = 1.0
    ) -> list[str]:
        """Ask the box; raises `OSError` or `ValueError` where there is none that answers."""
        asked = {
            "do": do,
            "text": text,
            "drawer": handle.require("drawer"),
            "password": handle.require("password"),
        }
        with (
            socket.create_connection((handle.host, handle.port), timeout) as client,
            client.makefile("rw") as stream,
        ):
            print(json.dumps(asked), file=stream, flush=True)
            answer = json.loads(stream.readline())
        if answer.get("id") != handle.id:
            raise ValueError(f"another box answers: {answer}")
        return list(answer.get("texts", []))

    def health_check(self, handle: ServiceHandle) -> HealthStatus:
        if not handle.id.startswith("box-"):
            return HealthStatus.UNKNOWN
        try:
            self.ask(handle, "read", timeout=0.7 * self.health_timeout)
        except (OSError, ValueError):
            return HealthStatus.UNHEALTHY
        return HealthStatus.HEALTHY

    def stop(self, handle: ServiceHandle) -> None:
        if not handle.id.startswith("box-"):
            raise ServiceError(f"{handle.id!r} is no box", service=self._name)
        folder = Path(handle.require("folder"))
        if folder.exists():
            self.kill(handle)
            self.end(handle.id)
            shutil.rmtree(folder)

    def kill(self, handle: ServiceHandle) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(handle.require("pid")), signal.SIGKILL)

    def end(self, service_id: str) -> None:
        process = _started.pop(service_id, None)
        if process is not None:
            process.kill()
            process.wait()

    def logs(self, handle: ServiceHandle, tail: int = 100) -> str:
        with contextlib.suppress(FileNotFoundError):
            lines = (Path(handle.require("folder")) / "log").read_text().splitlines()
            return "\n".join(lines[-tail:])
        return ""

    @contextlib.contextmanager
    def isolate(self, handle: ServiceHandle) -> Iterator[ServiceHandle]:
        number = 1
        while (claim := Path(handle.require("folder"), f"drawer-{number}")).exists():
            number += 1
        claim.touch()
        try:
            leased = self.drawer(handle, f"drawer-{number}")
            self.ask(leased, "clear")
            yield leased
        finally:
            claim.unlink()

    def drawer(self, handle: ServiceHandle, drawer: str) -> ServiceHandle:
        url = handle.url.replace("/service", f"/{drawer}")
        facts = {**handle.metadata, "drawer": drawer, "url": url}
        return ServiceHandle(handle.id, handle.service_name, facts)


def end_all() -> None:
    """End what broken plugins have left."""
    deadline = time.monotonic() + 10
    for process in _started.values():
        process.kill()
        process.wait(deadline - time.monotonic())
    _started.clear()
    for folder in _folders:
        shutil.rmtree(folder, ignore_errors=True)
