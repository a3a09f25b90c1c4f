"""Run a command, time it from outside, and wait until nothing of it is left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 120.0
"""Seconds after which a command has hung."""

SETTLE_TIMEOUT = 20.0
"""Seconds that a command's own helpers get to go away after it."""

_PR_SET_CHILD_SUBREAPER = 36


class BenchmarkError(Exception):
    """A measurement could not be taken; its figure is left out and the reason printed."""


@dataclass(frozen=True)
class Run:
    """One command that ran to its end."""

    seconds: float
    """From before the process was made until it had ended."""
    gone_after: float | None
    """Seconds until its last descendant was gone as well; None where that cannot be seen."""
    output: str
    began: float
    """On the monotonic clock, which all processes of a machine share; so is `ended`."""
    ended: float


@contextlib.contextmanager
def adopted_orphans() -> Iterator[None]:
    """Have orphaned descendants become children of this process: there they are seen and awaited.

    Without it, and elsewhere than on Linux, `run` does not know when the last of them is gone.
    """
    if sys.platform != "linux":
        yield
        return
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def run(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    folder: Path | None = None,
    timeout: float = TIMEOUT,
) -> Run:
    """Run a command and time it.

    Raises:
        BenchmarkError: if it fails, hangs, or leaves processes behind for too long.
    """
    others = set(_children_of(os.getpid()))
    # A file and no pipe: a helper that keeps the output open must not be waited for.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        hung = threading.Event()
        # Not wait(timeout), which looks every 50 ms only.

        def give_up() -> None:
            hung.set()
            process.kill()

        watchdog = threading.Timer(timeout, give_up)
        watchdog.start()
        try:
            code = process.wait()
        except BaseException:
            _kill(process, others)
            raise
        finally:
            watchdog.cancel()
        ended = time.monotonic()
        if hung.is_set():
            _kill(process, others)
            raise BenchmarkError(f"{command[0]} hung for {timeout:.0f} s")
        gone_after = _await_descendants(others, ended)
        output.seek(0)
        text = output.read()
    if code != 0:
        shown = " ".join(str(part) for part in command)
        raise BenchmarkError(f"{shown} ended with {code}:\n{_tail(text)}")
    return Run(ended - began, gone_after, text, began, ended)


def child_environment(cache: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a measured command: this one's, less what would change figures.

    `cache` is where it keeps what it caches, so that the user's own caches are neither used nor
    touched.
    """
    dropped = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPATH", "VIRTUAL_ENV")
    prefixes = ("PYTEST_", "CLEANROOM_", "COV_", "COVERAGE_", "PG", "TESTCONTAINERS_")
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in dropped and not key.startswith(prefixes)
    }
    return {**kept, "XDG_CACHE_HOME": str(cache), **(extra or {})}


def _await_descendants(others: set[int], since: float) -> float | None:
    if sys.platform != "linux":
        time.sleep(1.0)
        return None
    while remaining := _reap(set(_children_of(os.getpid())) - others):
        if time.monotonic() - since > SETTLE_TIMEOUT:
            names = ", ".join(_command_line(pid) for pid in sorted(remaining))
            _kill_descendants(others)
            raise BenchmarkError(f"still there {SETTLE_TIMEOUT:.0f} s after the end: {names}")
        time.sleep(0.002)
    return time.monotonic() - since


def _kill(process: subprocess.Popen[bytes], others: set[int]) -> None:
    process.kill()
    process.wait()
    _kill_descendants(others)


def _kill_descendants(others: set[int]) -> None:
    """End what a command left behind, those included that become ours when their parent ends."""
    while remaining := _reap(set(_children_of(os.getpid())) - others):
        for pid in remaining:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _reap(children: set[int]) -> set[int]:
    """Collect those children that have ended and return the others.

    A child that still runs keeps its own descendants; when it ends they become ours.
    """
    running = set()
    for pid in children:
        try:
            done, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue
        if done == 0:
            running.add(pid)
    return running


def _children_of(parent: int) -> list[int]:
    if sys.platform != "linux":
        return []
    children = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        # pid (command) state ppid ...: the command may itself hold blanks and brackets.
        if int(stat.rpartition(")")[2].split()[1]) == parent:
            children.append(int(entry))
    return children


def _command_line(pid: int) -> str:
    try:
        raw = Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return str(pid)
    return f"{pid} ({raw.replace(bytes(1), b' ').decode(errors='replace').strip()[:120]})"


def _tail(text: str, lines: int = 25) -> str:
    return "\n".join(text.splitlines()[-lines:])
