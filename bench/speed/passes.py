"""Every system in two passes of opposite order, so that no one has the quieter minutes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.speed.machine import pace_ms
from bench.speed.measure import Run, load_on, measured
from bench.speed.systems import SYSTEMS
from bench.speed.target import Target
from bench.speed.upstream import UpstreamProcess
from cli.redis_server import free_port

__all__ = ["TURNS", "Plan", "order", "running", "tell", "turns"]

TURNS = (1, 2)
#: Seconds of the same load before a run counts: the first one on a system that has just started,
#: and each further one. The slowest system takes 2 s for an answer under the full load.
_FIRST_WARM_S, _WARM_S = 3.0, 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: ``runs`` in each pass, each of ``seconds``, at each count of connections."""

    systems: Sequence[str]
    connections: Sequence[int]
    runs: int
    seconds: float
    delay_s: float
    quick: bool = False

    @property
    def warm_s(self) -> tuple[float, float]:
        """Seconds before the first run of a system, and before each further one."""
        return (0.5, 0.3) if self.quick else (_FIRST_WARM_S, _WARM_S)


def order(systems: Sequence[str], turn: int) -> list[str]:
    """The systems that are there, in the order of a pass."""
    there = [name for name in systems if not SYSTEMS[name].missing()]
    return there if turn == 1 else there[::-1]


@contextmanager
def running(name: str, delay_s: float) -> Iterator[tuple[Target, UpstreamProcess]]:
    """A system and its upstream, both started, and stopped at the end."""
    with tempfile.TemporaryDirectory(prefix=f"speed-{name}-") as folder:
        upstream = UpstreamProcess(Path(folder), free_port(), delay_s).start()
        try:
            with SYSTEMS[name].running(Path(folder) / name, upstream.url) as target:
                yield target, upstream
        finally:
            upstream.stop()


def turns(plan: Plan) -> list[Run]:
    """All runs of the plan, told as they end."""
    runs: list[Run] = []
    for turn in TURNS:
        print(f"pass {turn}; a fixed loop takes {pace_ms():.1f} ms", flush=True)
        for name in order(plan.systems, turn):
            with running(name, plan.delay_s) as (target, upstream):
                warm_s, further_warm_s = plan.warm_s
                for connections in plan.connections:
                    for _ in range(plan.runs):
                        load = load_on(target, connections, seconds=plan.seconds, warm_s=warm_s)
                        runs.append(measured(name, turn, target, upstream, load))
                        tell(runs[-1])
                        warm_s = further_warm_s
    return runs


def tell(run: Run) -> None:
    """A line about a run that has ended."""
    print(
        f"  {run.system:<10} {run.connections:>4} connections: {run.per_second:>8,.0f}/s, "
        f"{run.all_cpu_ms:6.2f} ms CPU, p50 {run.p50_ms:7.1f} ms, p99 {run.p99_ms:7.1f} ms"
        + (f", {run.failed} FAILED" if run.failed else ""),
        flush=True,
    )
