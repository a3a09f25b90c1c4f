"""The cache does not grow for ever: what is not used goes, what is being used stays."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cleanroom_runtime import _prune
from cleanroom_runtime._prune import last_use, prune
from cleanroom_runtime._small_files import note_use
from cleanroom_runtime._warden import _pack

DAY = 24 * 60 * 60


def entry(
    root: Path, number: int, *, days: float, size: int = 1000, kind: str = "postgres"
) -> Path:
    """Put a directory into a cache that was last used so many days ago."""
    folder = root / kind / f"{number:024x}"
    folder.mkdir(parents=True)
    made = root.parent / f"{root.name}-made"
    made.mkdir(exist_ok=True)
    (made / "data").write_bytes(bytes(size))
    _pack.pack(str(made), str(folder / "content.pack"))
    (folder / "facts.json").write_text("{}")
    (folder / "checked").touch()
    (folder / "lock").touch()
    used = time.time() - days * DAY
    for name in ("content.pack", "facts.json", "checked"):
        os.utime(folder / name, (used, used))
    return folder


def left(root: Path) -> set[int]:
    return {int(folder.name, 16) for folder in root.glob("*/*")}


def test_what_was_not_used_for_long_goes(tmp_path: Path) -> None:
    """A directory that no run has used for 30 days is removed, whatever its kind."""
    for number, days in enumerate([0, 29, 31, 400]):
        entry(tmp_path, number, days=days)
    entry(tmp_path, 9, days=31, kind="box")
    assert len(prune(tmp_path)) == 3
    assert left(tmp_path) == {0, 1}


def test_what_is_too_much_goes(tmp_path: Path) -> None:
    """Of a cache that is too large, what was longest unused is removed, until it is not."""
    for number, days in enumerate([3, 1, 4, 2]):
        entry(tmp_path, number, days=days, size=1000)
    gone = prune(tmp_path, largest=2600)
    assert [int(folder.name, 16) for folder in gone] == [2, 0]
    assert left(tmp_path) == {1, 3}


def test_what_was_just_used_stays(tmp_path: Path) -> None:
    """What a run may be copying stays, however large the cache is."""
    entry(tmp_path, 1, days=0)
    folder = entry(tmp_path, 2, days=400)
    note_use(folder / "checked")
    assert time.time() - last_use(folder) < 60
    assert prune(tmp_path, largest=0) == []
    assert left(tmp_path) == {1, 2}


def test_what_is_being_made_stays(tmp_path: Path) -> None:
    """A directory that another process holds the lock of is left alone."""
    folder = entry(tmp_path, 1, days=400)
    hold = (
        f"import fcntl; f = open({str(folder / 'lock')!r}); fcntl.flock(f, 2); print(1, flush=True)"
    )
    command = [sys.executable, "-c", f"{hold}; input()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "1\n"
        assert prune(tmp_path) == []
        holder.communicate("\n")
    assert prune(tmp_path) == [folder]


def test_what_is_used_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that a run asks for between the look and the removal is left alone."""
    folder = entry(tmp_path, 1, days=400)
    lock = fcntl.flock

    def use_then_lock(fd: int, operation: int) -> None:
        note_use(folder / "checked")
        lock(fd, operation)

    monkeypatch.setattr(_prune.fcntl, "flock", use_then_lock)
    assert prune(tmp_path) == []
    assert left(tmp_path) == {1}


@pytest.mark.parametrize("what", ["another name", "another file", "no lock", "a link"])
def test_what_is_not_the_caches_stays(what: str, tmp_path: Path) -> None:
    """Folders of the user's beside those of the cache are not touched."""
    root = tmp_path / "root"
    folder = entry(root, 1, days=400)
    if what == "another name":
        folder.rename(folder.with_name("important"))
    elif what == "another file":
        (folder / "thesis.tex").touch()
        os.utime(folder / "thesis.tex", (0, 0))
    elif what == "no lock":
        (folder / "lock").unlink()
    else:
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    assert prune(root) == []
    assert len(list(root.glob("*/*/content.pack"))) == 1


@pytest.mark.parametrize("what", ["half made", "damaged", "of an earlier version"])
def test_what_cannot_be_used_goes(what: str, tmp_path: Path) -> None:
    """What no run can use goes before its time, such as what a killed run has left."""
    folder = entry(tmp_path, 1, days=2)
    content = folder / "content.pack"
    if what == "half made":
        content.rename(folder / "new-0123abcd")
    elif what == "damaged":
        content.write_bytes(b"")
        os.utime(content, (0, 0))
    else:
        content.unlink()
        (folder / "content" / "base").mkdir(parents=True)
        (folder / "content" / "base" / "1").write_bytes(bytes(5000))
        os.utime(folder / "content", (0, 0))
    entry(tmp_path, 2, days=2)
    assert prune(tmp_path) == [folder]


def test_a_file_that_cannot_be_written_is_used_all_the_same(tmp_path: Path) -> None:
    """A cache that is read-only, or gone, does without a note of its use."""
    note_use(tmp_path / "gone")
    assert prune(tmp_path / "nothing") == []


def test_what_cannot_be_removed_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one directory cannot be removed, the others are."""
    entry(tmp_path, 1, days=500)
    entry(tmp_path, 2, days=400)
    remove = _prune.shutil.rmtree

    def refuse_one(folder: Path) -> None:
        if folder.name.endswith("1"):
            raise PermissionError(folder)
        remove(folder)

    monkeypatch.setattr(_prune.shutil, "rmtree", refuse_one)
    assert len(prune(tmp_path)) == 1
    assert left(tmp_path) == {1}
    assert stat.S_ISDIR((tmp_path / "postgres").stat().st_mode)
