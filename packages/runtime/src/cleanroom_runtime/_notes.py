"""What a pytest run leaves for the next one of the same tests: how it launched servers.

A note lies in the cache, in a folder that only this user can read. It says which services the run
has started and, where the plugin of one allows that, how its process was launched.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cleanroom_runtime._folders import cache_root

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import pytest

AHEAD_VARIABLE = "CLEANROOM_AHEAD"
"""Set to 0, nothing is launched before a test asks for it, and no note is left."""
FOLDER = "ahead"
MOST = 200
"""Notes in the cache: with one more, the one goes that was used the longest time ago."""
_FORMAT = 1
_SELECTING = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf", "pyargs")
"""pytest's options that choose tests."""


class Noted(NamedTuple):
    """What a note says of one service.

    Attributes:
        launch: How its process was launched, as `_ahead` writes it; `None` where that was not, or
            must not be, noted.
        in_vain: Whether that was tried again ahead of time, and the environment was another one
            when the service was asked for.
    """

    launch: str | None = None
    in_vain: bool = False


def note_of(config: pytest.Config) -> Path | None:
    """Return where the note of a pytest session is, or will be; `None` if there is to be none."""
    root = cache_root()
    if root is None or os.environ.get(AHEAD_VARIABLE, "1") == "0":
        return None
    where = (config.invocation_params.dir, config.rootpath, config.inipath)
    told = [*map(str, where), *config.args]
    told += [f"{name}={getattr(config.option, name, None)!r}" for name in _SELECTING]
    digest = hashlib.sha256("\0".join(told).encode(errors="surrogateescape")).hexdigest()
    return root / FOLDER / f"{digest[:24]}.json"


def read(note: Path) -> dict[str, Noted]:
    """Return what a note says of each service.

    Nothing where there is none, it is damaged, or somebody else could have written it: it has
    commands.
    """
    try:
        if not (_is_ours_alone(note.parent) and _is_ours_alone(note)):
            return {}
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["format"] == _FORMAT:
            return {str(name): Noted(*noted) for name, noted in known["services"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {}


def _is_ours_alone(path: Path) -> bool:
    status = path.lstat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def add(note: Path, service: str, noted: Noted) -> None:
    """Note how a service was started. In a cache that is read-only, do not."""
    known = read(note)
    if known.get(service) != noted:
        _write(note, {**known, service: noted})


def keep_only(note: Path, services: Collection[str]) -> None:
    """Forget all services but these."""
    known = read(note)
    kept = {name: noted for name, noted in known.items() if name in services}
    if known and not kept:
        with contextlib.suppress(OSError):
            note.unlink(missing_ok=True)
    elif kept != known:
        _write(note, kept)


def forget_all(root: Path) -> None:
    """Remove all notes from a cache."""
    shutil.rmtree(root / FOLDER, ignore_errors=True)


def note_use(note: Path) -> None:
    """Note that what a note says was used now."""
    with contextlib.suppress(OSError):
        os.utime(note)


def _write(note: Path, services: Mapping[str, Noted]) -> None:
    """Write a note, all at once."""
    staging = note.with_suffix(f".{os.getpid()}-{time.monotonic_ns()}")
    with contextlib.suppress(OSError):
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not note.exists():
            _make_room(note.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(staging, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump({"format": _FORMAT, "services": services}, file)
        staging.replace(note)


def _make_room(folder: Path) -> None:
    """Remove the notes that were used the longest time ago, if there are too many for one more."""
    found = list(folder.iterdir())
    if len(found) >= MOST:
        found.sort(key=lambda path: path.stat().st_mtime)
        for path in found[: len(found) - MOST + 1]:
            path.unlink(missing_ok=True)
