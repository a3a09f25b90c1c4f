"""Small files in the cache, in which runs leave for each other what takes a while to find out."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from cleanroom_runtime._caches import NOTES

PROGRAMS = "programs"
"""Folder for what programs have said, see `_installed`."""
MOST = 200
"""Files in one folder: with one more, the one goes that was used the longest time ago."""


def read(path: Path) -> Any:
    """Return what a file has; `None` if there is none, or somebody else could have written it."""
    try:
        if _is_ours_alone(path.parent) and _is_ours_alone(path):
            return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass
    return None


def write(path: Path, data: object) -> None:
    """Write a file, all at once. In a cache that is read-only, do not."""
    staging = path.with_suffix(f".{os.getpid()}-{time.monotonic_ns()}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make_room(path.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(staging, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump(data, file)
        staging.replace(path)


def forget_all(root: Path) -> None:
    """Remove all of them from a cache."""
    for folder in (NOTES, PROGRAMS):
        shutil.rmtree(root / folder, ignore_errors=True)


def note_use(path: Path) -> None:
    """Note that a file is used now; in a cache that is read-only, do not."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _is_ours_alone(path: Path) -> bool:
    status = path.lstat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def _make_room(folder: Path) -> None:
    """Remove the files that were used the longest time ago, if there are too many for one more."""
    found = list(folder.iterdir())
    if len(found) >= MOST:
        found.sort(key=lambda path: path.stat().st_mtime)
        for path in found[: len(found) - MOST + 1]:
            path.unlink(missing_ok=True)
