"""Starting server processes as children of the warden, and ending them for good."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cleanroom_runtime._warden._journal import Journal, process_start_time, process_state


@dataclass
class Child:
    """One server process, running or ended."""

    id: str
    pid: int
    stop_signal: int
    stop_timeout: float
    directories: list[str] = field(default_factory=list)
    exit_code: int | None = None
    """As a shell counts: minus the number of the signal that ended it."""
    kill_at: float | None = None
    offspring: list[tuple[int, str]] = field(default_factory=list)
    """Processes below it when it was asked to end, with their start times."""

    @property
    def running(self) -> bool:
        """Whether it has not been seen to end."""
        return self.exit_code is None


def spawn(request: dict[str, Any], journal: Journal) -> Child:
    """Start the program a client asked for, in a session of its own.

    The child waits until it stands in the journal before it becomes the program.

    Raises:
        OSError: The program could not be executed.
    """
    _make_directories(request, journal)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    go_read, go_write = os.pipe()
    error_read, error_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go_write)
        _become(request, log, go_read, error_write)
    for fd in (log, go_read, error_write):
        os.close(fd)
    journal.add({"pid": pid, "start": process_start_time(pid), "signal": request["stop_signal"]})
    os.write(go_write, b"!")
    os.close(go_write)
    failure = os.read(error_read, 64)
    os.close(error_read)
    if failure:
        os.waitpid(pid, 0)
        code = int(failure)
        raise OSError(code, os.strerror(code), request["argv"][0])
    return Child(
        id=request["id"],
        pid=pid,
        stop_signal=getattr(signal, request["stop_signal"]),
        stop_timeout=float(request["stop_timeout"]),
        directories=list(request["directories"]),
    )


def _make_directories(request: dict[str, Any], journal: Journal) -> None:
    for directory in request["directories"]:
        journal.add({"directory": directory})
        os.mkdir(directory, 0o700)
    for path, content in request.get("files", {}).items():
        Path(path).write_text(content)


def _become(request: dict[str, Any], log: int, go: int, error: int) -> None:
    """In the forked child: become the program, or report why not and exit."""
    try:
        os.setsid()
        if os.read(go, 1) != b"!":
            os._exit(127)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o077)
        os.chdir(request["cwd"])
        os.execvpe(request["argv"][0], request["argv"], request["env"])  # noqa: S606
    except OSError as exc:
        os.write(error, str(exc.errno or errno.EINVAL).encode())
    finally:
        os._exit(127)


def reap(child: Child) -> bool:
    """Note the end of a child if it has ended, and end what it left. Returns whether it is over."""
    if child.exit_code is None and _has_ended(child.pid):
        # Not waited for yet, it still holds its pid, so this cannot hit anybody else's group.
        _signal_group(child.pid, signal.SIGKILL)
        child.exit_code = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
        for pid, start in child.offspring:
            if start and process_start_time(pid) == start:
                _kill_tree(pid)
        remove_shared_memory(child.pid)
    return child.exit_code is not None


def _has_ended(pid: int) -> bool:
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return process_state(pid) in ("", "Z")
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def ask_to_end(child: Child) -> None:
    """Send a running child its stop signal and set the time by which it is killed."""
    if child.running and child.kill_at is None:
        child.kill_at = time.monotonic() + child.stop_timeout
        child.offspring = [(pid, process_start_time(pid)) for pid in _descendants(child.pid)]
        _signal_group(child.pid, child.stop_signal, leader_only=True)
        _signal_group(child.pid, signal.SIGCONT)


def kill_if_late(child: Child) -> None:
    """Kill a child that outlived its stop signal."""
    if child.running and child.kill_at is not None and time.monotonic() >= child.kill_at:
        _signal_group(child.pid, signal.SIGKILL)


def end_orphans(but: int | None) -> None:
    """End whatever ended children have left to the warden. For the end of the run only."""
    for pid in _children_of(os.getpid()):
        if pid != but:
            _kill_tree(pid)


def adopt_orphans() -> None:
    """Become the parent of what children leave behind, so that it can be found and ended."""
    with contextlib.suppress(OSError, ImportError, AttributeError):
        import ctypes

        pr_set_child_subreaper = 36
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def _descendants(pid: int) -> list[int]:
    found = _children_of(pid)
    return found + [below for child in found for below in _descendants(child)]


def _children_of(pid: int) -> list[int]:
    """Children of a process. Linux only; elsewhere none are found."""
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []


def _kill_tree(pid: int) -> None:
    for victim in [*reversed(_descendants(pid)), pid]:
        with contextlib.suppress(OSError):
            os.kill(victim, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _signal_group(pid: int, number: int, *, leader_only: bool = False) -> None:
    with contextlib.suppress(OSError):
        (os.kill if leader_only else os.killpg)(pid, number)


def remove_shared_memory(creator: int) -> None:
    """Remove the System V segments that a killed process left behind. Linux only."""
    try:
        rows = Path("/proc/sysvipc/shm").read_text().splitlines()
    except OSError:
        return
    columns = rows[0].split()
    left = [
        int(row[columns.index("shmid")])
        for row in (line.split() for line in rows[1:])
        if int(row[columns.index("cpid")]) == creator and int(row[columns.index("nattch")]) == 0
    ]
    if left:
        import ctypes

        ipc_rmid = 0
        for shmid in left:
            ctypes.CDLL(None).shmctl(shmid, ipc_rmid, None)
