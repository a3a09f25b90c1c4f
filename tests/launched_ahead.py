"""Seeing, in an inner run of pytest, whether its server was launched ahead of time."""

from __future__ import annotations

from pathlib import Path

CONFTEST = """
from pathlib import Path

from cleanroom_runtime import _ahead

take = _ahead.take

def taking(*arguments):
    launched = take(*arguments)
    with Path("taken").open("a") as taken:
        taken.write(launched.pid if launched else "")
    return launched

_ahead.take = taking
"""
"""Notes, in the file `taken`, the pid of a server that was launched ahead when it is taken."""


def was_taken(folder: Path) -> bool:
    """Whether the last run in this folder took a server that was launched ahead."""
    taken = (folder / "taken").read_text()
    (folder / "taken").unlink()
    return taken != ""
