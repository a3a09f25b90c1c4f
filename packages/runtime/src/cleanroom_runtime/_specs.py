"""What a plugin says it runs. How it is run is the backends' business."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

Backend = Literal["process", "container", "external"]
"""How a service runs: as a local process, in a container, or by somebody else."""

BackendChoice = Literal["auto", "process", "container", "external"]
"""What may be asked for: a backend, or `auto`, which chooses and gives its reason."""

PullPolicy = Literal["missing", "always", "never"]
"""When an image is pulled."""

UNKNOWN_VERSION = "unknown"
"""The version of what does not state one."""


class LocalServer(NamedTuple):
    """A server program found on this machine.

    Attributes:
        executable: The server's binary.
        version: Its version as it states it, for instance `"18.6"`, or `"unknown"`.
        source: Where it was found, in words for people: `"embedded extra"`, `"PATH"`.
        parts: The folders that belong to it, side by side, where the executable needs them to be
            copied along. Empty: the installation cannot be copied.
    """

    executable: Path
    version: str
    source: str
    parts: tuple[Path, ...] = ()

    @property
    def major(self) -> str:
        """The part of the version before the first dot."""
        return self.version.split(".", 1)[0]


class Workspace(NamedTuple):
    """Where one process service may write. All of it is removed when the service is gone.

    Attributes:
        directory: Mode 0700, on disk; its path is short enough for a unix socket in it.
        data: For the service's data: in memory where there is room, else on disk.
        port: The TCP port to listen on, at 127.0.0.1.
        prefix: Goes before a command, so that it runs as the same user as the service. What
            prepares a service is run by `run_program`, which sees to that.
        owner: Uid and gid of that user.
    """

    directory: Path
    data: Path
    port: int
    prefix: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A server to run in the foreground as a local process.

    Attributes:
        argv: The program and its arguments.
        env: Added to the environment of the run. The values are never logged.
        cwd: Working directory; the workspace's when not given.
        files: Files to write before the launch: path to content.
        copy: A prepared directory to copy and where to, done right before the launch.
        setup: Called with the endpoint, and the seconds it may take, until it does not raise,
            before the service is first asked whether it is ready: what has to be set up over a
            private channel.
        private_socket: Name of a unix socket in the directory of the workspace, where the service
            listens first: at its port it does only when `setup` is done, which begins when it
            listens here.
        stop_signal: Ends the server at once, without leaving anything behind.
        stop_timeout: Seconds between that signal and SIGKILL; when the run ends, 3 at most.
        ahead: Whether the next run may launch it before it is asked for. What it will be depends
            then on `argv`, `cwd`, `copy` and the environment alone; `files` are written when it is
            asked for, and speak of no folder or port; and nothing in `argv` is secret, as it is
            noted in the cache. With `env`, it is launched when it is asked for.
            `setup` has to use the endpoint it is given, as it may be in another workspace.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: Path | None = None
    files: Mapping[Path, str] = field(default_factory=dict, repr=False)
    copy: tuple[Path, Path] | None = None
    setup: Callable[[Endpoint, float], None] | None = None
    private_socket: str | None = None
    stop_signal: str = "SIGTERM"
    stop_timeout: float = 5.0
    ahead: bool = False


class Endpoint(NamedTuple):
    """Where a launched service is reached, and by what it is known.

    Attributes:
        host: Host name or address, as reachable from this process.
        port: TCP port, as reachable from this process.
        facts: What the backend knows: `pid` and `executable`, or `container_id` and `image`.
        socket_directory: Folder of the service's unix socket, for a process.
    """

    host: str
    port: int
    facts: Mapping[str, str] = {}
    socket_directory: Path | None = None
