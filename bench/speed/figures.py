"""Medians over runs and passes, and ratios held against what was promised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from bench.speed.measure import Run

__all__ = ["RATIO_HEAD", "Bound", "Figure", "figure", "of", "ratio", "ratio_row"]

#: The head of a table of ratios.
RATIO_HEAD = ("ratio", "pass 1", "pass 2", "all", "commit", "stretch", "")


class Figure(NamedTuple):
    """A figure of two passes: the median of each, and of all runs together."""

    first: float
    second: float
    both: float

    def text(self, digits: int = 0) -> str:
        """The passes for a table: ``first / second``."""
        return f"{self.first:,.{digits}f} / {self.second:,.{digits}f}"


@dataclass(frozen=True, slots=True)
class Bound:
    """What is promised of a ratio; ``stretch`` is what it may reach, if anything is said of it.

    ``at_least`` tells whether larger or smaller is better.
    """

    name: str
    commit: float
    stretch: float | None = None
    at_least: bool = True

    def verdict(self, value: float) -> str:
        """Which of the two is reached."""
        if self.stretch is not None and self._holds(value, self.stretch):
            return "stretch reached"
        return "commit reached" if self._holds(value, self.commit) else "NOT REACHED"

    def sign(self, bound: float | None) -> str:
        """A bound for a table."""
        return "-" if bound is None else f"{'>=' if self.at_least else '<='} {bound:g}"

    def _holds(self, value: float, bound: float) -> bool:
        return value >= bound if self.at_least else value <= bound


def of(
    runs: Iterable[Run], system: str, connections: int, delay_s: float | None = None
) -> list[Run]:
    """The runs of one system with so many connections, and with this upstream if it is said."""
    return [
        run
        for run in runs
        if run.system == system
        and run.connections == connections
        and delay_s in (None, run.delay_s)
    ]


def figure(runs: Sequence[Run], value: Callable[[Run], float]) -> Figure | None:
    """The medians of a value; None without runs in both passes."""
    turns = [[value(run) for run in runs if run.turn == turn] for turn in (1, 2)]
    if not all(turns):
        return None
    return Figure(median(turns[0]), median(turns[1]), median(turns[0] + turns[1]))


def ratio(value: Figure | None, base: Figure | None) -> Figure | None:
    """One figure as a multiple of another, pass by pass; None if there is nothing to divide by."""
    if value is None or base is None or min(base) <= 0:
        return None
    return Figure(*(one / other for one, other in zip(value, base, strict=True)))


def ratio_row(bound: Bound, found: Figure | None) -> tuple[str, ...]:
    """A line for the table of ratios. Both passes and all runs are shown; all runs decide."""
    promised = (bound.sign(bound.commit), bound.sign(bound.stretch))
    if found is None:
        return (bound.name, "-", "-", "-", *promised, "not measured long enough")
    cells = (f"{value:.2f}" for value in found)
    return (bound.name, *cells, *promised, bound.verdict(found.both))
