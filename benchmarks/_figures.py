"""Figures, and the file that keeps the raw samples."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks._timing import Summary, summarize

SCHEMA = 2


@dataclass
class Figure:
    """What one contender took for one piece of work."""

    work: str
    contender: str
    unit: str
    samples: list[float] = field(default_factory=list)
    """One for each round, in order."""
    points: list[list[tuple[int, float]]] = field(default_factory=list)
    """What samples that are slopes were made of: for each round, tests and milliseconds."""
    first: float | None = None
    """The first run ever, all of the contender's own caches empty; not among the samples."""
    left_out: str | None = None
    """Why there are no samples."""
    failed: bool = False
    """Whether it is left out because it went wrong, and not because something is missing here."""

    def leave_out(self, reason: str, *, failed: bool) -> None:
        """Keep the reason instead of samples."""
        self.left_out, self.failed = reason, failed
        self.first = None
        self.samples.clear()
        self.points.clear()

    def summary(self) -> Summary | None:
        """Return median and extremes; None if there are no samples."""
        return summarize(self.samples) if self.samples else None


def find(figures: Sequence[Figure], work: str, contender: str) -> Figure | None:
    """Return the figure of one contender for one work; None if it was not asked for."""
    matching = (f for f in figures if f.work == work and f.contender == contender)
    return next(matching, None)


def write_json(
    file: Path,
    figures: Sequence[Figure],
    marks: Sequence[Mapping[str, object]],
    facts: Mapping[str, object],
) -> None:
    """Write everything there is, every raw sample included."""
    content = {
        "schema": SCHEMA,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "facts": dict(facts),
        "figures": [asdict(figure) for figure in figures],
        "marks": [dict(mark) for mark in marks],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
