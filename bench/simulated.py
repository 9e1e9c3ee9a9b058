"""Upstreams with a limit, simulated: what ``bench.learning`` sends its calls to."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Bucket", "Places", "Upstream", "Window"]


class Upstream:
    """A limit as the other side keeps it. Times are ms since the start of the run."""

    def arrive(self, now: float) -> float | None:
        """None when the call is accepted, else its Retry-After in ms, 0 for none."""
        raise NotImplementedError

    def leave(self) -> None:
        """An accepted call has ended; most limits count starts only."""

    def allowed(self, begin: float, end: float) -> float:
        """How many calls it would have accepted outside the cool-downs it asked for."""
        raise NotImplementedError


@dataclass
class Bucket(Upstream):
    """A token bucket: ``steps`` are (from ms, calls per second); a rate of 0 refuses all."""

    steps: Sequence[tuple[float, float]]
    burst: float
    retry_ms: float = 0
    _level: float = math.inf
    _at: float = 0
    _asked: list[tuple[float, float]] = field(default_factory=list)

    def _rate(self, now: float) -> float:
        return [rate for begin, rate in self.steps if begin <= now][-1]

    def arrive(self, now: float) -> float | None:
        """Take a token, if there is one."""
        rate = self._rate(now)
        self._level = min(self.burst, self._level + (now - self._at) * rate / 1000)
        self._at = now
        if self._level >= 1 and rate:
            self._level -= 1
            return None
        self._asked.append((now, now + self.retry_ms))
        return self.retry_ms

    def allowed(self, begin: float, end: float) -> float:
        """The rate over time, without what Retry-After ruled out."""
        edges = {begin, end, *(at for at, _ in self.steps), *itertools.chain(*self._asked)}
        inside = sorted(edge for edge in edges if begin <= edge <= end)
        return sum(
            self._rate(left) * (right - left) / 1000
            for left, right in itertools.pairwise(inside)
            if not any(asked <= left and right <= until for asked, until in self._asked)
        )


@dataclass
class Window(Upstream):
    """``steps`` are (from ms, calls a minute), counted by the clock's minute or the last 60 s."""

    steps: Sequence[tuple[float, int]]
    sliding: bool = False
    says_when: bool = False  # Retry-After lasts until there is room, in whole seconds.
    _times: deque[float] = field(default_factory=deque)

    def arrive(self, now: float) -> float | None:
        """Count the calls of the window."""
        begin = now - 60_000 if self.sliding else math.floor(now / 60_000) * 60_000
        while self._times and self._times[0] <= begin:
            self._times.popleft()
        if len(self._times) < [most for at, most in self.steps if at <= now][-1]:
            self._times.append(now)
            return None
        room_at = (self._times[0] if self.sliding else begin) + 60_000
        return math.ceil((room_at - now) / 1000) * 1000 if self.says_when else 0

    def allowed(self, begin: float, end: float) -> float:
        """The whole allowance: waiting for the window is part of it."""
        ends = [*(at for at, _ in self.steps[1:]), math.inf]
        return sum(
            most * max(0.0, min(end, until) - max(begin, since)) / 60_000
            for (since, most), until in zip(self.steps, ends, strict=True)
        )


@dataclass
class Places(Upstream):
    """Concurrency: a 429 for every call above ``most`` in flight."""

    most: int
    mean_latency_ms: float
    _in_flight: int = 0

    def arrive(self, now: float) -> float | None:  # noqa: ARG002 - it counts calls, not time
        """Take a place, if there is one."""
        if self._in_flight >= self.most:
            return 0
        self._in_flight += 1
        return None

    def leave(self) -> None:
        """Give the place back."""
        self._in_flight -= 1

    def allowed(self, begin: float, end: float) -> float:
        """All places taken all the time."""
        return self.most * (end - begin) / self.mean_latency_ms
