"""Removing what a run owns that is no process: directories, containers, what a helper knows."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cleanroom_runtime._warden._children import remove_shared_memory
from cleanroom_runtime._warden._journal import Journal, Record, process_start_time

RUN_LABEL = "org.cleanroom.run"
"""Label that every container and network of a run carries; its value is the run's id."""

_HELPER_TIMEOUT = 20.0


def remove_directories(paths: list[str]) -> None:
    """Remove directories and what is in them; those that are gone already are fine."""
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)


def clean(records: list[Record], run_id: str, *, thorough: bool = False) -> None:
    """Undo every record of a journal, the newest first. Nothing that fails stops the rest.

    A thorough one also waits for what an engine may still be creating, and needs no second run of
    helpers.
    """
    for record in reversed(records):
        try:
            if "pid" in record:
                _end_process(record)
            elif "engine" in record:
                remove_containers(record["engine"], run_id, wait=thorough)
            elif "helper" in record and not thorough:
                _run_helper(record["helper"])
        except Exception as exc:  # noqa: BLE001 - the rest must still be cleaned; the warden's log has it
            sys.stderr.write(f"clean-up of {sorted(record)} failed: {exc!r}\n")
    remove_directories([record["directory"] for record in records if "directory" in record])


def _end_process(record: Record) -> None:
    """End a process of a run whose warden died, if it is still that process."""
    pid = int(record["pid"])
    if not record["start"] or process_start_time(pid) != record["start"]:
        remove_shared_memory(pid)
        return
    with contextlib.suppress(OSError):
        os.kill(pid, getattr(signal, record["signal"]))
        os.killpg(pid, signal.SIGCONT)
        deadline = time.monotonic() + 3
        while process_start_time(pid) == record["start"] and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(pid, signal.SIGKILL)
    remove_shared_memory(pid)


def _run_helper(helper: dict[str, Any]) -> None:
    """Run a command that knows how to remove what this process cannot reach by itself."""
    subprocess.run(
        helper["argv"],
        input=helper.get("input", "").encode(),
        env={**os.environ, **helper.get("env", {})},
        timeout=_HELPER_TIMEOUT,
        check=True,
    )


def remove_containers(engine: Record, run_id: str, *, wait: bool) -> None:
    """Remove all containers, volumes and networks that carry the run's label.

    A request to create one may still be under way in the engine when its client was killed:
    `wait` asks again until nothing came for a moment.
    """
    label = quote(json.dumps({"label": [f"{RUN_LABEL}={run_id}"]}))
    calm = 2 if wait else 0
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        found = _ask_engine(engine, "GET", f"/containers/json?all=1&filters={label}")
        for container in found:
            _ask_engine(engine, "DELETE", f"/containers/{container['Id']}?force=1&v=1")
        calm = max(calm, 1) if found else calm - 1
        if calm < 0:
            break
        if wait:
            time.sleep(0.2)
    for network in _ask_engine(engine, "GET", f"/networks?filters={label}"):
        _ask_engine(engine, "DELETE", f"/networks/{network['Id']}")


def _ask_engine(engine: Record, method: str, path: str) -> Any:
    # Not at the top: HTTP takes as long to import as all the rest of the warden.
    from cleanroom_runtime._warden._engine_api import ask, reason_in

    status, body = ask(engine, method, path, timeout=_HELPER_TIMEOUT)
    if status in (404, 409):
        return []  # gone already, or being removed by somebody else
    if status >= 400:
        raise OSError(f"engine answered {status} to {method} {path}: {reason_in(body)}")
    return json.loads(body) if body else []


def sweep(roots: list[Path]) -> None:
    """Clean up after the runs in these folders whose warden is gone, told by their locks."""
    for run_directory in [entry for root in roots if root.is_dir() for entry in root.iterdir()]:
        with contextlib.suppress(OSError), _locked(run_directory):
            journal = run_directory / "journal"
            records = Journal(journal).read() if journal.exists() else []
            clean(records, run_directory.name)
            clean(records, run_directory.name, thorough=True)
            remove_run_directory(run_directory)


@contextlib.contextmanager
def _locked(run_directory: Path) -> Iterator[None]:
    """Hold both locks of a run, or raise OSError because somebody is alive in it."""
    with contextlib.ExitStack() as held:
        for name in ("start.lock", "lock"):
            fd = os.open(run_directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            held.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def remove_run_directory(run_directory: Path) -> None:
    """Remove the run's own directory, and its parent if that was the last run."""
    shutil.rmtree(run_directory, ignore_errors=True)
    with contextlib.suppress(OSError):
        run_directory.parent.rmdir()
