"""One run: a load on a system, and what it cost each component meanwhile."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import requests

from bench.processes import cpu_s
from bench.speed.generator import Load, run
from bench.speed.target import Target
from bench.speed.upstream import UpstreamProcess

__all__ = ["Run", "load_on", "measured"]

#: What is kept of the latencies: enough to draw their distribution.
_SHARES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one run of ``system`` in pass ``turn``.

    ``cpu_ms`` is milliseconds of a core for each answer, by component; ``upstream_ms`` and
    ``generator_ms`` are what the two that measure took beside them. ``counts`` are those of
    ``generator.Counts``; ``twice`` counts upstream calls for a question that had been asked before.
    """

    system: str
    turn: int
    connections: int
    delay_s: float
    seconds: float
    ended: int
    per_second: float
    latency_ms: dict[str, float]
    counts: dict[str, Any]
    failed: int
    twice: int
    cpu_ms: dict[str, float]
    memory_mib: dict[str, float]
    upstream_ms: float
    generator_ms: float

    @property
    def p50_ms(self) -> float:
        """The median latency."""
        return self.latency_ms["0.5"]

    @property
    def p99_ms(self) -> float:
        """The latency that one of a hundred exceeds."""
        return self.latency_ms["0.99"]

    @property
    def all_cpu_ms(self) -> float:
        """Milliseconds of a core for each answer, all components together."""
        return sum(self.cpu_ms.values())

    @property
    def all_memory_mib(self) -> float:
        """MiB of all components together."""
        return sum(self.memory_mib.values())

    def to_wire(self) -> dict[str, Any]:
        """The run as it is kept."""
        return asdict(self)


def load_on(
    target: Target,
    connections: int,
    *,
    seconds: float = 0.0,
    count: int = 0,
    warm_s: float = 0.0,
) -> Load:
    """A load in the form that this system understands."""
    return Load(
        url=target.url,
        form=target.form,
        connections=connections,
        seconds=seconds,
        count=count,
        warm_s=warm_s,
        model=target.model,
        headers=target.headers,
    )


def measured(system: str, turn: int, target: Target, upstream: UpstreamProcess, load: Load) -> Run:
    """Send the load and read in /proc what it cost. Raises ``RuntimeError`` as the generator."""
    marks: list[tuple[dict[str, float], float]] = []

    def mark() -> None:
        marks.append((target.cpu_s(), cpu_s(upstream.pid)))

    twice = _repeated(upstream)
    outcome = run(load, begins=mark, ends=mark)
    (before, upstream_before), (after, upstream_after) = marks
    answers = max(outcome.ended, 1)
    return Run(
        system=system,
        turn=turn,
        connections=load.connections,
        delay_s=upstream.delay_s,
        seconds=outcome.seconds,
        ended=outcome.ended,
        per_second=outcome.per_second,
        latency_ms={str(share): outcome.percentile_ms(share) for share in _SHARES},
        counts=asdict(outcome.counts),
        failed=outcome.counts.failed,
        twice=_repeated(upstream) - twice,
        cpu_ms={name: (after[name] - before[name]) * 1000 / answers for name in before},
        memory_mib=target.resident_mib(),
        upstream_ms=(upstream_after - upstream_before) * 1000 / answers,
        generator_ms=outcome.cpu_s * 1000 / answers,
    )


def _repeated(upstream: UpstreamProcess) -> int:
    with requests.Session() as http:
        http.trust_env = False
        found: int = http.get(f"{upstream.url}/stats", timeout=30).json()["repeated"]
    return found
