"""What the report says of slices that were replaced."""

from __future__ import annotations

import json

from cleanroom_runtime._replaced import lines


def told(*notes: tuple[str, str, int, float]) -> list[str]:
    return list(lines(map(json.dumps, notes)))


def test_workers_are_added_up() -> None:
    """What several processes tell of one service is one line, the commonest reason first."""
    changed, large = "the schema was changed", "it is large"
    assert told(
        ("db", large, 1, 0.25),
        ("db", changed, 2, 0.5),
        ("b", large, 1, 0.1),
        ("db", changed, 3, 1.0),
    ) == [
        f"db: replaced 6 times between tests, in 1.75 s: {changed} (5), {large} (1)",
        f"b: replaced once between tests, in 0.10 s: {large} (1)",
    ]


def test_many_reasons_are_cut() -> None:
    """A line does not grow with the number of reasons."""
    (line,) = told(*(("db", f"rows of t{n}", 1, 0.1) for n in range(6)))
    assert line.endswith("rows of t3 (1), and 2 more reasons")


def test_nothing_was_replaced() -> None:
    """Nothing is said where nothing was replaced."""
    assert told() == []
