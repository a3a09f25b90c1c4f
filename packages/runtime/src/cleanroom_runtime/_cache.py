"""Directories that are made once and copied by every run after: read-only, shared by all runs.

Each lies in the cache as one file, see `_warden._pack`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cleanroom_runtime._caches import cache_root, is_fresh_wanted
from cleanroom_runtime._process import copies_folder
from cleanroom_runtime._run import current_run
from cleanroom_runtime._small_files import note_use
from cleanroom_runtime._specs import Workspace
from cleanroom_runtime._warden._pack import is_sound, is_whole, pack

_CONTENT = "content.pack"
_CHECKED = "checked"
"""File that says which content was found sound; when it was changed is when that was used last."""
_STAGING = "new-"
_LOCK_INTERVAL = 0.02
_made: set[Path] = set()
"""What this process has made anew, as `CLEANROOM_FRESH` said."""


class BusyError(Exception):
    """What was asked for is being made by somebody else, and was not waited for."""


def fingerprint(facts: Mapping[str, str]) -> str:
    """Return a short digest of everything a cached directory depends on."""
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()[:24]


def cached_directory(
    kind: str,
    facts: Mapping[str, str],
    build: Callable[[Path], None],
    workspace: Workspace,
    *,
    patience: float | None = None,
    may_keep: Callable[[], bool] = lambda: True,
) -> Path:
    """Return what `ProcessSpec.copy` copies from, made by `build` if no run has made it before.

    It is a directory packed into one file, which is never seen half made, nor used where it is not
    as it was made. Where there is no cache, or no room in it, it is a directory, made for this run
    alone. When it is made, what the cache has no use for any more is removed, see `_prune`.

    Args:
        kind: What it holds; its folder below the cache.
        facts: Everything it depends on. Another fact makes another directory.
        build: Fills the directory it is given. It may run commands behind the workspace's prefix.
        workspace: Of the service the directory is for.
        patience: Seconds to wait for another run that is making it; as long as it takes when not
            given.
        may_keep: Asked once it has been built: whether other runs may use it as well.

    Raises:
        BusyError: Somebody else is making it yet.
    """
    # A copy made for this run alone stands for what it was copied from.
    copies = str(copies_folder(workspace))
    facts = {key: value.replace(copies, "") for key, value in facts.items()}
    root = cache_root()
    folder = root / kind / fingerprint(facts) if root else None
    fresh = is_fresh_wanted() and folder not in _made
    if folder is not None and not fresh and _is_sound(folder):
        note_use(folder / _CHECKED)
        return folder / _CONTENT
    with contextlib.ExitStack() as lock:
        if folder is not None and lock.enter_context(_locked(folder, patience)):
            if fresh or not _is_sound(folder):
                made = _build(build, workspace)
                if not (may_keep() and _keep(made, folder, facts)):
                    return made
                if fresh:
                    _made.add(folder)
                shutil.rmtree(made, ignore_errors=True)
                from cleanroom_runtime._prune import prune

                prune(folder.parents[1])
            note_use(folder / _CHECKED)
            return folder / _CONTENT
    return _build(build, workspace)


class CachedDirectory(NamedTuple):
    """A directory in the cache.

    Attributes:
        kind: What it holds.
        folder: Where it lies, with what is known of it.
        facts: What it depends on; empty where that cannot be read.
        size: Bytes in its files.
    """

    kind: str
    folder: Path
    facts: Mapping[str, str]
    size: int

    def remove(self) -> None:
        """Remove it. A service that is copying it at this moment gets the whole of it.

        Raises:
            OSError: It cannot be removed.
        """
        with _locked(self.folder):
            shutil.rmtree(self.folder)


def cached_directories() -> list[CachedDirectory]:
    """Return what is in the cache, sorted by kind."""
    root = cache_root()
    if root is None or not _is_directory(root):
        return []
    found: list[CachedDirectory] = []
    for folder in sorted(root.glob("*/*")):
        if not is_whole(str(folder / _CONTENT)):
            continue  # it is being made, or that has failed
        try:
            facts = json.loads((folder / "facts.json").read_text())
        except (OSError, ValueError):
            facts = {}
        sizes = (path.lstat().st_size for path in folder.rglob("*") if path.is_file())
        found.append(CachedDirectory(folder.parent.name, folder, facts, sum(sizes)))
    return found


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # somebody else's home
        return False


def _is_sound(folder: Path) -> bool:
    """Whether a directory of the cache is there and as it was made.

    Its checksum is only computed when the file is another one than the last time, or was changed.
    """
    with contextlib.suppress(OSError, ValueError):
        if (folder / _CHECKED).read_text() == _stamp(folder):
            return True
    sound = is_sound(str(folder / _CONTENT))
    if sound:
        _note_checked(folder)
    return sound


def _note_checked(folder: Path) -> None:
    with contextlib.suppress(OSError):  # in a cache that is read-only it is computed each time
        (folder / _CHECKED).write_text(_stamp(folder))


def _stamp(folder: Path) -> str:
    """What is another for each content, and after each change of it."""
    status = (folder / _CONTENT).stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n"


@contextlib.contextmanager
def _locked(folder: Path, patience: float | None = None) -> Iterator[bool]:
    """Make the folder and hold its lock. Whether that was possible.

    Raises:
        BusyError: Somebody else has held it for longer than these seconds.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield False
        return
    try:
        _lock(fd, patience)
        try:
            yield True
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # a process forked meanwhile has it open as well
    finally:
        os.close(fd)


def _lock(fd: int, patience: float | None) -> None:
    if patience is None:
        fcntl.flock(fd, fcntl.LOCK_EX)
        return
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise BusyError("it is being made") from None
            time.sleep(_LOCK_INTERVAL)
        else:
            return


def _build(build: Callable[[Path], None], workspace: Workspace) -> Path:
    """Build in a folder that the service's user can write, and that goes with the run."""
    directory = Path(f"{workspace.data}-new")
    current_run().request("register", directory=str(directory))
    directory.mkdir(mode=0o700)
    if workspace.owner is not None:
        os.chown(directory, *workspace.owner)
    try:
        build(directory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return directory


def _keep(made: Path, folder: Path, facts: Mapping[str, str]) -> bool:
    """Put what was made into the cache, all at once. Returns whether that was possible."""
    for left in folder.glob(f"{_STAGING}*"):  # by one that was killed while it held the lock
        left.unlink(missing_ok=True)
    staging = folder / f"{_STAGING}{os.urandom(4).hex()}"
    current_run().request("register", directory=str(staging))
    try:
        pack(str(made), str(staging))
        (folder / "facts.json").write_text(json.dumps(dict(facts), indent=1))
        staging.rename(folder / _CONTENT)
        _note_checked(folder)
    except OSError:
        with contextlib.suppress(OSError):
            staging.unlink(missing_ok=True)
        return False
    return True
