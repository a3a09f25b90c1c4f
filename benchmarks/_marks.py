"""The marks that figures are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks._figures import Figure, find


@dataclass(frozen=True)
class Mark:
    """A limit on one figure's median.

    It is absolute, or a multiple of another contender's for the same work, or (`over`) on what
    there is more than that. Where there are several others, the highest of them counts.
    """

    work: str
    contender: str
    limit: float
    relative_to: tuple[str, ...] = ()
    over: bool = False

    def judge(self, figures: Sequence[Figure]) -> Judgement | None:
        """Hold the figure against the mark; None if either side was not measured."""
        own = find(figures, self.work, self.contender)
        median = own.summary() if own else None
        if own is None or median is None:
            return None
        value, unit = median.median, f" {own.unit}"
        if not self.relative_to:
            return Judgement(value <= self.limit, f"{number(value)}{unit}", f"{self.limit:g}{unit}")
        others = [find(figures, self.work, name) for name in self.relative_to]
        bases = [found.median for other in others if other and (found := other.summary())]
        if len(bases) != len(self.relative_to):
            return None
        base = max(bases)
        than = self.relative_to[0] if len(bases) == 1 else "the highest of the others"
        if self.over:
            more = value - base
            measured = f"{number(more)}{unit} over {than}"
            return Judgement(more <= self.limit, measured, f"{self.limit:g}{unit} over it")
        if base <= 0:
            return None
        ratio = value / base
        return Judgement(ratio <= self.limit, f"{ratio:.2f}x {than}", f"{self.limit:g}x")


@dataclass(frozen=True)
class Judgement:
    """Whether a mark is met."""

    met: bool
    measured: str
    """In words, with the unit, or with what it is a multiple of."""
    limit: str

    @property
    def verdict(self) -> str:
        """The word for it."""
        return "met" if self.met else "MISSED"

    def __str__(self) -> str:
        return f"{self.verdict}: {self.measured}, at most {self.limit}"


def number(value: float) -> str:
    """Return a number with about three digits."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def as_data(marks: Sequence[Mark], figures: Sequence[Figure]) -> list[Mapping[str, object]]:
    """Return marks and verdicts as plain data."""
    judged = [(mark, mark.judge(figures)) for mark in marks]
    return [
        {**asdict(mark), "verdict": str(judgement) if judgement else ""}
        for mark, judgement in judged
    ]
