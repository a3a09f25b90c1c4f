"""Small arithmetic on samples, and the order in which they are taken."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Summary:
    """Median and extremes of samples, in their own unit."""

    median: float
    low: float
    high: float
    count: int


def summarize(samples: Sequence[float]) -> Summary:
    """Summarize samples, of which there must be one at least."""
    return Summary(statistics.median(samples), min(samples), max(samples), len(samples))


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the least-squares line through (x, y) points.

    For whole-process times over numbers of tests it is the cost of one further test, whatever the
    start cost.
    """
    if len({x for x, _ in points}) < 2:
        raise ValueError("a slope needs points at two different places at least")
    mean_x = statistics.fmean(x for x, _ in points)
    mean_y = statistics.fmean(y for _, y in points)
    rise = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return rise / sum((x - mean_x) ** 2 for x, _ in points)


def interleave(rounds: int, contenders: Sequence[T], measure: Callable[[int, T], None]) -> None:
    """Measure all contenders once in each round, in the same order: A B, A B, ...

    What slows the machine for a while then slows all of them and not the one that was on.
    """
    for number in range(rounds):
        for contender in contenders:
            measure(number, contender)
