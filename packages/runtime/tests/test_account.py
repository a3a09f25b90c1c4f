"""As whom a program runs that refuses root, and what it can reach."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cleanroom import ProcessError
from cleanroom_runtime import LocalServer, _account
from cleanroom_runtime._account import Account, account_for, readable_executable

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
ME = Account("same", os.getuid(), os.getgid())
NOBODY = pwd.getpwnam("nobody")
OTHER = Account("other", NOBODY.pw_uid, NOBODY.pw_gid)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can enter."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="c-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def no_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that allows no user namespaces."""
    monkeypatch.setattr(_account, "_unshare", lambda: None)


def output(account: Account, *argv: str) -> str:
    answer = subprocess.run(
        account.command(argv), capture_output=True, text=True, check=True, cwd="/"
    )
    return answer.stdout.strip()


def test_a_program_that_does_not_mind_root() -> None:
    """A program that runs as anybody runs as this process does."""
    account = account_for(refuses_root=False)
    assert account == ME
    assert account.command(["a", "b"]) == ["a", "b"]


@needs_root
def test_in_a_namespace() -> None:
    """In a namespace the program is an ordinary user, and root's private files are its own."""
    account = account_for(refuses_root=True)
    if account.kind != "namespace":
        pytest.skip("this system allows no user namespaces")
    assert int(output(account, "id", "-u")) != 0
    assert (account.uid, account.gid) == (0, 0)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o700)
        assert output(account, "sh", "-c", f"echo text > {folder}/a; cat {folder}/a") == "text"
        assert os.stat(f"{folder}/a").st_uid == 0


@needs_root
@pytest.mark.usefixtures("no_namespaces")
def test_without_namespaces() -> None:
    """Without namespaces it is another user, with no group and no home of root's."""
    account = account_for(refuses_root=True)
    assert account.kind == "other"
    assert output(account, "id", "-u") == str(account.uid)
    assert output(account, "id", "-G") == str(account.gid)
    assert output(account, "sh", "-c", "echo $HOME") == "/"
    assert pwd.getpwuid(account.uid).pw_name in ("postgres", "nobody")


@needs_root
@pytest.mark.usefixtures("no_namespaces")
def test_with_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    """With neither namespaces nor another user, the error says what is missing and what helps."""
    monkeypatch.setattr(_account, "_ordinary_user", lambda: None)
    with pytest.raises(ProcessError, match="refuses to run as root") as caught:
        account_for(refuses_root=True)
    assert "unshare" in caught.value.message
    assert "add one named 'postgres' or 'nobody'" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("mode", "same", "other"), [(0o755, True, True), (0o700, True, False), (0o711, True, True)]
)
def test_reach(open_folder: Path, mode: int, same: bool, other: bool) -> None:
    """An account reaches a file if it may pass through all folders above it."""
    below = open_folder / "home" / "bin"
    below.mkdir(parents=True)
    program = below / "program"
    program.touch()
    program.chmod(0o755)
    (open_folder / "home").chmod(mode)
    assert ME.reaches(program) is same
    assert OTHER.reaches(program) is other


@needs_root
def test_reach_by_group(open_folder: Path) -> None:
    """Of owner, group and others, the first that fits counts, as for the kernel."""
    program = open_folder / "program"
    program.touch()
    os.chown(program, 0, OTHER.gid)
    for mode, may in ((0o710, True), (0o701, False)):
        program.chmod(mode)
        assert OTHER.reaches(program) is may
        runs = subprocess.run(
            [shutil.which("setpriv") or "setpriv", f"--reuid={OTHER.uid}", f"--regid={OTHER.gid}",
             "--clear-groups", "test", "-x", str(program)], check=False,
        )  # fmt: skip
        assert (runs.returncode == 0) is may


@needs_root
def test_a_copy(open_folder: Path) -> None:
    """What the account cannot reach is copied, with all its parts, to where it can."""
    home = open_folder / "home"
    (home / "server" / "bin").mkdir(parents=True)
    (home / "libraries").mkdir()
    (home / "libraries" / "library").write_text("library")
    program = home / "server" / "bin" / "program"
    program.write_text("#!/bin/sh\ncat $(dirname $0)/../../libraries/library\n")
    program.chmod(0o755)
    home.chmod(0o700)
    server = LocalServer(program, "1", "a test", (home / "server", home / "libraries"))
    account = Account("other", OTHER.uid, OTHER.gid, (
        "setpriv", f"--reuid={OTHER.uid}", f"--regid={OTHER.gid}", "--clear-groups",
    ))  # fmt: skip
    copies = open_folder / "copies"
    copies.mkdir(mode=0o700)
    executable = readable_executable(server, account, copies)
    assert executable == copies / "server" / "bin" / "program"
    assert output(account, str(executable)) == "library"
    assert home.stat().st_mode & 0o777 == 0o700
    assert program.stat().st_uid == 0


@needs_root
def test_what_cannot_be_copied(open_folder: Path) -> None:
    """A server that the account cannot reach and that cannot be copied is an error with advice."""
    (open_folder / "home").mkdir(mode=0o700)
    program = open_folder / "home" / "program"
    program.touch(0o755)
    with pytest.raises(ProcessError, match="cannot reach it") as caught:
        readable_executable(LocalServer(program, "1", "a test"), OTHER, open_folder)
    assert str(program) in caught.value.message
    assert "below /usr" in str(caught.value.hint)
    program.parent.chmod(0o755)
    program.chmod(0o755)
    assert readable_executable(LocalServer(program, "1", "a test"), OTHER, open_folder) == program
