"""What runs beside a server process: programs that prepare it, its log, its port, its end."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cleanroom import ProcessError
from cleanroom_runtime import Workspace, run_program
from cleanroom_runtime._process import (
    describe_exit,
    free_port,
    listens,
    listens_at,
    log_tail,
    port_was_taken,
)
from cleanroom_runtime._run import Run, RunAddress, join_run, joined_run, leave_run
from tests.leftovers import services_of, until


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
def workspace(joined: Run) -> Workspace:
    """A workspace of the run."""
    directory = joined.address.directory / "s1"
    return Workspace(directory, Path(f"{directory}-data"), 1)


def test_a_program(workspace: Workspace) -> None:
    """A program reads its input; its exit code and all it wrote are returned."""
    script = "import sys; print(sys.stdin.read()); print('e', file=sys.stderr); sys.exit(3)"
    command = [sys.executable, "-u", "-c", script]
    assert run_program(workspace, command, text="hello") == (3, "hello\ne\n")


def test_a_program_runs_behind_the_prefix(workspace: Workspace) -> None:
    """A program runs as the workspace says, in the environment it is given."""
    prefixed = Workspace(workspace.directory, workspace.data, 1, ("env", "A=1"))
    found = run_program(prefixed, ["/bin/sh", "-c", 'echo "$A$B"'], env={**os.environ, "B": "2"})
    assert found == (0, "12\n")


def test_a_program_that_is_not_there(workspace: Workspace) -> None:
    """A program that cannot be executed is an error that names it."""
    with pytest.raises(ProcessError, match="/no/such could not be executed: No such file"):
        run_program(workspace, ["/no/such"])


def test_a_program_that_takes_too_long(workspace: Workspace, joined: Run) -> None:
    """A program is killed when its time is up, with all it has started."""
    with pytest.raises(TimeoutError, match=r"/bin/sh was not done after 0\.2 s"):
        run_program(workspace, ["/bin/sh", "-c", "sleep 60 & sleep 60"], timeout=0.2)
    until(lambda: services_of(joined.id) == [])


def test_a_program_that_is_killed(workspace: Workspace) -> None:
    """A program that somebody else kills has not taken too long."""
    assert run_program(workspace, ["/bin/sh", "-c", "kill -9 $$"]) == (-signal.SIGKILL, "")


def test_an_interrupted_program(
    workspace: Workspace, joined: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while a program runs ends the program too."""
    request = Run.request

    def interrupt(run: Run, op: str, **fields: object) -> object:
        if op == "wait":
            until(lambda: services_of(run.id))
            raise KeyboardInterrupt
        return request(run, op, **fields)

    monkeypatch.setattr(Run, "request", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_program(workspace, ["sleep", "60"])
    assert services_of(joined.id) == []


def test_whether_a_port_is_listened_at() -> None:
    """It is from when connections are accepted, not from when the port is taken."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert not listens(port)
        sock.listen()
        assert listens(port)
    assert not listens(port)


def test_whether_a_socket_is_listened_at(tmp_path: Path) -> None:
    """It is from when connections are accepted, not from when its file is there."""
    path = tmp_path / "socket"
    assert not listens_at(path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        assert not listens_at(path)
        sock.listen()
        assert listens_at(path)
    assert not listens_at(path)


def test_meeting_oneself_is_not_being_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to a port nobody has can be given that port by the system: that is nobody, and
    the port is free for a server at once."""
    port = free_port()

    class Bound(socket.socket):
        def __init__(self) -> None:
            super().__init__()
            self.bind(("127.0.0.1", port))

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Bound)
        assert not listens(port)
    with socket.create_server(("127.0.0.1", port)):
        assert listens(port)


def test_knocking_that_fails_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no socket is to be had, nothing is known to listen, and the next try may tell."""

    class Exhausted(socket.socket):
        def __init__(self) -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", Exhausted)
            assert not listens(port)
        assert listens(port)


def test_a_free_port() -> None:
    """A free port can be bound."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", free_port()))


def test_a_port_that_was_taken() -> None:
    """A server's complaint about its port is told from others."""
    assert port_was_taken('LOG:  could not bind IPv4 address "127.0.0.1": Address already in use')
    assert not port_was_taken("FATAL:  data directory has wrong ownership")


def test_log_tail(tmp_path: Path) -> None:
    """The tail of a log is its last lines; of a log that is gone nothing."""
    log = tmp_path / "log"
    log.write_bytes(b"".join(b"line %d \xff\n" % number for number in range(1000)))
    assert log_tail(log, 2) == "line 998 \ufffd\nline 999 \ufffd"
    assert log_tail(tmp_path / "nowhere", 2) == ""


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "with exit code 0"), (3, "with exit code 3"), (-9, "killed by SIGKILL"),
     (-250, "killed by signal 250")],
)  # fmt: skip
def test_exit_codes_in_words(code: int, words: str) -> None:
    """An exit code is told in words, a signal by its name."""
    assert describe_exit(code) == words
