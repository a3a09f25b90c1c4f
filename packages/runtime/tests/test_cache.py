"""The cache of prepared directories: made once, whole, and done without where it must be."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cleanroom_runtime import BusyError, Workspace, _cache, _caches, cached_directory
from cleanroom_runtime._run import Run, RunAddress, join_run, joined_run, leave_run
from cleanroom_runtime._warden import _pack

FACTS = {"version": "1"}


@pytest.fixture
def joined() -> Iterator[Run]:
    """A run that this process takes part in."""
    before = joined_run()
    run = join_run(RunAddress.new())
    run.request("register")
    yield run
    run.shut_down()
    leave_run(before)


@pytest.fixture
def workspaces(joined: Run) -> Callable[[], Workspace]:
    """Makes workspaces of the run."""

    def new() -> Workspace:
        directory = joined.address.directory / joined.new_service_id().partition("-")[2]
        return Workspace(directory, Path(f"{directory}-data"), 1, (), (os.getuid(), os.getgid()))

    return new


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, empty."""
    monkeypatch.setenv("CLEANROOM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Build:
    """Makes a directory, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, directory: Path) -> None:
        self.count += 1
        (directory / "below").mkdir(mode=0o755)
        (directory / "below" / "file").write_text("content")
        (directory / "link").symlink_to("below/file")


def is_whole(prepared: Path) -> bool:
    """Whether a copy of what was prepared has all of it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        if prepared.is_dir():
            shutil.copytree(prepared, copy, symlinks=True)
        else:
            _pack.unpack(str(prepared), str(copy))
        assert (copy / "below").stat().st_mode & 0o777 == 0o755
        return (copy / "link").is_symlink() and (copy / "link").read_text() == "content"


def test_made_once(cache: Path, workspaces: Callable[[], Workspace]) -> None:
    """A directory is made for the first who asks, and is the same for the next."""
    build = Build()
    first = cached_directory("kind", FACTS, build, workspaces())
    second = cached_directory("kind", FACTS, build, workspaces())
    assert first == second
    assert first.is_relative_to(cache / "kind")
    assert is_whole(first)
    assert build.count == 1
    assert json.loads((first.parent / "facts.json").read_text()) == FACTS


def test_what_is_not_used_any_more_goes(cache: Path, workspaces: Callable[[], Workspace]) -> None:
    """When something is made, what no run has used for long is removed; what one has used stays."""
    made = [
        cached_directory("kind", {"version": str(number)}, Build(), workspaces())
        for number in range(3)
    ]
    for prepared in made:
        for file in prepared.parent.iterdir():
            os.utime(file, (0, 0))
    build = Build()
    assert cached_directory("kind", {"version": "1"}, build, workspaces()) == made[1]
    assert build.count == 0
    cached_directory("kind", {"version": "new"}, Build(), workspaces())
    assert [prepared.exists() for prepared in made] == [False, True, False]


def test_not_to_be_kept(cache: Path, workspaces: Callable[[], Workspace]) -> None:
    """What nobody else may use is a directory of this run's own, and is made again by the next."""
    build = Build()
    for count in (1, 2):
        workspace = workspaces()
        made = cached_directory("kind", FACTS, build, workspace, may_keep=lambda: False)
        assert made == Path(f"{workspace.data}-new")
        assert is_whole(made)
        assert build.count == count


def test_other_facts(cache: Path, workspaces: Callable[[], Workspace]) -> None:
    """Another fact makes another directory."""
    build = Build()
    first = cached_directory("kind", FACTS, build, workspaces())
    assert cached_directory("kind", {"version": "2"}, build, workspaces()) != first
    assert build.count == 2


def test_copies_for_one_run_share_what_they_make(
    cache: Path, workspaces: Callable[[], Workspace]
) -> None:
    """A server that had to be copied for its account finds what an earlier copy has made."""
    build = Build()
    made = []
    for workspace in (workspaces(), workspaces()):
        facts = {"executable": f"{workspace.directory}-bin/server"}
        made.append(cached_directory("kind", facts, build, workspace))
    assert made[0] == made[1]
    assert build.count == 1


def test_many_at_once(cache: Path, workspaces: Callable[[], Workspace]) -> None:
    """Of many who ask at the same time one makes it, and all get it whole."""
    build = Build()
    found: list[bool] = []

    def ask(workspace: Workspace) -> None:
        found.append(is_whole(cached_directory("kind", FACTS, build, workspace)))

    threads = [threading.Thread(target=ask, args=(workspaces(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8
    assert build.count == 1


def test_a_failing_build(cache: Path, workspaces: Callable[[], Workspace]) -> None:
    """A build that fails leaves nothing in the cache, and the next one may try."""

    def fail(directory: Path) -> None:
        (directory / "half").touch()
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        cached_directory("kind", FACTS, fail, workspaces())
    assert not list(cache.rglob("content.pack"))
    assert is_whole(cached_directory("kind", FACTS, Build(), workspaces()))


def test_what_a_killed_one_left(cache: Path, workspaces: Callable[[], Workspace]) -> None:
    """What one left that was killed while it filled the cache is removed by the next."""
    left = cache / "kind" / _cache.fingerprint(FACTS) / "new-1234"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    assert is_whole(cached_directory("kind", FACTS, Build(), workspaces()))
    assert not left.exists()


@pytest.mark.parametrize("damage", ["cut short", "grown", "empty", "something else", "one byte"])
def test_damaged(damage: str, cache: Path, workspaces: Callable[[], Workspace]) -> None:
    """What is not as it was made is made again, and not served."""
    build = Build()
    prepared = cached_directory("kind", FACTS, build, workspaces())
    content = prepared.read_bytes()
    damaged = {
        "cut short": content[:-1],
        "grown": content + b"x",
        "empty": b"",
        "something else": b"x" * len(content),
        "one byte": content.replace(b"content", b"contend"),
    }
    assert damaged[damage] != content
    prepared.write_bytes(damaged[damage])
    assert is_whole(cached_directory("kind", FACTS, build, workspaces()))
    assert build.count == 2


def test_what_was_brought_from_elsewhere(
    cache: Path, workspaces: Callable[[], Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the cache is used once its checksum was found right, which is computed once."""
    build = Build()
    prepared = cached_directory("kind", FACTS, build, workspaces())
    content = prepared.read_bytes()
    prepared.unlink()
    prepared.write_bytes(content)
    computed: list[str] = []
    compute = _cache.is_sound

    def count(file: str) -> bool:
        computed.append(file)
        return compute(file)

    monkeypatch.setattr(_cache, "is_sound", count)
    for _ in range(2):
        assert is_whole(cached_directory("kind", FACTS, build, workspaces()))
    assert computed == [str(prepared)]
    assert build.count == 1


def test_made_anew(
    cache: Path, workspaces: Callable[[], Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `CLEANROOM_FRESH` nothing of an earlier run is used; what is made serves the next."""
    build = Build()
    cached_directory("kind", FACTS, build, workspaces())
    monkeypatch.setenv("CLEANROOM_FRESH", "1")
    for _ in range(2):  # of which the second is not of an earlier run
        cached_directory("kind", FACTS, build, workspaces())
        assert build.count == 2
    monkeypatch.setenv("CLEANROOM_FRESH", "0")
    assert is_whole(cached_directory("kind", FACTS, build, workspaces()))
    assert build.count == 2


def test_while_another_makes_it(cache: Path, workspaces: Callable[[], Workspace]) -> None:
    """Whoever has no patience is told that another run is making it; others wait."""
    begun, goes_on = threading.Event(), threading.Event()
    build = Build()

    def wait(directory: Path) -> None:
        begun.set()
        assert goes_on.wait(20)
        build(directory)

    thread = threading.Thread(target=cached_directory, args=("kind", FACTS, wait, workspaces()))
    thread.start()
    assert begun.wait(20)
    with pytest.raises(BusyError):
        cached_directory("kind", FACTS, build, workspaces(), patience=0.05)
    goes_on.set()
    assert is_whole(cached_directory("kind", FACTS, build, workspaces(), patience=20))
    thread.join()
    assert build.count == 1


def test_a_full_disk(
    cache: Path, workspaces: Callable[[], Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no room in the cache, what was made serves this run alone."""
    write = Path.write_text

    def write_until_full(path: Path, text: str) -> int:
        if path.name == "facts.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", write_until_full)
    workspace = workspaces()
    directory = cached_directory("kind", FACTS, Build(), workspace)
    assert is_whole(directory)
    assert directory == Path(f"{workspace.data}-new")
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["lock"]
    assert not list(cache.rglob("new-*"))


@pytest.mark.parametrize("why", ["no home", "a file in the way", "somebody else's"])
def test_without_a_cache(
    why: str,
    workspaces: Callable[[], Workspace],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Where there can be no cache, what was made serves this run alone."""
    monkeypatch.delenv("CLEANROOM_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    mkdir = Path.mkdir

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        if path.is_relative_to(tmp_path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        mkdir(path, *arguments, **options)

    if why == "no home":
        monkeypatch.setattr(Path, "home", _no_home)
    else:
        monkeypatch.setenv("HOME", str(tmp_path))
        if why == "somebody else's":
            monkeypatch.setattr(Path, "mkdir", refuse)
        else:
            (tmp_path / ".cache").touch()
    build, workspace = Build(), workspaces()
    directory = cached_directory("kind", FACTS, build, workspace)
    assert directory == Path(f"{workspace.data}-new")
    assert is_whole(directory)


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variable goes first, then the system's folder for caches, then the home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLEANROOM_CACHE_DIR", "relative")
    assert _caches.cache_root() == tmp_path / "relative"
    monkeypatch.delenv("CLEANROOM_CACHE_DIR")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert _caches.cache_root() == tmp_path / "xdg" / "cleanroom"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _caches.cache_root() == tmp_path / ".cache" / "cleanroom"
    monkeypatch.setattr("sys.platform", "darwin")
    assert _caches.cache_root() == tmp_path / "Library" / "Caches" / "cleanroom"


def test_a_small_disk(
    workspaces: Callable[[], Workspace], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A cache on a real disk that is full is done without, and nothing is left on it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode != 0:
        pytest.skip("may not mount a file system here")
    try:
        monkeypatch.setenv("CLEANROOM_CACHE_DIR", str(disk))
        workspace = workspaces()

        def build(directory: Path) -> None:
            (directory / "file").write_bytes(b"x" * 100_000)

        directory = cached_directory("kind", FACTS, build, workspace)
        assert directory == Path(f"{workspace.data}-new")
        assert (directory / "file").stat().st_size == 100_000
        assert [path.name for path in disk.rglob("*") if path.is_file()] == ["lock"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
