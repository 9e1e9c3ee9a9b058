"""Pages of the documentation, taken apart so that tests can hold them against the code."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["ROOT", "indented", "page", "spans", "table"]

ROOT = Path(__file__).parents[1]


def page(path: str) -> str:
    return (ROOT / path).read_text("utf-8")


def table(text: str, *columns: str) -> list[list[str]]:
    """The rows of the one table of a page with these columns."""
    _, header, rest = text.partition(f"| {' | '.join(columns)} |\n")
    assert header, f"the page has no table with the columns {columns}"
    rows = []
    for line in rest.splitlines()[1:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert {len(row) for row in rows} == {len(columns)}
    return rows


def spans(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def indented(text: str, begins: str) -> str:
    """The one block of code that begins so, without its indentation."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)
    found = [block for block in blocks if block.strip().startswith(begins)]
    assert len(found) == 1, f"{len(found)} blocks of the page begin with {begins!r}"
    return re.sub(r"^    ", "", found[0], flags=re.MULTILINE).strip() + "\n"
