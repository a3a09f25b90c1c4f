"""Where runs may write: folders that are short, private and reachable, and memory with room."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cleanroom import ConfigurationError

SOCKET_PATH_LIMIT = 103
"""Bytes in the path of a unix socket: 107 on Linux and 103 on macOS, less the final zero."""

_LONGEST_SOCKET_NAME = len("/r01234567/s01234/.s.PGSQL.65535")
_SHARED_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
_MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108
_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def run_root(suits: Callable[[Path], bool] = lambda _folder: True) -> Path:
    """Return the folder for the runs of this user: writable, and short enough for sockets.

    Args:
        suits: Whether the folder that it will be in serves a further purpose.

    Raises:
        ConfigurationError: There is no such folder.
    """
    for root in run_roots():
        folder = root.parent
        if os.access(folder, os.W_OK | os.X_OK) and suits(folder):
            return root
    raise ConfigurationError(
        "no folder for unix sockets: neither TMPDIR nor /tmp is writable and has a short path",
        hint="set TMPDIR to a writable folder with a path of less than 50 characters",
    )


def run_roots() -> Iterator[Path]:
    """Yield every folder in which runs of this user may be, the one for new ones first."""
    yielded = set()
    for folder in (_temporary_folder(), *_SHARED_FOLDERS):
        root = Path(folder, f"cleanroom-{os.getuid()}")
        fits = len(os.fsencode(str(root))) + _LONGEST_SOCKET_NAME <= SOCKET_PATH_LIMIT
        if fits and root not in yielded:
            yielded.add(root)
            yield root


def _temporary_folder() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:  # none is writable
        return _SHARED_FOLDERS[0]


def check_private(folder: Path) -> None:
    """Make sure that a folder is this user's own and closed to others.

    Raises:
        ConfigurationError: It is not.
        FileNotFoundError: It is gone.
    """
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or folder.is_symlink():
        raise ConfigurationError(
            f"{folder} is not a private folder of this user",
            hint=f"remove it, or set TMPDIR to another folder (owner {status.st_uid}, "
            f"mode {status.st_mode & 0o777:o}; wanted: owner {os.getuid()}, mode 700)",
        )


def memory_folder(needed: int) -> Path | None:
    """Return a folder in memory that has room for `needed` bytes, or `None`.

    A container's memory limit counts as well, because what lies in memory counts against it.
    """
    try:
        space = os.statvfs(_MEMORY_FOLDER)
    except OSError:
        return None
    room = min(space.f_bavail * space.f_frsize, memory_left())
    writable = os.access(_MEMORY_FOLDER, os.W_OK | os.X_OK)
    return _MEMORY_FOLDER if writable and room >= needed else None


def memory_left() -> int:
    """Bytes left below the memory limits of this process's control group and those above it."""
    left = sys.maxsize
    for group in _control_groups():
        for limit, usage, reclaimable in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with contextlib.suppress(OSError, ValueError):
                used = int((group / usage).read_text()) - _statistic(group, reclaimable)
                left = min(left, int((group / limit).read_text()) - used)
    return left


def _control_groups() -> Iterator[Path]:
    """Yield the folders of the control groups of this process: its own, and those above."""
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = _GROUPS / "memory" if controllers else _GROUPS
        # In a container the path may be the one outside, which does not exist here.
        own = top / path.lstrip("/")
        yield from (each for each in (own, *own.parents) if each.is_relative_to(top))


def _statistic(group: Path, name: str) -> int:
    """Bytes in files that were read once and can be forgotten at any time."""
    for line in (group / "memory.stat").read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
