"""What each system adds to the upstream's own time when it is not busy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench.scenes.scene import Report
from bench.speed.figures import RATIO_HEAD, Bound, Figure, figure, of, ratio, ratio_row
from bench.speed.measure import Run
from bench.speed.passes import TURNS, Plan, turns
from bench.speed.redis_trip import round_trips_ms

__all__ = ["added", "measure", "show"]

_LITELLM = Bound("added p50, 1 connection, x LiteLLM's", 0.35, 0.25, at_least=False)
_PORTKEY = Bound("added p50, 16 connections, x Portkey's", 3, 1.5, at_least=False)
_REDIS = Bound("p50, instant upstream alone, x raw Redis", 5, 3, at_least=False)

#: Median and p99 of raw round trips, for each pass.
Trips = Sequence[tuple[float, float]]


def measure(plan: Plan) -> tuple[list[Run], list[tuple[float, float]]]:
    """All systems before a slow upstream; then an instant one, beside raw trips over Redis."""
    runs = turns(plan)
    print("the upstream answers at once", flush=True)
    runs += turns(replace(plan, connections=(1,), delay_s=0.0))
    trips = []
    for _ in TURNS:
        with tempfile.TemporaryDirectory(prefix="speed-redis-") as folder:
            trips.append(round_trips_ms(Path(folder), plan.seconds))
    return runs, trips


def show(
    report: Report, runs: Sequence[Run], trips: Trips, delay_s: float
) -> list[tuple[str, ...]]:
    """Print the tables; the rows of ratios."""
    slow = [run for run in runs if run.delay_s == delay_s]
    rows: list[tuple[object, ...]] = []
    for connections in sorted({run.connections for run in slow}):
        for system in dict.fromkeys(run.system for run in slow):
            found = of(slow, system, connections)
            cells = (
                figure(found, lambda run: run.p50_ms),
                added(slow, system, connections, lambda run: run.p50_ms),
                added(slow, system, connections, lambda run: run.p99_ms),
                figure(found, lambda run: run.all_cpu_ms),
            )
            texts = ("-" if cell is None else cell.text(2) for cell in cells)
            rows.append((system, connections, *texts, sum(run.failed for run in found)))
    print(f"\nan upstream of {delay_s * 1000:.0f} ms; pass 1 / pass 2; added to direct", flush=True)
    report.table(("system", "conn.", "p50 ms", "added p50", "added p99", "CPU ms", "failed"), rows)
    print("\nan upstream that answers at once, one connection", flush=True)
    alone = [run for run in runs if not run.delay_s]
    for system in dict.fromkeys(run.system for run in alone):
        p50, p99 = (
            figure(of(alone, system, 1), value)
            for value in (lambda run: run.p50_ms, lambda run: run.p99_ms)
        )
        report.say(f"{system}: p50; p99 ms", f"{_text(p50)};  {_text(p99)}")
    raw = Figure(trips[0][0], trips[1][0], (trips[0][0] + trips[1][0]) / 2)
    slowest = " / ".join(f"{p99:.2f}" for _, p99 in trips)
    report.say("raw Redis round trip: p50; p99 ms", f"{raw.text(2)};  {slowest}")
    print(flush=True)
    ratios = _ratios(slow, figure(of(alone, "chatd", 1), lambda run: run.p50_ms), raw)
    report.table(RATIO_HEAD, ratios)
    return ratios


def added(
    runs: Sequence[Run], system: str, connections: int, value: Callable[[Run], float]
) -> Figure | None:
    """What a system takes longer than the upstream alone, pass by pass; None without either."""
    found = figure(of(runs, system, connections), value)
    direct = figure(of(runs, "direct", connections), value)
    if found is None or direct is None:
        return None
    return Figure(*(one - other for one, other in zip(found, direct, strict=True)))


def _ratios(slow: Sequence[Run], alone: Figure | None, raw: Figure) -> list[tuple[str, ...]]:
    def p50(system: str, connections: int) -> Figure | None:
        return added(slow, system, connections, lambda run: run.p50_ms)

    return [
        ratio_row(_LITELLM, ratio(p50("chatd", 1), p50("litellm", 1))),
        ratio_row(_PORTKEY, ratio(p50("chatd", 16), p50("portkey", 16))),
        ratio_row(_REDIS, ratio(alone, raw)),
    ]


def _text(found: Figure | None) -> str:
    return "-" if found is None else found.text(2)
