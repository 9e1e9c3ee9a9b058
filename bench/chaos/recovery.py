"""How long callers had to do without: the first answer after a fault, and the full rate."""

from __future__ import annotations

import bisect
import threading
from itertools import pairwise

__all__ = ["Recovery"]

_WINDOW_S = 1.0
_STEP_S = 0.1
_FULL = 0.9


class Recovery:
    """The moments (monotonic seconds) at which requests were sent, and at which they had answers.

    Those who wait for a chat and those who leave a job are counted apart: an answer to the first
    needs a worker, a 202 to the second only Redis.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offered: dict[bool, list[float]] = {True: [], False: []}
        self._answered: dict[bool, list[float]] = {True: [], False: []}

    def offered(self, waits: bool, at: float) -> None:  # noqa: FBT001 - one of the two sorts
        """A request was sent."""
        with self._lock:
            self._offered[waits].append(at)

    def answered(self, waits: bool, at: float) -> None:  # noqa: FBT001 - as above
        """It has its answer, or its 202."""
        with self._lock:
            bisect.insort(self._answered[waits], at)

    def first(self, since: float) -> float | None:
        """Seconds from ``since`` to the first chat answered after it."""
        with self._lock:
            answers = self._answered[True]
            place = bisect.bisect_right(answers, since)
            return answers[place] - since if place < len(answers) else None

    def full(self, since: float, now: float) -> float | None:
        """Seconds from ``since`` to the first second in which as much was answered as was sent.

        Nine tenths are as much, of both sorts. ``None`` when there is no such second before
        ``now``.
        """
        with self._lock:
            start = since
            while start + _WINDOW_S <= now:
                if all(self._keeps_up(waits, start) for waits in self._offered):
                    return start - since
                start += _STEP_S
        return None

    def longest_gap(self, since: float, until: float) -> float:
        """The longest time in seconds in which no chat was answered."""
        with self._lock:
            moments = [at for at in self._answered[True] if since <= at <= until]
        edges = [since, *moments, until]
        return max(after - before for before, after in pairwise(edges))

    def _keeps_up(self, waits: bool, start: float) -> bool:  # noqa: FBT001 - as above
        offered, answered = self._offered[waits], self._answered[waits]
        return _between(answered, start) >= _FULL * _between(offered, start)


def _between(moments: list[float], start: float) -> int:
    """How many of these lie in the window that begins at ``start``."""
    return bisect.bisect_left(moments, start + _WINDOW_S) - bisect.bisect_left(moments, start)
