"""Draws latencies over time as an SVG: one panel below the other, seconds on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Panel", "Series", "draw"]

WIDTH = 960
PANEL = 400
TOP = 56
#: Around the plot of each panel: axis names on the left and below, its title and legend above.
LEFT, RIGHT, ABOVE, BELOW = 96, 32, 112, 56
FONT = "font-family='Helvetica, Arial, sans-serif'"
GRID, FINE, INK, SOFT = "#d6d6d6", "#f1f1f1", "#222222", "#666666"
#: How far the axis of latencies goes beyond the least and the greatest.
MARGIN = 2.0


@dataclass(frozen=True, slots=True)
class Series:
    """Points (seconds from the start, seconds of latency) of one colour, and its legend.

    ``line`` is a latency to mark across the panel, such as the 99th percentile. ``open`` draws
    rings in place of dots, for values that are bounds or were computed.
    """

    legend: str
    colour: str
    points: Sequence[tuple[float, float]]
    line: float | None = None
    open: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: its title and what it shows, the first series at the back."""

    title: str
    series: Sequence[Series]


@dataclass(frozen=True, slots=True)
class _Scale:
    """From a value to its place, in pixels."""

    low: float
    high: float
    start: float
    length: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (
            (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        )
        place = math.log10(max(value, self.low)) if self.log else value
        return self.start + (place - low) / (high - low) * self.length


def draw(title: str, panels: Sequence[Panel]) -> str:
    """The whole picture as SVG text."""
    height = TOP + PANEL * len(panels)
    lines = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}'>",
        f"<title>{escape(title)}</title>",
        f"<rect width='{WIDTH}' height='{height}' fill='#ffffff'/>",
        _text(LEFT, 36, title, size=20, weight="bold"),
    ]
    for number, panel in enumerate(panels):
        lines += _panel(panel, TOP + number * PANEL)
    return "\n".join([*lines, "</svg>", ""])


def _panel(panel: Panel, top: float) -> Iterator[str]:
    points = [point for series in panel.series for point in series.points]
    latencies = [latency for _, latency in points if latency > 0] or [1.0]
    plot_height = PANEL - ABOVE - BELOW
    last = max((second for second, _ in points), default=1.0)
    tick = _tick(last)
    along = _Scale(0.0, tick * max(1, math.ceil(last / tick)), LEFT, WIDTH - LEFT - RIGHT)
    up = _Scale(
        min(latencies) / MARGIN,
        max(latencies) * MARGIN,
        top + ABOVE + plot_height,
        -plot_height,
        log=True,
    )
    yield _text(LEFT, top + 24, panel.title, size=15, weight="bold")
    yield from _axes(along, up, top, tick)
    for number, series in enumerate(panel.series):
        yield from _legend(series, LEFT, top + 46 + 19 * number)
        yield from _marks(series, along, up)


def _axes(along: _Scale, up: _Scale, top: float, tick: float) -> Iterator[str]:
    bottom, right = up.start, along.start + along.length
    for decade in range(math.floor(math.log10(up.low)), math.ceil(math.log10(up.high)) + 1):
        for step in range(1, 10):
            value = step * 10.0**decade
            if not up.low <= value <= up.high:
                continue
            place = up(value)
            yield _line(LEFT, place, right, place, GRID if step == 1 else FINE)
            if step == 1:
                yield _text(LEFT - 8, place + 4, _duration(value), anchor="end")
    for number in range(round(along.high / tick) + 1):
        place = along(number * tick)
        yield _line(place, bottom, place, bottom + 5, INK)
        yield _text(place, bottom + 19, f"{number * tick:g}", anchor="middle")
    yield _line(LEFT, bottom, right, bottom, INK)
    yield _line(LEFT, bottom + up.length, LEFT, bottom, INK)
    yield _text((LEFT + right) / 2, bottom + 40, "when it was asked, seconds", anchor="middle")
    middle = top + ABOVE + (PANEL - ABOVE - BELOW) / 2
    yield (
        f"<g transform='translate(22 {middle:.1f}) rotate(-90)'>"
        + _text(0, 0, "until the answer, log scale", anchor="middle")
        + "</g>"
    )


def _legend(series: Series, left: float, place: float) -> Iterator[str]:
    yield _mark(left + 5, place - 4, series, 4.5)
    yield _text(left + 18, place, series.legend, size=13)


def _marks(series: Series, along: _Scale, up: _Scale) -> Iterator[str]:
    if series.line is not None:
        place = up(series.line)
        right = along.start + along.length
        yield _line(LEFT, place, right, place, series.colour, dash="6 4")
    for second, latency in series.points:
        yield _mark(along(second), up(latency), series, 2.6)


def _mark(x: float, y: float, series: Series, radius: float) -> str:
    paint = (
        f"fill='none' stroke='{series.colour}'"
        if series.open
        else f"fill='{series.colour}' fill-opacity='0.75'"
    )
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius}' {paint}/>"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dash: str = "") -> str:
    dashed = f" stroke-dasharray='{dash}'" if dash else ""
    return (
        f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{colour}'{dashed}/>"
    )


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 12,
    weight: str = "normal",
    anchor: str = "start",
) -> str:
    colour = INK if size > 12 else SOFT
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' {FONT} font-size='{size}' font-weight='{weight}'"
        f" fill='{colour}' text-anchor='{anchor}'>{escape(text)}</text>"
    )


def _duration(seconds: float) -> str:
    """A decade of seconds as people write it."""
    return f"{seconds * 1000:g} ms" if seconds < 1 else f"{seconds:,.0f} s"


def _tick(length: float) -> float:
    """A round distance of ticks, for at most 12 of them."""
    for distance in (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600):
        if length / distance <= 12:
            return float(distance)
    return float(10 ** math.ceil(math.log10(length / 10)))
