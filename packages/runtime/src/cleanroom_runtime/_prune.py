"""What the cache has no use for any more: it is removed when something new is put there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cleanroom_runtime._warden._pack import is_whole

_DAY = 24 * 60 * 60.0
UNUSED_FOR = 30 * _DAY
"""Seconds after which a directory that no run has copied is removed."""
LARGEST = 2 * 1024**3
"""Bytes in the whole cache above which directories are removed, the longest unused first."""
JUST_USED = _DAY / 24
"""Seconds within which a run may be about to copy a directory it was given: it stays."""

_ENTRY = re.compile(r"[0-9a-f]{24}")
_OURS = re.compile(r"lock|checked|facts\.json|content(\.pack)?|new-[0-9a-f]+")


class _Entry(NamedTuple):
    folder: Path
    used: float
    size: int
    whole: bool


def last_use(folder: Path) -> float:
    """Return when a directory of the cache was used last, or made, in seconds since the epoch.

    Args:
        folder: Where it lies, with what is known of it.

    Raises:
        OSError: It is gone, or somebody else's.
    """
    times = [path.lstat().st_mtime for path in folder.iterdir() if path.name != "lock"]
    return max(times, default=folder.lstat().st_mtime)


def prune(root: Path, *, unused_for: float = UNUSED_FOR, largest: int = LARGEST) -> list[Path]:
    """Remove what was not used for long, and then what is too much, the longest unused first.

    What no run can use, because it is half made or of an earlier version, goes as well. What is not
    the cache's own is left alone, and so is what is being made, or was just used: a run may be
    copying it.

    Args:
        root: The folder of the cache.
        unused_for: Seconds.
        largest: Bytes.

    Returns:
        The folders that are gone.
    """
    now = time.time()
    entries = sorted(_entries(root), key=lambda entry: entry.used)
    total = sum(entry.size for entry in entries)
    gone: list[Path] = []
    for entry in entries:
        age = now - entry.used
        unwanted = age > unused_for or total > largest or not entry.whole
        if unwanted and age >= JUST_USED and _remove(entry):
            gone.append(entry.folder)
            total -= entry.size
    return gone


def _entries(root: Path) -> Iterator[_Entry]:
    for folder in root.glob("*/*"):
        with contextlib.suppress(OSError):  # gone meanwhile, or somebody else's
            if _is_ours(folder):
                whole = is_whole(str(folder / "content.pack"))
                yield _Entry(folder, last_use(folder), _size(folder), whole)


def _is_ours(folder: Path) -> bool:
    """Whether a folder is one of the cache's, which users may have put among folders of theirs."""
    if not _ENTRY.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
        return False
    names = [path.name for path in folder.iterdir()]
    return "lock" in names and all(_OURS.fullmatch(name) for name in names)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _remove(entry: _Entry) -> bool:
    """Remove a directory of the cache, unless it is being made or was used meanwhile."""
    try:
        lock = os.open(entry.folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if last_use(entry.folder) != entry.used:
            return False
        shutil.rmtree(entry.folder)
    except OSError:  # it is locked, or cannot be removed
        return False
    finally:
        os.close(lock)
    return True
