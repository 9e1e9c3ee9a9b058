"""What a table of queue and jobs prints and keeps: the machine, rows, bounds, all figures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.scenes.scene import Report
from bench.speed.figures import Bound
from bench.speed.machine import describe, save

__all__ = ["Sheet", "verdict"]


@dataclass(slots=True)
class Sheet(Report):
    """One table on its way to the terminal and to a file. ``raw`` is what is kept beside it."""

    name: str = ""
    raw: dict[str, Any] = field(default_factory=dict)
    _described: dict[str, Any] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    def begin(self, what: str) -> None:
        """Say what is measured, and on what."""
        print(f"{self.name}: {what}", flush=True)
        self._described = describe(["chatd", "textbook"])

    def bound(self, bound: Bound, values: Sequence[float]) -> None:
        """Hold a figure, one value per pass, to its bound; a missed one is told, and no error."""
        told = verdict(bound, values)
        shown = " / ".join(f"{value:.4g}" for value in values)
        bounds = f"commit {bound.sign(bound.commit)}, stretch {bound.sign(bound.stretch)}"
        self.say(bound.name, f"{shown}; {bounds}: {told}")
        self.raw.setdefault("bounds", []).append(
            {"name": bound.name, "values": list(values), "verdict": told}
        )

    def end(self) -> int:
        """Keep what was measured; the exit code, 1 when a rule was broken."""
        seconds = time.monotonic() - self._began
        self.say("seconds this took", f"{seconds:.0f}")
        save(self.name, self._described, (), broken=self.broken, seconds=seconds, **self.raw)
        return 1 if self.broken else 0


def verdict(bound: Bound, values: Sequence[float]) -> str:
    """What is reached in every pass: the worse one decides."""
    return bound.verdict(min(values) if bound.at_least else max(values))
