"""A client's end of the conversation with the warden, and how a warden is started."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cleanroom_runtime._folders import check_private, run_roots

Reply = dict[str, Any]

_PAUSE = 0.01
_WARDEN = (
    "import sys; sys.path.append(sys.argv[1]); from _warden.main import main; main(sys.argv[2:])"
)


class _Held(socket.socket):
    """A socket that is left open until this process ends, if nobody closes it: then the run ends.

    Python warns of sockets that nobody has closed, and closes them, while it removes modules.
    """

    def __del__(self) -> None:
        """Do neither."""


class Line:
    """One connection to a warden; carries one request at a time."""

    def __init__(self, sock: socket.socket, starter: subprocess.Popen[bytes] | None = None) -> None:
        self._sock = sock
        self._starter = starter
        self._file = sock.makefile("rb")
        self._owed = 0
        try:
            self.tell({"op": "hello", "pid": os.getpid()})
        except ConnectionError:
            if starter is None:
                raise
            # The warden that was just started has died already, as the first request will show.

    @classmethod
    def connect(cls, run_directory: Path) -> Line:
        """Connect to the warden of a run.

        Raises:
            OSError: Nobody answers there.
        """
        sock = _Held(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(str(run_directory / "warden.sock"))
            return cls(sock)
        except BaseException:
            sock.close()
            raise

    def send(self, message: Reply) -> None:
        """Send a request.

        Raises:
            OSError: The warden is gone.
        """
        self._sock.sendall((json.dumps(message) + "\n").encode())

    def tell(self, message: Reply) -> None:
        """Send a request whose reply nobody wants, so that another may follow it.

        Raises:
            OSError: The warden is gone.
        """
        self.send(message)
        self._owed += 1

    def receive(self) -> Reply:
        """Wait for the reply to the last request.

        Raises:
            OSError: The warden is gone.
        """
        while self._owed:
            self._read()
            self._owed -= 1
            self._forget_starter()
        return self._read()

    def _read(self) -> Reply:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the warden closed the connection")
        reply: Reply = json.loads(line)
        return reply

    def is_open(self) -> bool:
        """Whether the warden still has its end. Asks nothing, so between requests only."""
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._sock.close()
        self._forget_starter()

    def _forget_starter(self) -> None:
        """Wait for the process that has started the warden; it is about to end, or has ended."""
        if self._starter is not None:
            self._starter.wait()
            self._starter = None


def open_line(run_directory: Path, root: Path, owner: int) -> Line:
    """Connect to the warden of a run, starting it if there is none.

    Args:
        run_directory: The run's directory; made if need be.
        root: The folder it is in.
        owner: Pid of the process with whose end the run ends.

    Raises:
        ConfigurationError: The folder is open to other users.
        OSError: The directory or the process could not be made.
    """
    while True:
        with _start_lock(run_directory, root):
            try:
                return Line.connect(run_directory)
            except OSError:
                lock = _lock(run_directory / "lock")
            if lock is not None:
                try:
                    return _start_warden(run_directory, root, owner, lock)
                finally:
                    os.close(lock)


def _lock(path: Path) -> int | None:
    """Take the lock that a warden holds while it lives; `None` if it was removed meanwhile."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while _is_open_at(fd, path):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE)  # it is about to end
        else:
            if _is_open_at(fd, path):
                return fd
    os.close(fd)
    return None


@contextlib.contextmanager
def _start_lock(run_directory: Path, root: Path) -> Iterator[None]:
    """Make the run's directory if need be, and let one process at a time start its warden."""
    while True:
        try:
            root.mkdir(mode=0o700, exist_ok=True)
            check_private(root)
            run_directory.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(run_directory / "start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            if not root.parent.is_dir():
                raise
            continue  # swept between two steps
        fcntl.flock(fd, fcntl.LOCK_EX)
        if _is_open_at(fd, run_directory / "start.lock"):
            break
        os.close(fd)
    try:
        yield
    finally:
        os.close(fd)


def _is_open_at(fd: int, path: Path) -> bool:
    """Whether the open file is still the one at this path."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _start_warden(run_directory: Path, root: Path, owner: int, lock: int) -> Line:
    """Start the warden. Requests may be sent at once: it reads them when it is up."""
    log = os.open(
        run_directory / "warden.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    address = run_directory / "warden.sock"
    ours, theirs = socket.socketpair()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        passed = (listener.fileno(), theirs.fileno(), lock)
        try:
            address.unlink(missing_ok=True)
            listener.bind(str(address))
            listener.listen(128)
            process = subprocess.Popen(
                [
                    sys.executable, "-I", "-S", "-c", _WARDEN,
                    str(Path(__file__).resolve().parent), str(run_directory),
                    *map(str, passed), str(owner), *_sweepable(root),
                ],
                pass_fds=passed, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                start_new_session=True,
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(log)
            theirs.close()
    return Line(_Held(fileno=ours.detach()), starter=process)


def _sweepable(root: Path) -> list[str]:
    """The folders in which this user's runs are that may have been left behind."""
    private = []
    for each in {root, *run_roots()}:
        with contextlib.suppress(Exception):
            check_private(each)
            private.append(str(each))
    return sorted(private)
