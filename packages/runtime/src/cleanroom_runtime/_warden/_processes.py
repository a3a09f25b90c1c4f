"""What the system knows about processes: who they are, what is below them, what they leave.

Read from `/proc`. Where there is none, as on macOS, `ps` says who a process is, and what is below
it stays unknown.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

MARK = "CLEANROOM_SERVICE_ID"
"""Environment variable that tells, of any process, which service it belongs to."""

_system: list[str] = []


def identity(pid: int) -> str:
    """Return what tells this process from all that ever had its pid; empty if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            facts = file.read().rpartition(")")[2].split()
    except OSError:
        return "" if os.path.exists("/proc/self/stat") else _identity_by_ps(pid)
    state, began = facts[0], facts[19]
    if state in "ZX":  # it has ended, and nobody has asked how
        return ""
    if not _system:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            _system.append(f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}")
    return f"{_system[0]} {began}"


def has_ended(child: int) -> bool:
    """Whether a child of this process has ended; it is not waited for yet, and keeps its pid."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return _ps(child, "state")[:1] in ("", "Z")
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _identity_by_ps(pid: int) -> str:
    return _ps(pid, "lstart")


def _ps(pid: int, column: str) -> str:
    import subprocess

    command = ["/bin/ps", "-o", f"{column}=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def children_of(pid: int) -> list[int]:
    """Return the children of a process, whichever of its threads started them."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
    return found


def descendants(pid: int) -> list[int]:
    """Return all processes below a process."""
    found = children_of(pid)
    return found + [below for child in found for below in descendants(child)]


def mark_of(pid: int) -> str:
    """Return the id of the service a process belongs to, where it has kept its environment."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:
        return ""
    start = f"{MARK}=".encode()
    found = [each[len(start) :].decode() for each in variables if each.startswith(start)]
    return found[0] if found else ""


def marked(run_id: str) -> list[int]:
    """Return every process of this machine that belongs to a service of a run."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    return [pid for pid in pids if mark_of(pid).startswith(f"{run_id}-")]


def signal_process(pid: int, number: int) -> None:
    """Send a signal; a process that is gone is fine."""
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a process group; one that is gone is fine."""
    with contextlib.suppress(OSError):
        os.killpg(pid, number)


def kill_tree(pid: int) -> None:
    """Kill a process and everything below it, and wait for it where it is our child."""
    signal_process(pid, signal.SIGSTOP)  # so that it starts no more
    for victim in [pid, *descendants(pid)]:
        signal_process(victim, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def adopt_orphans() -> None:
    """Become the parent of what children leave behind, so that it can be found. Linux only."""
    with contextlib.suppress(OSError, ImportError, AttributeError):
        import ctypes

        pr_set_child_subreaper = 36
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def remove_shared_memory(creator: int, since: float) -> None:
    """Remove the System V segments a process has left, made since a time. Linux only.

    What is still attached to one keeps it until it ends.
    """
    try:
        with open("/proc/sysvipc/shm", encoding="ascii") as file:
            titles, *rows = [line.split() for line in file.read().splitlines()]
    except (OSError, ValueError):
        return
    segments = [dict(zip(titles, row, strict=False)) for row in rows]
    left = [
        int(segment["shmid"])
        for segment in segments
        # The kernel's clock for this runs behind by up to a second.
        if int(segment["cpid"]) == creator and int(segment["ctime"]) >= since - 2
    ]
    if left:
        import ctypes

        ipc_rmid = 0
        for shmid in left:
            ctypes.CDLL(None).shmctl(shmid, ipc_rmid, None)


def wait_for_end(identities: dict[int, str], seconds: float) -> None:
    """Wait until these processes have ended, which are no children of ours, or time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if all(identity(pid) != was for pid, was in identities.items()):
            break
        time.sleep(0.01)
