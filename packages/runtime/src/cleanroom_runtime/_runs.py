"""The runs of this user on this machine, to look at, to end, and to clean up after."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cleanroom import InternalError
from cleanroom_runtime._folders import run_roots
from cleanroom_runtime._run import Run, RunAddress
from cleanroom_runtime._warden import _processes
from cleanroom_runtime._warden._clean import sweep
from cleanroom_runtime._warden._journal import read_records

State = Literal["alive", "kept", "dead"]


@dataclass(frozen=True)
class KnownRun:
    """A run that has a directory.

    Attributes:
        id: The run's id.
        directory: Its directory.
        state: `alive`; `kept`, if it is only for a person to look at what failed tests left;
            `dead`, if whoever was to clean up after it was killed.
        notes: Of a kept one, what was kept and where.
    """

    id: str
    directory: Path
    state: State
    notes: tuple[str, ...] = ()

    def left(self) -> list[str]:
        """Return what a dead run has left, a line each, as far as this machine can tell."""
        records = read_records(str(self.directory / "journal"))
        lines: dict[str, None] = {}
        for record in records:
            if "pid" in record and record["identity"]:
                pid = int(record["pid"])
                if _processes.identity(pid) == record["identity"]:
                    lines[f"process {pid}"] = None
            elif "directory" in record and os.path.lexists(record["directory"]):
                lines[f"folder {record['directory']}"] = None
            elif "engine" in record:
                where = record["engine"].get("socket") or record["engine"].get("host") or "ssh"
                lines[f"containers, if any, on the engine at {where}"] = None
        return [*lines, f"folder {self.directory}"]

    def failures(self) -> list[str]:
        """Return why it could not be cleaned up after, the last time that was tried."""
        records = read_records(str(self.directory / "journal"))
        failed: list[list[str]] = [each["failed"] for each in records if "failed" in each]
        return failed[-1] if failed else []


def known_runs() -> list[KnownRun]:
    """Return all runs that have a directory, but those that begin or end at this moment."""
    found: list[KnownRun] = []
    for directory in _directories():
        run = Run(RunAddress(directory.name, str(directory.parent), 0))
        try:
            if run.alive():
                kept = run.request("kept")
                state: State = "kept" if kept["notes"] and kept["over"] else "alive"
                found.append(KnownRun(run.id, directory, state, tuple(kept["notes"])))
            elif not _is_held(directory):
                found.append(KnownRun(run.id, directory, "dead"))
        except InternalError:  # it has ended meanwhile
            continue
        finally:
            run.disconnect()
    return found


def end_run(run_id: str) -> bool:
    """End a run that is alive, with all its services. Returns whether there was one."""
    for directory in _directories():
        run = Run(RunAddress(directory.name, str(directory.parent), 0))
        if run.id == run_id and run.alive():
            run.shut_down(kept_too=True)
            return True
    return False


def clean_up_after_dead() -> None:
    """Remove what runs have left that are dead. Where that fails, the run stays known."""
    sweep([str(root) for root in run_roots()])


def _directories() -> list[Path]:
    roots = [root for root in run_roots() if root.is_dir()]
    return sorted(entry for root in roots for entry in root.iterdir() if entry.is_dir())


def _is_held(directory: Path) -> bool:
    """Whether a process holds one of the locks of a run: it is just being started, or ends."""
    for name in ("start.lock", "lock"):
        try:
            fd = os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
    return False
