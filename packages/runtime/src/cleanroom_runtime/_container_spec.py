"""What a plugin says it runs in a container."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cleanroom import ValidationError
from cleanroom_runtime._specs import PullPolicy

HINT_FOR_MEMORY = (
    "the engine cannot put files into memory: choose another folder, or write it by a command in "
    "the running container"
)


def memory_over(path: str, tmpfs: Collection[str], others: Collection[str] = ()) -> str | None:
    """Return which folder in memory a path inside a container lies in, if it does.

    Args:
        path: Where something is to be put.
        tmpfs: What is in memory.
        others: What else is mounted; of what lies in another, the inner one counts.
    """
    at = posixpath.normpath(path)
    over = [
        place
        for place in (*others, *tmpfs)
        if f"{at}/".startswith(f"{posixpath.normpath(place).rstrip('/')}/")
    ]
    inner = max(over, key=len, default=None)
    return inner if inner in tmpfs else None


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container to run.

    Attributes:
        image: The image's reference.
        port: The TCP port the service listens on inside the container.
        further_ports: More of them. Where each is reached stands in the handle's metadata, for
            8025 under `host_8025` and `port_8025`.
        env: Environment variables. The values are never logged.
        command: Arguments instead of the image's own.
        files: Local files to put into the container before it starts: path inside to content, or
            to the local file or folder to copy, which keeps its permissions. They belong to root.
        tmpfs: Paths inside the container to keep in memory, with mount options
            (`{"/data": "rw,size=256m"}`).
        memory: Memory limit in bytes.
        cpus: How much of the processors it may use: `1.5` is one and a half.
        shm_size: Size of `/dev/shm` in bytes.
        user: User to run as inside the container.
        pull: Whether to pull the image: when it is missing, always, or never.
        registry: User name and password for the image's registry; when not given, docker's own
            configuration has them.
        data: A file that the service writes first of all, in a folder where nobody will miss what
            is written: its path, which a variable of the image may begin (`"$PGDATA/PG_VERSION"`).
            That folder is in memory where the engine has enough of it, `memory` sets no limit, and
            the image runs as root and does not bring that file.

    Raises:
        ValidationError: A file would lie in a folder in memory, where it could not be put.
    """

    image: str
    port: int
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    command: Sequence[str] | None = None
    files: Mapping[str, bytes | Path] = field(default_factory=dict, repr=False)
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    memory: int | None = None
    shm_size: int | None = None
    user: str | None = None
    pull: PullPolicy = "missing"
    further_ports: Sequence[int] = ()
    cpus: float | None = None
    registry: tuple[str, str] | None = field(default=None, repr=False)
    data: str | None = None

    def __post_init__(self) -> None:
        """Refuse files that what is mounted over them would hide."""
        for path in self.files:
            if memory := memory_over(path, self.tmpfs):
                raise ValidationError(
                    f"the file {path} lies in the tmpfs {memory}", hint=HINT_FOR_MEMORY
                )

    @property
    def all_ports(self) -> tuple[int, ...]:
        """The ports to make reachable, the main one first."""
        return (self.port, *self.further_ports)
