"""The run this process takes part in, and its end of the conversation with the warden.

A run begins with its first service. All processes of one test session (pytest, its xdist
workers) share one run, and so does everything that one plain script starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cleanroom import CleanroomError, ConfigurationError, InternalError

SOCKET_PATH_LIMIT = 103
"""Bytes in the path of a unix socket: 107 on Linux and 103 on macOS, less the final zero."""

_LONGEST_SOCKET_NAME = len("/r01234567/s01234/.s.PGSQL.65535")
_MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108

Reply = dict[str, Any]


@dataclass(frozen=True)
class RunAddress:
    """What another process needs to take part in a run. Plain data, to be sent there.

    Attributes:
        run_id: The run's id, also the name of its directory.
        root: The folder in which runs of this user live.
        owner: Pid of the process with whose end the run ends; 0 in an address that was made up
            from a service's id, which is good for finding the run but not for starting it.
    """

    run_id: str
    root: str
    owner: int

    @classmethod
    def new(cls) -> RunAddress:
        """Return the address of a run of this process's own. Nothing is made yet."""
        return cls(f"r{secrets.token_hex(4)}", str(run_root()), os.getpid())

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return Path(self.root, self.run_id)


def run_root() -> Path:
    """Return the folder for the runs of this user: writable, and short enough for sockets.

    Raises:
        ConfigurationError: There is no such folder.
    """
    for folder in (tempfile.gettempdir(), "/tmp", "/var/tmp", str(_MEMORY_FOLDER)):  # noqa: S108
        root = Path(folder, f"cleanroom-{os.getuid()}")
        fits = len(os.fsencode(str(root))) + _LONGEST_SOCKET_NAME <= SOCKET_PATH_LIMIT
        if fits and os.access(folder, os.W_OK | os.X_OK):
            return root
    raise ConfigurationError(
        "no folder for unix sockets: neither TMPDIR nor /tmp is writable and has a short path",
        hint="set TMPDIR to a writable folder with a path of less than 50 characters",
    )


def memory_folder(needed: int) -> Path | None:
    """Return a folder in memory that has room for `needed` bytes, or `None`.

    A container's memory limit counts as well, because what lies in memory counts against it.
    """
    try:
        space = os.statvfs(_MEMORY_FOLDER)
    except OSError:
        return None
    room = min(space.f_bavail * space.f_frsize, _memory_left())
    writable = os.access(_MEMORY_FOLDER, os.W_OK | os.X_OK)
    return _MEMORY_FOLDER if writable and room >= needed else None


def _memory_left() -> int:
    """Bytes left below the memory limit of this process's control group."""
    groups = Path("/sys/fs/cgroup")
    left = sys.maxsize
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):
            left = min(left, int((groups / limit).read_text()) - int((groups / usage).read_text()))
    return left


class Run:
    """One process's part in a run."""

    def __init__(self, address: RunAddress) -> None:
        self.address = address
        self._lock = threading.Lock()
        self._idle: list[_Line] = []
        self._pid = os.getpid()
        self._connected = False

    @property
    def id(self) -> str:
        """The run's id."""
        return self.address.run_id

    def new_service_id(self) -> str:
        """Return an id for a service of this run."""
        return f"{self.id}-s{secrets.token_hex(2)}"

    def request(self, op: str, **fields: Any) -> Reply:
        """Ask the warden and return its reply, starting it if need be.

        Raises:
            InternalError: The warden refused or is gone.
        """
        return self.begin(op, **fields)()

    def begin(self, op: str, **fields: Any) -> Callable[[], Reply]:
        """Send a request and return what waits for its reply, to do something else meanwhile."""
        line = self._take()
        try:
            line.send({"op": op, **fields})
        except OSError as exc:
            line.close()
            raise self._gone() from exc

        def finish() -> Reply:
            try:
                reply = line.receive()
            except OSError as exc:
                line.close()
                raise self._gone() from exc
            except BaseException:
                line.close()  # its reply is still to come: nobody else may read it
                raise
            with self._lock:
                self._idle.append(line)
            if not reply.get("ok"):
                raise WardenRefusalError(str(reply.get("error", "no reason given")))
            return reply

        return finish

    def once(self, key: str, make: Callable[[], str]) -> str:
        """Have something done by one process of the run, and return its outcome to all.

        Args:
            key: Names what is done.
            make: Does it and returns its outcome. Called in one process; where that dies, in the
                next. An error of our tree reaches all of them.
        """
        reply = self.request("claim", key=key)
        if not reply["granted"]:
            outcome = json.loads(reply["outcome"])
            if "error" in outcome:
                raise CleanroomError.from_dict(outcome["error"])
            return str(outcome["value"])
        try:
            value = make()
        except CleanroomError as exc:
            self.request("settle", key=key, outcome=json.dumps({"error": exc.to_dict()}))
            raise
        except BaseException:
            self.request("disclaim", key=key)
            raise
        self.request("settle", key=key, outcome=json.dumps({"value": value}))
        return value

    def outcomes(self, prefix: str) -> dict[str, Reply]:
        """Return what was done once under keys with this prefix: its value or its error."""
        listed = self.request("outcomes", prefix=prefix)["outcomes"]
        return {key: json.loads(outcome) for key, outcome in listed.items()}

    def alive(self) -> bool:
        """Whether the run has a warden that answers. Starts nothing."""
        if self._connected and self._pid == os.getpid():
            return True
        try:
            line = _Line.connect(self.address)
        except OSError:
            return False
        with self._lock:
            self._idle.append(line)
            self._pid, self._connected = os.getpid(), True
        return True

    def shut_down(self, *, kept_too: bool = False) -> bool:
        """End the run: all its services stop. Returns whether it was kept alive instead."""
        if not self.alive():
            return False
        try:
            reply = self.request("shutdown", kept_too=kept_too)
        except InternalError:
            reply = {}  # the warden ended before it could say so
        self.disconnect()
        return bool(reply.get("kept"))

    def disconnect(self) -> None:
        """Close this process's connections. The run ends when its owner ends."""
        with self._lock:
            for line in self._idle:
                line.close()
            self._idle.clear()
            self._connected = False

    def _gone(self) -> InternalError:
        self.disconnect()
        return InternalError(
            f"the warden of run {self.id} is gone, and its services with it",
            hint=f"its log is {self.address.directory / 'warden.log'}",
        )

    def _take(self) -> _Line:
        with self._lock:
            if self._pid != os.getpid():  # a forked child: its parent's sockets are not its own
                self._idle, self._pid, self._connected = [], os.getpid(), False
            if self._idle:
                return self._idle.pop()
            line = _Line.connect(self.address) if self._connected else self._first_line()
            self._connected = True
            return line

    def _first_line(self) -> _Line:
        if not self.address.owner:
            raise self._gone()
        with _start_lock(self.address.directory):
            try:
                return _Line.connect(self.address)
            except OSError:
                return _start_warden(self.address)


class WardenRefusalError(InternalError):
    """The warden could not do what it was asked to."""


class _Line:
    """One connection to the warden; carries one request at a time."""

    def __init__(self, sock: socket.socket, starter: subprocess.Popen[bytes] | None = None) -> None:
        self._sock = sock
        self._starter = starter
        self._file = sock.makefile("rb")
        self._unread = 0
        self.send({"op": "hello", "pid": os.getpid()})
        self._unread += 1

    @classmethod
    def connect(cls, address: RunAddress) -> _Line:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(str(address.directory / "warden.sock"))
            return cls(sock)
        except OSError:
            sock.close()
            raise

    def send(self, message: Reply) -> None:
        self._sock.sendall((json.dumps(message) + "\n").encode())

    def receive(self) -> Reply:
        for _ in range(self._unread + 1):  # the answers to `hello` come first
            line = self._file.readline()
            if not line:
                raise ConnectionResetError("the warden closed the connection")
        self._unread = 0
        if self._starter is not None:
            self._starter.wait()  # it left when the warden, which has just answered, was up
            self._starter = None
        reply: Reply = json.loads(line)
        return reply

    def close(self) -> None:
        self._file.close()
        self._sock.close()


@contextlib.contextmanager
def _start_lock(run_directory: Path) -> Iterator[None]:
    """Make the run's directory if need be, and let one process at a time start its warden."""
    while True:
        run_directory.parent.mkdir(mode=0o700, exist_ok=True)
        _check_private(run_directory.parent)
        try:
            run_directory.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(run_directory / "start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # swept between two steps
        fcntl.flock(fd, fcntl.LOCK_EX)
        if (run_directory / "start.lock").exists():
            break
        os.close(fd)
    try:
        yield
    finally:
        os.close(fd)


def _check_private(folder: Path) -> None:
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ConfigurationError(
            f"{folder} is not a private folder of this user",
            hint=f"remove it, or set TMPDIR to another folder (owner {status.st_uid}, "
            f"mode {status.st_mode & 0o777:o}; wanted: owner {os.getuid()}, mode 700)",
        )


_WARDEN = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from cleanroom_runtime._warden.main import main; main(sys.argv[2:])"
)


def _start_warden(address: RunAddress) -> _Line:
    """Start the warden. Requests may be sent at once: it reads them when it is up."""
    directory = address.directory
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    log = os.open(directory / "warden.log", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    (directory / "warden.sock").unlink(missing_ok=True)
    listener.bind(str(directory / "warden.sock"))
    listener.listen(128)
    ours, theirs = socket.socketpair()
    passed = (listener.fileno(), theirs.fileno(), lock)
    roots = {str(run_root()), address.root}
    try:
        process = subprocess.Popen(
            [
                sys.executable, "-I", "-S", "-c", _WARDEN,
                str(Path(__file__).resolve().parent.parent), str(directory),
                *map(str, passed), str(address.owner), *sorted(roots),
            ],
            pass_fds=passed, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
            start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(lock)
        os.close(log)
        listener.close()
        theirs.close()
    return _Line(ours, starter=process)


_current: Run | None = None
_current_lock = threading.Lock()


def current_run() -> Run:
    """Return the run this process takes part in, a new one of its own if it has joined none."""
    global _current
    with _current_lock:
        if _current is None:
            _current = Run(RunAddress.new())
        return _current


def join_run(address: RunAddress) -> Run:
    """Take part in the run another process began, from now on."""
    global _current
    with _current_lock:
        _current = Run(address)
        return _current


def joined_run() -> Run | None:
    """Return the run this process takes part in, if it does."""
    return _current


def leave_run(previous: Run | None) -> None:
    """Take part in another run again, or in none."""
    global _current
    _current = previous


def run_of(service_id: str) -> Run:
    """Return the run a service belongs to, by its id, which may be another process's run."""
    run_id = service_id.partition("-")[0]
    run = current_run()
    return run if run.id == run_id else Run(RunAddress(run_id, run.address.root, 0))
