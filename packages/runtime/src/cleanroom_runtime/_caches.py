"""Where the caches are, and in them the note of a pytest session. Every pytest run imports this."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pytest

CACHE_VARIABLE = "CLEANROOM_CACHE_DIR"
FRESH_VARIABLE = "CLEANROOM_FRESH"
AHEAD_VARIABLE = "CLEANROOM_AHEAD"
"""Set to 0, nothing is launched before a test asks for it, and no note is left."""
NOTES = "ahead"
"""Folder for how servers were launched, see `_notes`."""
_SELECTING = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf", "pyargs")
"""pytest's options that choose tests."""


def cache_root() -> Path | None:
    """Return the folder of the caches: `CLEANROOM_CACHE_DIR`, else where the system has its own.

    `None` where this user has no home to look in.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).absolute()
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "cleanroom"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache").absolute() / "cleanroom"


def is_fresh_wanted() -> bool:
    """Whether to make anew what an earlier run has left, as `CLEANROOM_FRESH` says."""
    return os.environ.get(FRESH_VARIABLE, "0") not in ("", "0")


def note_of(config: pytest.Config) -> Path | None:
    """Return where the note of a pytest session is, or will be; `None` if there is to be none."""
    root = cache_root()
    if root is None or os.environ.get(AHEAD_VARIABLE, "1") == "0":
        return None
    where = (config.invocation_params.dir, config.rootpath, config.inipath)
    told = [*map(str, where), *config.args]
    told += [f"{name}={getattr(config.option, name, None)!r}" for name in _SELECTING]
    digest = hashlib.sha256("\0".join(told).encode(errors="surrogateescape")).hexdigest()
    return root / NOTES / f"{digest[:24]}.json"
