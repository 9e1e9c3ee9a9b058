"""A thousand calls at once, each of which takes ten seconds upstream: who is answered, and when."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.speed.generator import Load, Outcome, run
from bench.speed.parts import Parts, Peak
from bench.speed.upstream import UpstreamProcess
from cli.redis_server import free_port
from tests.stack import Stack

__all__ = ["Held", "direct", "held"]

#: Callers that come before: the first of all pays for what is made once.
_FIRST = 8


@dataclass(frozen=True, slots=True)
class Held:
    """What holding the calls took: MiB before and at the most, threads, CPU seconds, by part."""

    outcome: Outcome
    idle_mib: dict[str, float]
    resident_mib: dict[str, float]
    proportional_mib: dict[str, float]
    threads: dict[str, int]
    cpu_s: dict[str, float]

    @property
    def front_and_worker_mib(self) -> float:
        """MiB that front end and worker use at the most, what they share counted once (PSS)."""
        return self.proportional_mib["front end"] + self.proportional_mib["worker"]

    def to_wire(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            **_times(self.outcome),
            "idle_mib": self.idle_mib,
            "resident_mib": self.resident_mib,
            "proportional_mib": self.proportional_mib,
            "threads": self.threads,
            "cpu_s": self.cpu_s,
        }


def held(calls: int, delay_s: float) -> Held:
    """Send ``calls`` to chatd at the same moment."""
    with tempfile.TemporaryDirectory(prefix="chatd-capacity-") as name:
        folder = Path(name)
        upstream = UpstreamProcess(folder, free_port(), delay_s).start()
        stack = Stack(folder / "stack", {"ollama": upstream.url}, concurrency=calls)
        try:
            stack.start()
            run(Load(url=stack.url, form="chat", connections=_FIRST, count=_FIRST, tag="first"))
            parts = Parts.of(stack)
            idle, before = parts.proportional(), parts.cpu()
            with Peak(parts) as peak:
                outcome = run(_load(stack.url, "chat", calls, delay_s))
            found = Held(
                outcome,
                idle,
                peak.resident,
                peak.proportional,
                peak.threads,
                parts.spent(before),
            )
            stack.balanced()
        finally:
            stack.stop()
            upstream.stop()
    return found


def direct(calls: int, delay_s: float) -> Outcome:
    """The same sent to the upstream itself: what generator and machine make of it."""
    with tempfile.TemporaryDirectory(prefix="chatd-capacity-") as name:
        upstream = UpstreamProcess(Path(name), free_port(), delay_s).start()
        try:
            return run(_load(upstream.url, "ollama", calls, delay_s))
        finally:
            upstream.stop()


def _load(url: str, form: str, calls: int, delay_s: float) -> Load:
    return Load(
        url=url,
        form=form,
        connections=calls,
        count=calls,
        tag="held",
        late_s=delay_s * 1.1,
        patience_s=delay_s * 6,
    )


def _times(outcome: Outcome) -> dict[str, Any]:
    return {
        "p50_ms": outcome.percentile_ms(0.5),
        "p99_ms": outcome.percentile_ms(0.99),
        "most_ms": outcome.percentile_ms(1.0),
        "failed": outcome.counts.failed,
    }
