"""Tables for a terminal, which are Markdown tables as well."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks._figures import Figure, find
from benchmarks._marks import Mark, number


def render(headers: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    """Return a table: the first and the last column to the left, the others to the right.

    `left` names further columns that go to the left.
    """
    columns = list(zip(headers, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    to_the_left = {0, len(widths) - 1, *left}

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if index in to_the_left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = (
        "-" * width if index in to_the_left else "-" * (width - 1) + ":"
        for index, width in enumerate(widths)
    )
    return "\n".join([line(headers), f"| {' | '.join(rule)} |", *(line(row) for row in rows)])


def work_table(figures: Sequence[Figure], marks: Sequence[Mark], floor: str | None) -> str:
    """Return the table of one work's figures, with ratios to the floor where there is one."""
    work, unit = figures[0].work, figures[0].unit
    of_floor = find(figures, work, floor) if floor else None
    base_median = of_floor.summary() if of_floor else None
    headers = ["", "median", "min", "max", "first run", "to floor", "mark"]
    rows = []
    for figure in figures:
        summary = figure.summary()
        judgements = [
            str(judgement)
            for mark in marks
            if (mark.work, mark.contender) == (work, figure.contender)
            and (judgement := mark.judge(figures))
        ]
        if summary is None:
            reason = f"left out: {figure.left_out}" if figure.left_out else "stopped before"
            reason = "went wrong, see below" if figure.failed else reason
            rows.append([figure.contender, *["-"] * 5, reason])
            continue
        base = base_median.median if base_median else 0.0
        ratio = f"{summary.median / base:.2f}x" if base > 0 else ""
        spread = [number(value) for value in (summary.median, summary.low, summary.high)]
        first = "" if figure.first is None else number(figure.first)
        rows.append([figure.contender, *spread, first, ratio, "; ".join(judgements)])
    return f"{work} ({unit})\n\n{render(headers, rows)}"


def marks_table(marks: Sequence[Mark], figures: Sequence[Figure]) -> str:
    """Return the table of all marks that there is a figure for; empty if there are none."""
    rows = [
        [mark.work, mark.contender, judgement.measured, judgement.limit, judgement.verdict]
        for mark in marks
        if (judgement := mark.judge(figures))
    ]
    if not rows:
        return ""
    headers = ["work", "of", "measured", "at most", "mark"]
    return f"The marks\n\n{render(headers, rows, left=(1, 2, 3))}"
