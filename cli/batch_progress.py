"""How fast a batch goes, and how long it will take.

Rates are differences of the batch's own counts over a monotonic clock of this machine: no clocks of
two machines are compared.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from cli.batch_object import Batch

__all__ = ["Meter", "Progress"]

#: Seconds over which the present rate is taken: longer than most cool-downs.
_WINDOW_S = 30
#: The states whose counts come from calls.
_RUNNING = ("in_progress", "finalizing", "completed")


@dataclass(frozen=True, slots=True)
class Progress:
    """A batch at one moment. Rates are items per second, ``None`` as long as nothing is known.

    ``per_s`` is the rate of the last half minute, ``overall_per_s`` that of the whole watch, and
    ``left_s`` the seconds that the rest takes at that pace.
    """

    batch: Batch
    per_s: float | None
    overall_per_s: float | None
    left_s: float | None


class Meter:
    """Takes one batch's counts as they come, and knows the rates between them."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        #: Times and counts, from the newest that is half a minute old (or the first) to the last.
        self._recent: deque[tuple[float, int]] = deque()

    def measure(self, batch: Batch, at: float) -> Progress:
        """The progress at ``at``, seconds of a monotonic clock at which ``batch`` came."""
        if batch.status not in _RUNNING:
            # While its file is looked at nothing can be done. With a cancel or an expiry thousands
            # fail at once that were never called: no rate either.
            return Progress(batch, None, None, None)
        if self._recent and batch.done < self._recent[-1][1]:
            # Redis came back with an older state; what is counted from it would be nonsense.
            self._recent.clear()
            self._first = None
        self._first = self._first or (at, batch.done)
        self._recent.append((at, batch.done))
        while len(self._recent) > 1 and self._recent[1][0] <= at - _WINDOW_S:
            self._recent.popleft()
        per_s, overall_per_s = (
            _rate(start, (at, batch.done)) for start in (self._recent[0], self._first)
        )
        # When nothing moves just now, the whole watch is the better guess.
        return Progress(batch, per_s, overall_per_s, _left(batch, per_s or overall_per_s))


def _rate(start: tuple[float, int], end: tuple[float, int]) -> float | None:
    seconds = end[0] - start[0]
    return (end[1] - start[1]) / seconds if seconds > 0 else None


def _left(batch: Batch, per_s: float | None) -> float | None:
    if batch.status != "in_progress" or not per_s or batch.done >= batch.total:
        return None
    return (batch.total - batch.done) / per_s
