"""Figures, the marks they are held against, and the file that keeps the raw samples."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks._timing import Summary, summarize

SCHEMA = 1


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


@dataclass(frozen=True)
class Mark:
    """A limit on one figure's median: absolute, or as a multiple of another contender's."""

    work: str
    contender: str
    limit: float
    relative_to: str | None = None

    def verdict(self, figures: Sequence[Figure]) -> str:
        """Say whether the mark is met; empty if there is nothing to hold against it."""
        own = find(figures, self.work, self.contender)
        median = own.summary() if own else None
        if own is None or median is None:
            return ""
        value, unit = median.median, f" {own.unit}"
        wanted = f"{self.limit:g}{unit}"
        if self.relative_to is not None:
            other = find(figures, self.work, self.relative_to)
            base = other.summary() if other else None
            if base is None:
                return ""
            value = value / base.median
            wanted = f"{self.limit:g}x {self.relative_to}"
        return f"{'met' if value <= self.limit else 'MISSED'}: at most {wanted}"


def find(figures: Sequence[Figure], work: str, contender: str) -> Figure | None:
    """Return the figure of one contender for one work; None if it was not asked for."""
    matching = (f for f in figures if f.work == work and f.contender == contender)
    return next(matching, None)


def write_json(
    file: Path,
    figures: Sequence[Figure],
    marks: Sequence[Mark],
    facts: Mapping[str, object],
) -> None:
    """Write everything there is, every raw sample included."""
    content = {
        "schema": SCHEMA,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "facts": dict(facts),
        "figures": [asdict(figure) for figure in figures],
        "marks": [{**asdict(mark), "verdict": mark.verdict(figures)} for mark in marks],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
