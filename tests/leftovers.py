"""What a run has on this machine, found without asking the project. Linux only."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RUN_LABEL = "org.cleanroom.run"


def left_of(run_id: str, *, engine: bool = False) -> list[str]:
    """Return a line for each process, file and container of a run.

    Args:
        run_id: The run's id.
        engine: Whether to ask the container engine too.
    """
    found = [f"process {pid}: {command(pid)}" for pid in processes_of(run_id)]
    folders = {tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"}
    for folder in folders:
        for pattern in (f"*{run_id}*", f"cleanroom-*/{run_id}"):
            found += [f"file {path}" for path in sorted(Path(folder).glob(pattern))]
    if engine:
        found += _containers_of(run_id)
    return found


def left_of_service(service_id: str, *, engine: bool = False) -> list[str]:
    """Return a line for each process, file and container of one service of a run that goes on.

    Args:
        service_id: The service's id.
        engine: Whether to ask the container engine too.
    """
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    found = [f"process {pid}: {command(pid)}" for pid in pids if _is_of_service(service_id, pid)]
    run_id, _, short = service_id.partition("-")
    for folder in {tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"}:
        for pattern in (f"*{service_id}*", f"cleanroom-*/{run_id}/{short}*"):
            found += [f"file {path}" for path in sorted(Path(folder).glob(pattern))]
    if engine:
        found += [line for line in _containers_of(run_id) if service_id in line]
    return found


def _is_of_service(service_id: str, pid: int) -> bool:
    """By its environment, which everything that a service starts inherits."""
    with contextlib.suppress(OSError):
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        marked = any(entry.endswith(f"={service_id}".encode()) for entry in environment)
        return marked and _state(pid) != "Z"
    return False


def processes_of(run_id: str) -> list[int]:
    """Return the pids of the processes that have to do with a run, but this one."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if pid != os.getpid() and _speaks_of(run_id, pid)]


def _speaks_of(run_id: str, pid: int) -> bool:
    """By its command, its working directory or its environment."""
    with contextlib.suppress(OSError):
        if _state(pid) == "Z":
            return False
        if run_id in command(pid) or run_id in os.readlink(f"/proc/{pid}/cwd"):
            return True
        return f"={run_id}-".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    return False


def command(pid: int) -> str:
    """Return the command line of a process; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def is_running(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        return _state(pid) != "Z"
    except OSError:
        return False


def services_of(run_id: str) -> list[int]:
    """Return the pids of a run's services, and of what they have started."""
    return [pid for pid in processes_of(run_id) if "_warden.main" not in command(pid)]


def warden_of(run_id: str) -> int:
    """Return the pid of a run's warden; those that it has forked look like it."""
    alike = [pid for pid in processes_of(run_id) if "_warden.main" in command(pid)]
    (pid,) = [pid for pid in alike if _parent(pid) not in alike]
    return pid


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _containers_of(run_id: str) -> list[str]:
    import docker

    client = docker.from_env()
    try:
        labelled = {"filters": {"label": f"{RUN_LABEL}={run_id}"}}
        listed = client.api.containers(all=True, **labelled)
        found = [f"container {each['Names']}" for each in listed]
        return found + [f"network {each['Name']}" for each in client.api.networks(**labelled)]
    finally:
        client.close()


def segments() -> set[str]:
    """Return the ids of the System V shared memory segments of this machine."""
    rows = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return {row.split()[1] for row in rows}


def segments_of(pids: set[int]) -> set[str]:
    """Return the ids of the shared memory segments that these processes made."""
    rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return {row[1] for row in rows if int(row[4]) in pids}


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until a condition holds; fail when it does not in time, saying what it was last."""
    deadline = time.monotonic() + seconds
    while not (last := condition()):
        assert time.monotonic() < deadline, f"still {last!r} after {seconds:g} s"
        time.sleep(0.01)


def gone_within(seconds: float, run_id: str, *, engine: bool = False) -> None:
    """Wait until nothing is left of a run; fail when something is when time is up."""
    deadline = time.monotonic() + seconds
    while left := left_of(run_id, engine=engine):
        assert time.monotonic() < deadline, f"after {seconds:g} s there is still: {left}"
        time.sleep(0.02)
