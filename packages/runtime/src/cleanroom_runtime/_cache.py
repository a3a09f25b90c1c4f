"""Directories that are made once and copied by every run after: read-only, shared by all runs."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cleanroom_runtime._run import current_run
from cleanroom_runtime._specs import Workspace

CACHE_VARIABLE = "CLEANROOM_CACHE_DIR"
_CONTENT = "content"


def cache_root() -> Path:
    """Return the folder of the caches: `CLEANROOM_CACHE_DIR`, else where the system has its own."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "cleanroom"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cleanroom"


def fingerprint(facts: Mapping[str, str]) -> str:
    """Return a short digest of everything a cached directory depends on."""
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()[:24]


def cached_directory(
    kind: str,
    facts: Mapping[str, str],
    build: Callable[[Path], None],
    workspace: Workspace,
) -> Path:
    """Return a directory to copy from, made by `build` if no run has made it before.

    Args:
        kind: What it holds; its folder below the cache.
        facts: Everything it depends on. Another fact makes another directory.
        build: Fills the directory it is given. It may run commands behind the workspace's prefix.
        workspace: Of the service the directory is for.
    """
    folder = cache_root() / kind / fingerprint(facts)
    if (folder / _CONTENT).is_dir():
        return folder / _CONTENT
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:  # no home to speak of: build for this run alone
        return _build(build, workspace)
    with _locked(folder / "lock"):
        if not (folder / _CONTENT).is_dir():
            made = _build(build, workspace)
            with tempfile.TemporaryDirectory(dir=folder, prefix="new-") as staging:
                shutil.copytree(made, Path(staging, _CONTENT), symlinks=True)
                (folder / "facts.json").write_text(json.dumps(dict(facts), indent=1))
                Path(staging, _CONTENT).rename(folder / _CONTENT)
            shutil.rmtree(made)
    return folder / _CONTENT


def _build(build: Callable[[Path], None], workspace: Workspace) -> Path:
    """Build in a folder that the service's user can write, and that goes with the run."""
    directory = Path(f"{workspace.directory}-new")
    current_run().request("register", directory=str(directory))
    directory.mkdir(mode=0o700)
    if workspace.owner is not None:
        os.chown(directory, *workspace.owner)
    build(directory)
    return directory


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
