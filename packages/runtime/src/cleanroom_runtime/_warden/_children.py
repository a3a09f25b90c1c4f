"""Starting server processes as children of the warden, and ending them for good."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time

from . import _processes
from ._clean import remove_directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._clients import Connection
    from ._journal import Journal

_TO_BE_HEARD = (signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
"""Signals that a new process does not ignore, though the warden does, or whoever started it."""

_A_START = 0.1
"""Seconds that the start of a server is taken to need a processor."""

LAST_PATIENCE = 3.0
"""Seconds that a process has to end by itself when the run ends, if it has not fewer."""


class Child:
    """One process, running or ended.

    Attributes:
        id: Of the service it belongs to.
        pid: Its process id, and that of its group and session.
        directories: To be removed once it is stopped.
        exit_code: Of one that has ended; minus the number of the signal that ended it.
        late: Whether it has gone over its time limit.
        abandoned: Whether it was ended because nobody wants it.
        since: When it was started, in seconds since the epoch.
    """

    def __init__(self, pid: int, request: dict[str, Any], since: float) -> None:
        self.id: str = request["id"]
        self.pid = pid
        self.directories: list[str] = request["directories"]
        self.exit_code: int | None = None
        self.stopping: list[Connection] = []
        self.waiting: list[Connection] = []
        self.late = False
        self.abandoned = False
        self._due: float | None = None
        if request.get("time_limit") is not None:
            self._due = time.monotonic() + float(request["time_limit"])
        self._asked = False
        self._gentle = bool(request.get("gentle"))
        self.since = since
        self._stop_signal = getattr(signal, request["stop_signal"])
        self._stop_timeout = float(request["stop_timeout"])
        self._below: dict[int, str] = {}

    @property
    def running(self) -> bool:
        """Whether it has not been seen to end."""
        return self.exit_code is None

    def ask_to_end(self, patience: float | None = None) -> None:
        """Send its stop signal, and set the time by which it is killed.

        Args:
            patience: The most seconds it has until then, if not its own.
        """
        if not self.running:
            return
        seconds = self._stop_timeout if patience is None else min(patience, self._stop_timeout)
        kill_at = time.monotonic() + seconds
        if self._asked:
            self._due = kill_at if self._due is None else min(self._due, kill_at)
            return
        self._asked, self._due = True, kill_at
        below = _processes.descendants(self.pid)
        self._below = {pid: _processes.identity(pid) for pid in below}
        _processes.signal_process(self.pid, self._stop_signal)
        for pid in [self.pid, *below]:  # one that is stopped would not hear it
            _processes.signal_process(pid, signal.SIGCONT)

    def due(self) -> float | None:
        """Return when it is to be asked to end, or killed, on the monotonic clock."""
        return self._due if self.running else None

    def press_on(self) -> None:
        """Kill it if it has outlived its stop signal, and send that if it is over its limit."""
        if not self.running or self._due is None or time.monotonic() < self._due:
            return
        if self._asked:
            _processes.signal_group(self.pid, signal.SIGKILL)
        else:
            self.late = True
            self.ask_to_end()

    def reap(self) -> bool:
        """Note its end if it has ended, and end what it left. Returns whether it is over."""
        if self.running and _processes.has_ended(self.pid) and not self._others_are_leaving():
            left = self._left()  # before its group dies, which may be between them and us
            # Not waited for yet, it still holds its pid, so this cannot hit anybody else's group.
            _processes.signal_group(self.pid, signal.SIGKILL)
            self.exit_code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            for pid, identity in {**left, **self._left()}.items():
                if _processes.identity(pid) == identity:
                    _processes.kill_tree(pid)
            _processes.remove_shared_memory(self.pid, self.since)
        return not self.running

    def _others_are_leaving(self) -> bool:
        """Whether its group has others yet, which have time to end because it has."""
        if not self._gentle or not any(map(self._is_in_group, _processes.descendants(os.getpid()))):
            return False
        if not self._asked:
            self.ask_to_end()
        return self._due is not None and time.monotonic() < self._due

    def _is_in_group(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            in_group = pid != self.pid and os.getpgid(pid) == self.pid
            return in_group and _processes.identity(pid) != ""
        return False

    def _left(self) -> dict[int, str]:
        """The processes that it has left to us, with those below them."""
        return {
            pid: _processes.identity(pid)
            for pid in _processes.descendants(os.getpid())
            if self._was_below(pid) or _processes.mark_of(pid) == self.id
        }

    def _was_below(self, pid: int) -> bool:
        return pid in self._below and self._below[pid] == _processes.identity(pid)


class Children:
    """All processes a run has started.

    Args:
        journal: Where a process stands before it runs.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._children: dict[str, Child] = {}

    def get(self, service_id: str) -> Child | None:
        """Return the process of a service."""
        return self._children.get(service_id)

    def spawn(self, request: dict[str, Any]) -> Child:
        """Start the program a client asked for, in a session of its own.

        Raises:
            OSError: A directory or file could not be made, or the program not be executed.
        """
        try:
            _make_directories(request, self._journal)
            others = self._starting() + ("ahead" in request)  # meanwhile, its client collects
            child = _spawn(request, self._journal, others)
        except OSError:
            remove_directories(request["directories"])
            raise
        self._children[child.id] = child
        return child

    def _starting(self) -> int:
        """How many were started just now, and have likely something to do yet."""
        recently = time.time() - _A_START
        return sum(child.running and child.since > recently for child in self._children.values())

    def look_after(self) -> None:
        """Notice who has ended, tell who waits for it, and kill who is late."""
        for child in self._children.values():
            if not child.reap():
                child.press_on()
                continue
            if child.stopping or child.abandoned:
                child.abandoned = False
                remove_directories(child.directories)
            for connection in child.stopping + child.waiting:
                connection.reply(known=True, exit_code=child.exit_code, late=child.late)
            child.stopping, child.waiting = [], []

    def abandon(self, child: Child) -> None:
        """End a process that nobody wants, and remove its directories."""
        child.abandoned = True
        child.ask_to_end()

    def due(self) -> list[float]:
        """Return when something is to be done about them, on the monotonic clock."""
        found = [child.due() for child in self._children.values()]
        return [each for each in found if each is not None]

    def end_all(self, but: int | None) -> None:
        """End them all, and whatever they have left to us.

        Args:
            but: Pid of a child of this process that is none of them.
        """
        for child in self._children.values():
            child.reap()
            child.ask_to_end(LAST_PATIENCE)
        while [child for child in self._children.values() if not child.reap()]:
            for child in self._children.values():
                child.press_on()
            time.sleep(0.002)
        deadline = time.monotonic() + LAST_PATIENCE
        while time.monotonic() < deadline:
            orphans = [pid for pid in _processes.children_of(os.getpid()) if pid != but]
            if not orphans:
                break
            for pid in orphans:
                _processes.kill_tree(pid)


def _make_directories(request: dict[str, Any], journal: Journal) -> None:
    for directory in request["directories"]:
        journal.add({"directory": directory})
        os.mkdir(directory, 0o700)
    for path, content in request.get("files", {}).items():
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(content)


def _spawn(request: dict[str, Any], journal: Journal, others: int) -> Child:
    """Fork, and let the child become the program once it stands in the journal."""
    open_fds: list[int] = []
    since = time.time()
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        log = os.open(request["log"], flags, 0o600)
        open_fds.append(log)
        source = os.open(request.get("input") or os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        open_fds.append(source)
        go_read, go_write = os.pipe()
        error_read, error_write = os.pipe()
        open_fds += [go_read, go_write, error_read, error_write]
        pid = os.fork()
        if pid == 0:
            os.close(go_write)
            _become(request, source, log, go_read, error_write, others)
        _close(open_fds, error_write)
        try:
            _processes.adopt_orphans()
            record = {"pid": pid, "identity": _processes.identity(pid), "time": since}
            journal.add({**record, "signal": request["stop_signal"]})
            os.write(go_write, b"!")
        except OSError:
            _close(open_fds, go_write)  # without a word the child gives up
            os.waitpid(pid, 0)
            raise
        failure = os.read(error_read, 64)
        if failure:
            os.waitpid(pid, 0)
            raise OSError(int(failure), os.strerror(int(failure)), request["argv"][0])
    finally:
        for fd in list(open_fds):
            _close(open_fds, fd)
    return Child(pid, request, since)


def _close(open_fds: list[int], fd: int) -> None:
    open_fds.remove(fd)
    os.close(fd)


def _become(
    request: dict[str, Any], source: int, log: int, go: int, error: int, others: int
) -> None:
    """In the forked child: become the program, or report why not and exit."""
    try:
        os.setsid()
        if os.read(go, 1) != b"!":
            os._exit(127)
        for number, fd in enumerate((source, log, log)):
            os.dup2(fd, number)
        for number in _TO_BE_HEARD:
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o077)
        copy, owner = request.get("copy") or (), request.get("owner") or ()
        if copy or owner:
            from ._prepare import prepare  # in this process alone: the warden has others to serve

            os.dup2(2, error, inheritable=False)  # nobody waits: what goes wrong is for the log
            prepare(copy, owner, request["directories"], others)
        os.chdir(request["cwd"])
        environment = {**request["env"], _processes.MARK: request["id"]}
        os.execvpe(request["argv"][0], request["argv"], environment)  # noqa: S606
    except OSError as exc:
        with contextlib.suppress(OSError):
            os.write(error, str(exc.errno or errno.EINVAL).encode())
    finally:
        os._exit(127)
