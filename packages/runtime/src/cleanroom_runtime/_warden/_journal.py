"""What a run owns, one JSON object a line, written before the thing itself exists.

Should the warden die, the next run on this machine finds the journal and ends what is in it.
A record has one of these keys:

- `pid`: a process; with `identity`, see `_processes`, its stop `signal`, and when it began (`time`)
- `directory`: a path
- `engine`: a container engine, see `_engine_api`; with the id of the `service` to be created there,
  or of a network for services
- `helper`: a command that removes what only it knows how to remove (`argv`, `input`, `env`); with
  the id of the `service` that it does this for, where it is for one
- `absent`: id of a service of which nothing is left, and nothing will come
- `failed`: a clean-up that did not get through, and why
"""

from __future__ import annotations

import errno
import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]


class Journal:
    """An append-only file in the run directory, mode 0600.

    Attributes:
        records: What stands in it.
    """

    def __init__(self, path: str) -> None:
        self.records = read_records(path)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def add(self, record: Record) -> None:
        """Append one record, unless it stands there already.

        Raises:
            OSError: It could not be written.
        """
        if record in self.records:
            return
        # The line break before it ends one that a full disk cut short.
        line = f"\n{json.dumps(record)}\n".encode()
        if os.write(self._fd, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.records.append(record)


def read_records(path: str) -> list[Record]:
    """Return all records of a journal; a line cut short by a crash is left out."""
    records: list[Record] = []
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return records
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        records.append(record)
    return records
