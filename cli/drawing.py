"""Tables as lines of text, the same on a terminal and in a file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import compress

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.overview import plain

__all__ = ["drawn", "width"]

#: Columns of a table where nobody says how wide it may be, and at the most.
_WIDEST = 100


def width() -> int:
    """Columns that a table may have on standard output."""
    console = Console()
    return min(console.width, _WIDEST) if console.is_terminal else _WIDEST


def drawn(
    words: Sequence[str], figures: Sequence[str], rows: Sequence[Sequence[str]], *, columns: int
) -> list[str]:
    """The lines of a table in so many ``columns`` of text.

    ``words`` head what may be broken into several lines, ``figures`` what may not; a figure that no
    row has is left out. Nothing in it is obeyed by a terminal.
    """
    named = len(words)
    there = [any(row[named + place] for row in rows) for place in range(len(figures))]
    table = Table(box=None, pad_edge=False, header_style="")
    for heading in words:
        table.add_column(heading, overflow="fold")
    for heading in compress(figures, there):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        cells = (*row[:named], *compress(row[named:], there))
        table.add_row(*(Text(plain(cell)) for cell in cells))
    console = Console(width=columns, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]
