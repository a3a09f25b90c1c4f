"""What a run owns, one JSON object a line, written before the thing itself exists.

Should the warden die, the next run on this machine finds the journal and ends what is in it.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Journal:
    """An append-only file in the run directory, mode 0600."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def add(self, record: Record) -> None:
        """Append one record. A single write: another reader sees all of it or nothing."""
        os.write(self._fd, (json.dumps(record) + "\n").encode())

    def read(self) -> list[Record]:
        """Return all records; a last line cut short by a crash is left out."""
        records: list[Record] = []
        for line in self._path.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
        return records


def process_start_time(pid: int) -> str:
    """Return what tells this process from a later one of the same pid; empty if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


def process_state(pid: int) -> str:
    """Return the state letter of a process (`Z`: ended, not waited for); empty if it is gone."""
    command = ["/bin/ps", "-o", "state=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()[:1]
