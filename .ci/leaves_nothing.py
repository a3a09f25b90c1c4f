"""Runs a command and fails if anything outlives it: `python leaves_nothing.py COMMAND...`.

What counts: processes, however they were detached; containers, volumes and networks; shared memory;
mounts; run directories in the temporary directory. Linux only.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
# Time for what was told to stop to be gone, in seconds.
GRACE = 15
# A Docker Engine makes it for the first container with the network of the host, and keeps it.
ENGINES_OWN = "/run/docker/netns/default"


def main(command: list[str]) -> int:
    # Orphans of the command become our children, so that none can get away by detaching itself.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = things()
    status = run(command)
    deadline = time.monotonic() + GRACE
    while (left := leftovers(before)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for line in left:
        print(f"left behind: {line}", file=sys.stderr)
    # TODO: find out who begins a run and ends before its warden is there.
    for folder in [each for each in left if is_run_without_warden(each)]:
        print(f"not counted, as the next run sweeps it: {folder}", file=sys.stderr)
        left.remove(folder)
    kill_descendants()
    return status or (1 if left else 0)


def run(command: list[str]) -> int:
    """Return the command's exit code; reap orphans meanwhile, as an init process would."""
    process = subprocess.Popen(command)
    while True:
        pid, wait_status = os.wait()
        if pid == process.pid:
            return os.waitstatus_to_exitcode(wait_status)


def leftovers(before: set[str]) -> list[str]:
    reap()
    processes = [f"process {pid}: {describe(pid)}" for pid in descendants(os.getpid())]
    return processes + sorted(things() - before)


def is_run_without_warden(thing: str) -> bool:
    """Whether it is a folder of runs that have nothing but the empty files made before a warden.

    What is in any other one is shown, so that it can be told what left it there.
    """
    folder = Path(thing.removeprefix("temporary "))
    if not thing.startswith("temporary ") or not folder.name.startswith("cleanroom-"):
        return False
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    for path in files:
        print(f"  {path.relative_to(folder)}: {path.lstat().st_size} bytes", file=sys.stderr)
    empty = {path.name for path in files if path.is_file() and not path.stat().st_size}
    return len(empty) > 0 and all(
        path.name in empty and path.name in ("lock", "start.lock", "warden.log") for path in files
    )


def reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def descendants(pid: int) -> list[int]:
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return []
    return [found for child in children for found in (child, *descendants(child))]


def describe(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip() or "?"
    except OSError:
        return "gone"


def kill_descendants() -> None:
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def things() -> set[str]:
    """Return a line for each thing on this machine that a run could leave behind."""
    found = {f"shared memory /dev/shm/{path.name}" for path in Path("/dev/shm").glob("*")}
    found |= {f"temporary {path}" for path in Path(tempfile.gettempdir()).glob("*cleanroom*")}
    for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]:
        found.add(f"System V shared memory segment {line.split()[1]}")
    for line in Path("/proc/mounts").read_text().splitlines():
        found.add(f"mount {line.split()[1]}")
    found.discard(f"mount {ENGINES_OWN}")
    if shutil.which("docker"):
        for kind, listing in (
            ("container", ["ps", "--all", "--quiet"]),
            ("volume", ["volume", "ls", "--quiet"]),
            ("network", ["network", "ls", "--quiet"]),
        ):
            result = subprocess.run(["docker", *listing], capture_output=True, text=True)
            found |= {f"{kind} {name}" for name in result.stdout.split()}
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
