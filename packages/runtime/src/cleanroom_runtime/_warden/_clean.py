"""Removing what a run owns: all of it, where its warden was killed, else what is no process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time

from . import _processes
from ._containers import Removal
from ._journal import Journal, read_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ._journal import Record

CREATION_PATIENCE = 4.0
"""Seconds in which an engine may still create what a client that was killed had asked for."""
MOST_ATTEMPTS = 3
"""Runs that try to clean up after one before it, where that fails, until they let it be."""

_HELPER_TIMEOUT = 20.0
_STOP_PATIENCE = 3.0


class Cleaner:
    """Removes what stands in a journal. What fails is noted, and does not stop the rest.

    Args:
        records: The journal's records.
        run_id: The run's id.

    Attributes:
        failures: What went wrong.
    """

    def __init__(self, records: list[Record], run_id: str) -> None:
        self._records = records
        self._run_id = run_id
        self.failures: list[str] = []
        self._removals: list[Removal] = []
        self._engines: dict[str, set[str]] = {}  # engine: services that may come to be there
        self._absent = {record["absent"] for record in records if "absent" in record}
        for record in records:
            if "engine" in record:
                awaited = self._engines.setdefault(json.dumps(record["engine"]), set())
                if "service" in record and record["service"] not in self._absent:
                    awaited.add(record["service"])

    def end_processes(self) -> None:
        """End the processes of a run whose warden has died, those that are still the same."""
        records = [record for record in self._records if "pid" in record]
        with self._noting("ending processes"):
            _end_processes(records)
        for pid in _processes.marked(self._run_id):
            _processes.kill_tree(pid)

    def begin_to_remove_containers(self) -> bool:
        """Have the engines begin to remove what containers there are now.

        Returns whether they will remove all of it whatever becomes of this process.
        """
        by_themselves = True
        for engine, awaited in self._engines.items():
            removal = Removal(json.loads(engine), self._run_id, awaited)
            is_left_to_it = False
            with self._noting("removing containers"):
                is_left_to_it = removal.begin()
                self._removals.append(removal)
            by_themselves = by_themselves and is_left_to_it
        return by_themselves

    def finish_removing_containers(self) -> None:
        """Wait until the run's containers are gone, with their volumes, and remove networks."""
        for removal in self._removals:
            with self._noting("removing containers"):
                removal.finish()

    def await_containers(self) -> None:
        """Remove what an engine was asked to create and had not created yet."""
        deadline = time.monotonic() + CREATION_PATIENCE
        for engine, awaited in self._engines.items():
            with self._noting("waiting for containers"):
                while awaited and time.monotonic() < deadline:
                    time.sleep(0.1)
                    Removal(json.loads(engine), self._run_id, awaited).finish()

    def run_helpers(self) -> None:
        """Run the commands that remove what this process cannot reach by itself."""
        for record in reversed(self._records):
            if "helper" in record and record.get("service") not in self._absent:
                with self._noting("a helper"):
                    _run_helper(record["helper"])

    def remove_directories(self) -> None:
        """Remove all directories but the run's own."""
        remove_directories([each["directory"] for each in self._records if "directory" in each])

    @contextlib.contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - the rest must be cleaned up whatever this was
            self.failures.append(f"{what} failed: {exc!r}")


def sweep(roots: list[str]) -> None:
    """Clean up after the runs in these folders whose warden is gone, told by their locks."""
    for root in roots:
        with contextlib.suppress(FileNotFoundError):
            for run_id in os.listdir(root):
                run_directory = os.path.join(root, run_id)
                with contextlib.suppress(OSError), _locked(run_directory):
                    finish(run_directory, clean_up_after(run_directory))


def clean_up_after(run_directory: str) -> list[str]:
    """Remove everything a run owned whose warden is gone. The caller holds its lock.

    Returns what went wrong.
    """
    journal = os.path.join(run_directory, "journal")
    cleaner = Cleaner(read_records(journal), os.path.basename(run_directory))
    cleaner.end_processes()
    cleaner.begin_to_remove_containers()
    cleaner.finish_removing_containers()
    cleaner.run_helpers()
    cleaner.await_containers()
    cleaner.remove_directories()
    return cleaner.failures


def finish(run_directory: str, failures: list[str]) -> None:
    """Remove the run's own directory, and its parent if that was the last run.

    Where a clean-up did not get through, the journal stays, for the next runs to try again.
    """
    path = os.path.join(run_directory, "journal")
    attempts = sum("failed" in record for record in read_records(path))
    if failures and attempts + 1 < MOST_ATTEMPTS:
        with contextlib.suppress(OSError):
            Journal(path).add({"failed": failures, "time": time.time()})
            return
    remove_directories([run_directory])
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(run_directory))


@contextlib.contextmanager
def _locked(run_directory: str) -> Iterator[None]:
    """Hold both locks of a run, or raise OSError because somebody is alive in it."""
    with contextlib.ExitStack() as held:
        for name in ("start.lock", "lock"):
            path = os.path.join(run_directory, name)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            held.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def remove_directories(paths: list[str]) -> None:
    """Remove directories and what is in them, and files; those that are gone already are fine."""
    import shutil

    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)  # a directory stays
        for _ in range(5):  # somebody who is about to die may be writing yet
            if not os.path.lexists(path):
                break
            shutil.rmtree(path, ignore_errors=True)
            if os.path.lexists(path):
                time.sleep(0.02)


def _end_processes(records: list[Record]) -> None:
    """End those that are still the processes of the journal, as gently as their warden would."""
    alive = {
        int(record["pid"]): record
        for record in records
        if record["identity"] and _processes.identity(int(record["pid"])) == record["identity"]
    }
    identities = {pid: str(record["identity"]) for pid, record in alive.items()}
    below = {
        each: _processes.identity(each) for pid in alive for each in _processes.descendants(pid)
    }
    for pid, record in alive.items():
        _processes.signal_process(pid, getattr(signal, record["signal"]))
    for pid in [*alive, *below]:
        _processes.signal_process(pid, signal.SIGCONT)
    _processes.wait_for_end({**identities, **below}, _STOP_PATIENCE)
    for pid, was in {**identities, **below}.items():
        if was and _processes.identity(pid) == was:
            _processes.kill_tree(pid)
    _processes.wait_for_end({**identities, **below}, _STOP_PATIENCE)
    for record in records:
        if _processes.identity(int(record["pid"])) == "":  # nobody else has the pid now
            _processes.remove_shared_memory(int(record["pid"]), record["time"])


def _run_helper(helper: dict[str, Any]) -> None:
    import subprocess

    subprocess.run(
        helper["argv"],
        input=helper.get("input", "").encode(),
        env={**os.environ, **helper.get("env", {})},
        timeout=_HELPER_TIMEOUT,
        check=True,
    )
