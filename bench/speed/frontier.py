"""How much each system does while its slowest answers stay quick: a search over the callers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bench.scenes.scene import Report
from bench.speed.figures import Figure
from bench.speed.machine import pace_ms
from bench.speed.measure import Run, load_on, measured
from bench.speed.passes import TURNS, Plan, order, running, tell
from bench.speed.target import Target
from bench.speed.upstream import UpstreamProcess

__all__ = ["ADDED_MS", "added_ms", "best", "measure", "show", "steps"]

#: Milliseconds that the p99 may be above the upstream's own time.
ADDED_MS = (5, 20, 50, 100)
_MOST = 512


def steps(at: Callable[[int], float], limits_ms: Sequence[float], most: int = _MOST) -> None:
    """Ask ``at`` for the added p99 in ms of 1, 2, 4 … connections, then between two of them.

    It stops doubling when no limit is kept any more, and goes once halfway (in ratio) between the
    last count that keeps a limit and the next one.
    """
    known: dict[int, float] = {}
    connections = 1
    while connections <= most:
        known[connections] = at(connections)
        if known[connections] > max(limits_ms):
            break
        connections *= 2
    for limit in limits_ms:
        kept = [count for count, added in known.items() if added <= limit]
        over = [count for count, added in known.items() if kept and count > max(kept)]
        if over:
            between = round(math.sqrt(max(kept) * min(over)))
            if between not in known:
                known[between] = at(between)


def best(runs: Sequence[Run], limit_ms: float) -> Run | None:
    """The run that answers the most while its p99 is within the limit; None if none is."""
    kept = [run for run in runs if added_ms(run) <= limit_ms and not run.failed]
    return max(kept, key=lambda run: run.per_second, default=None)


def added_ms(run: Run) -> float:
    """How far the p99 is above the upstream's own time."""
    return run.p99_ms - run.delay_s * 1000


def measure(plan: Plan) -> list[Run]:
    """Search with every system, in two passes."""
    runs: list[Run] = []
    for turn in TURNS:
        print(f"pass {turn}; a fixed loop takes {pace_ms():.1f} ms", flush=True)
        for name in order(plan.systems, turn):
            with running(name, plan.delay_s) as (target, upstream):
                runs += _searched(plan, name, turn, target, upstream)
    return runs


def _searched(
    plan: Plan, name: str, turn: int, target: Target, upstream: UpstreamProcess
) -> list[Run]:
    runs: list[Run] = []

    def at(connections: int) -> float:
        load = load_on(target, connections, seconds=plan.seconds, warm_s=plan.warm_s[1] / 2)
        runs.append(measured(name, turn, target, upstream, load))
        tell(runs[-1])
        return added_ms(runs[-1])

    # What has just started is slow: the first run does not count.
    at(8)
    runs.clear()
    steps(at, ADDED_MS, 32 if plan.quick else _MOST)
    return runs


def show(report: Report, runs: Sequence[Run]) -> None:
    """Print the table: requests/s of both passes, and the connections that it took."""
    rows = []
    for system in dict.fromkeys(run.system for run in runs):
        cells = []
        for limit in ADDED_MS:
            found = [
                best([run for run in runs if (run.system, run.turn) == (system, turn)], limit)
                for turn in TURNS
            ]
            rates = [run.per_second if run else 0.0 for run in found]
            callers = " / ".join(str(run.connections) if run else "-" for run in found)
            cells.append(f"{Figure(rates[0], rates[1], 0).text()} ({callers})")
        rows.append((system, *cells))
    print("\nmost requests/s, pass 1 / pass 2 (with so many connections)", flush=True)
    report.table(("p99 within the upstream's time and", *(f"{ms} ms" for ms in ADDED_MS)), rows)
