"""What a service has on this machine, and what of it is left once it is stopped."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from cleanroom import ServiceHandle

_PATIENCE = 5.0
_DEFAULT_ENGINE = "unix:///var/run/docker.sock"


@dataclass(frozen=True)
class Traces:
    """What a running service has on this machine, as its handle says.

    Attributes:
        pids: Its process, and those below it.
        container: Its container's id.
        engine: URL of the engine the container runs on.
        address: Where it listens.
    """

    pids: tuple[int, ...] = ()
    container: str | None = None
    engine: str = _DEFAULT_ENGINE
    address: tuple[str, int] | None = None

    def left(self) -> list[str]:
        """Return what is there now, in words."""
        table = processes()
        found = [f"process {pid}" for pid in self.pids if pid in table and table[pid].lives]
        found += [
            f"process {pid}, which has ended but was not waited for,"
            for pid in self.pids
            if pid in table and not table[pid].lives and table[pid].parent == os.getpid()
        ]
        if self.container is not None and has_container(self.engine, self.container):
            found.append(f"container {self.container[:12]}")
        if self.address is not None and listens(*self.address):
            found.append(f"somebody who listens on port {self.address[1]}")
        return found


def traces_of(handle: ServiceHandle) -> Traces:
    """Return the traces of a service that runs; none of what somebody else runs."""
    facts = {key: str(value) for key, value in handle.metadata.items()}
    if facts.get("backend") == "external":
        return Traces()
    pid, port = facts.get("pid", ""), facts.get("port", "")
    return Traces(
        pids=(int(pid), *below(int(pid))) if pid.isdecimal() else (),
        container=facts.get("container_id"),
        engine=facts.get("engine") or os.environ.get("DOCKER_HOST") or _DEFAULT_ENGINE,
        address=(facts.get("host", ""), int(port)) if port.isdecimal() else None,
    )


class Process(NamedTuple):
    """A process of this machine: its parent's pid, and whether it has not ended."""

    parent: int
    lives: bool


def processes() -> dict[int, Process]:
    """Return the processes of this machine by pid."""
    if Path("/proc/self/stat").exists():
        rows = [_row(int(name)) for name in os.listdir("/proc") if name.isdecimal()]
    else:
        command = ["/bin/ps", "-A", "-o", "pid=,ppid=,stat="]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows = [line.split()[:3] for line in listed.splitlines()]
    return {int(row[0]): Process(int(row[1]), row[2][0] not in "ZX") for row in rows if row}


def _row(pid: int) -> list[str]:
    """Return pid, parent and state; nothing of one that is gone."""
    with contextlib.suppress(OSError):
        state, parent = (
            Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[:2]
        )
        return [str(pid), parent, state]
    return []


def below(pid: int) -> list[int]:
    """Return the pids of all processes below one."""
    table = processes()
    found, left = list[int](), [pid]
    while left:
        parent = left.pop()
        children = [child for child, process in table.items() if process.parent == parent]
        found += children
        left += children
    return found


def listens(host: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection((host, port), _PATIENCE).close()
    except OSError:
        return False
    return True


def has_container(engine: str, container_id: str) -> bool | None:
    """Whether an engine has a container, running or not; `None` where it cannot be asked.

    Only engines at a local socket or an unencrypted address can be asked, for which the standard
    library is enough.
    """
    parts = urlsplit(engine)
    if parts.scheme not in ("unix", "tcp", "http"):
        return None
    connection = http.client.HTTPConnection(parts.hostname or "localhost", parts.port or 2375)
    connection.timeout = _PATIENCE
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        if parts.scheme == "unix":
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(_PATIENCE)
            connection.sock.connect(parts.path)
        connection.request("GET", f"/containers/{container_id}/json")
        status = connection.getresponse().status
        return None if status >= 500 else status != 404
    return None
