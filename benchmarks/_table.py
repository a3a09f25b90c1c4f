"""Tables for a terminal, which are Markdown tables as well."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks._figures import Figure, Mark, find


def render(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table: the first and the last column to the left, the others to the right."""
    columns = list(zip(headers, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    last = len(widths) - 1

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if index in (0, last) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = (
        "-" * width if index in (0, last) else "-" * (width - 1) + ":"
        for index, width in enumerate(widths)
    )
    return "\n".join([line(headers), f"| {' | '.join(rule)} |", *(line(row) for row in rows)])


def work_table(figures: Sequence[Figure], marks: Sequence[Mark], floor: str | None) -> str:
    """Return the table of one work's figures, with ratios to the floor where there is one."""
    work, unit = figures[0].work, figures[0].unit
    base = find(figures, work, floor) if floor else None
    base_median = base.summary() if base else None
    headers = ["", "median", "min", "max", "first run", "to floor", "mark"]
    rows = []
    for figure in figures:
        summary = figure.summary()
        verdicts = [
            verdict
            for mark in marks
            if (mark.work, mark.contender) == (work, figure.contender)
            and (verdict := mark.verdict(figures))
        ]
        if summary is None:
            reason = f"left out: {figure.left_out}" if figure.left_out else "stopped before"
            reason = "went wrong, see below" if figure.failed else reason
            rows.append([figure.contender, *["-"] * 5, reason])
            continue
        ratio = f"{summary.median / base_median.median:.2f}x" if base_median else ""
        spread = [_number(value) for value in (summary.median, summary.low, summary.high)]
        first = "" if figure.first is None else _number(figure.first)
        rows.append([figure.contender, *spread, first, ratio, "; ".join(verdicts)])
    return f"{work} ({unit})\n\n{render(headers, rows)}"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"
