"""How fast something goes, and how long the rest of it will take.

Rates are differences of chatd's own counts over a monotonic clock of this machine: no clocks of two
machines are compared.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

__all__ = ["UNKNOWN", "Meter", "Pace"]

#: Seconds over which the present rate is taken: longer than most cool-downs.
_WINDOW_S = 30


class Pace(NamedTuple):
    """Rates are items per second, ``None`` as long as nothing is known.

    ``per_s`` is the rate of the last half minute, ``overall_per_s`` that of the whole watch, and
    ``left_s`` the seconds that the rest takes at that pace.
    """

    per_s: float | None
    overall_per_s: float | None
    left_s: float | None


UNKNOWN = Pace(None, None, None)


class Meter:
    """Takes one count as it comes, and knows the rates between its values."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        #: Times and counts, from the newest that is half a minute old (or the first) to the last.
        self._recent: deque[tuple[float, int]] = deque()

    def measure(self, done: int, left: int, at: float) -> Pace:
        """The pace at ``at``, seconds of a monotonic clock at which the count of ``done`` came.

        ``left`` is how many items are still to be done.
        """
        if self._recent and done < self._recent[-1][1]:
            # Redis came back with an older state; what is counted from it would be nonsense.
            self._recent.clear()
            self._first = None
        self._first = self._first or (at, done)
        self._recent.append((at, done))
        while len(self._recent) > 1 and self._recent[1][0] <= at - _WINDOW_S:
            self._recent.popleft()
        per_s, overall_per_s = (
            _rate(start, (at, done)) for start in (self._recent[0], self._first)
        )
        # When nothing moves just now, the whole watch is the better guess.
        pace_s = per_s or overall_per_s
        left_s = left / pace_s if pace_s and left > 0 else None
        return Pace(per_s, overall_per_s, left_s)


def _rate(start: tuple[float, int], end: tuple[float, int]) -> float | None:
    seconds = end[0] - start[0]
    return (end[1] - start[1]) / seconds if seconds > 0 else None
