"""Finding the server programs of this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cleanroom_runtime import LocalServer, ask_program, installed_servers


def program(folder: Path, said: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "server"
    path.write_text(f"#!/bin/sh\n{said}\n")
    path.chmod(0o755)
    return path


def test_a_server_is_found_with_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server on PATH comes first, and each comes once; what it writes tells its version."""
    first = program(tmp_path / "first", 'echo "server/2.14.1 (1)" >&2; exit 1')
    second = program(tmp_path / "second", '[ "$1" = -v ] && echo 3.0')
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "server").symlink_to(first)
    monkeypatch.setenv("PATH", str(first.parent), prepend=":")
    folders = [tmp_path / name for name in ("second", "third", "none")]
    assert list(installed_servers("server", version=["-v"], folders=folders)) == [
        LocalServer(first, "2.14.1", "PATH"),
        LocalServer(second, "3.0", str(second.parent)),
    ]


def test_what_does_not_run_is_left_out(tmp_path: Path) -> None:
    """A broken program is no server; one that does not tell its version has an unknown one."""
    broken = program(tmp_path / "broken", "")
    broken.write_bytes(b"\x7fELF and nothing else")
    closed = program(tmp_path / "closed", "")
    closed.chmod(0o644)
    silent = program(tmp_path / "silent", "exit 0")
    folders = [path.parent for path in (broken, closed, silent)]
    assert list(installed_servers("server", folders=folders)) == [
        LocalServer(silent, "unknown", str(silent.parent))
    ]


# ------------------------------------------------------------------ from run to run


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that says something else each time, and a cache of the test's own."""
    monkeypatch.setenv("CLEANROOM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CLEANROOM_FRESH", raising=False)
    found = shutil.which("date")
    assert found
    return Path(shutil.copy(found, tmp_path / "clock"))


def ask(program: Path, *arguments: str) -> str | None:
    """What another process would be told."""
    ask_program.cache_clear()
    return ask_program(program, *(arguments or ("+%s %N",)))


def test_a_program_is_asked_once_as_long_as_it_is_the_same(clock: Path) -> None:
    first = ask(clock)
    assert first == ask(clock)
    assert first != ask(clock, "+%s  %N")
    os.utime(clock, (1, 1))
    second = ask(clock)
    assert second not in (None, first)
    clock.unlink()
    assert ask(clock) is None


def test_a_script_is_asked_each_time(clock: Path) -> None:
    script = clock.with_name("script")
    script.write_text(f'#!/bin/sh\nexec {clock} "$@"\n')
    script.chmod(0o700)
    assert ask(script) != ask(script)


def test_what_failed_is_asked_again(clock: Path) -> None:
    assert ask(clock, "--nothing-like-it")
    assert not list(clock.parent.glob("cache/*/*"))


def test_a_fresh_run_asks_anew(clock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ask(clock)
    monkeypatch.setenv("CLEANROOM_FRESH", "1")
    assert ask(clock) != first


def test_what_others_can_write_is_not_believed(clock: Path) -> None:
    first = ask(clock)
    (file,) = clock.parent.glob("cache/*/*")
    file.chmod(0o666)
    assert ask(clock) != first
    file.write_text("{")
    assert ask(clock)
