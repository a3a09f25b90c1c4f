"""Tables: drawn on a terminal, plain columns in a log or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
"""Words that stand out on a terminal."""


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, err: bool = False) -> None:
    """Write a table.

    On a terminal it keeps to its width: what does not fit goes on in the next line, so that nothing
    is lost. Elsewhere a row is a line, however long.

    Args:
        headers: Titles of the columns.
        rows: The cells.
        err: Whether it goes to the standard error.
    """
    if not is_terminal(err=err):
        widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
        for row in ([header.upper() for header in headers], *rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo("  ".join(cells).rstrip(), err=err)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in row))
    Console(stderr=err, highlight=False).print(table)


def is_terminal(*, err: bool = False) -> bool:
    """Whether what is written is seen by a person at once."""
    return (sys.stderr if err else sys.stdout).isatty()


def plural(count: int, one: str, many: str = "") -> str:
    """Return `1 folder`, or `2 folders`."""
    return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"


def in_bytes(size: int) -> str:
    """Return a size in bytes as people write it."""
    if size < 1024:
        return f"{size} B"
    amount = float(size)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024 or unit == "GiB":
            break
    return f"{amount:.1f} {unit}"
