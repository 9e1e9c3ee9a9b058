"""What real providers limit, as pure values on a clock that is handed in.

A limit is asked about a call that arrives (``refusal``), told that it was accepted (``begin``) and
that it is over (``end``); times are seconds of any clock that does not step back, so that a minute
can be made short. A refusal changes nothing: a call counts once it was accepted. ``Several`` holds
a call against more than one limit. To change a limit in the middle of a run, put another one in
its place; a call that has begun ends where it began.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = [
    "Closed",
    "Concurrency",
    "FixedWindow",
    "Limit",
    "NoLimit",
    "Refusal",
    "Several",
    "SlidingWindow",
    "TokenBucket",
]

_TOO_MANY = "Rate limit exceeded"
#: A token that has grown back but for the last bit of a float is there.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer instead of a model's: its status, its words, and ``Retry-After`` if it has one."""

    status: int
    message: str
    retry_after: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The header that tells when to come again."""
        return {} if self.retry_after is None else {"Retry-After": self.retry_after}

    def body(self, path: str) -> dict[str, Any]:
        """The error in the wire form of the API that ``path`` belongs to.

        Ollama answers a text (its server/routes.go), all others OpenAI's object.
        """
        if path.startswith("/api/"):
            return {"error": self.message}
        return {"error": {"code": self.status, "message": self.message}}


class Limit(Protocol):
    """One rule of an upstream."""

    def refusal(self, now: float) -> Refusal | None:
        """Why a call that arrives now is refused, or ``None``. Counts nothing."""
        ...

    def begin(self, now: float) -> None:
        """A call was accepted."""
        ...

    def end(self, now: float) -> None:
        """An accepted call is over."""
        ...


class NoLimit:
    """Accepts everything; the base of limits that do not look at every event."""

    def refusal(self, now: float) -> Refusal | None:  # noqa: ARG002 - the protocol's
        """Why a call that arrives now is refused."""
        return None

    def begin(self, now: float) -> None:
        """A call was accepted."""

    def end(self, now: float) -> None:
        """An accepted call is over."""


@dataclass(slots=True)
class TokenBucket(NoLimit):
    """``per_second`` calls on average and ``burst`` at once.

    With ``tells`` a refusal says when the next token is there; without, it is the burst limit that
    refuses without a header.
    """

    per_second: float
    burst: float = 1.0
    tells: bool = False
    whole_seconds: bool = True
    _tokens: float | None = None
    _at: float = 0.0

    def refusal(self, now: float) -> Refusal | None:
        """A 429 while less than one token is there."""
        missing = 1.0 - self._level(now)
        if missing <= _ROUNDING:
            return None
        return _refused(missing / self.per_second, tells=self.tells, whole=self.whole_seconds)

    def begin(self, now: float) -> None:
        """Take a token."""
        self._tokens, self._at = self._level(now) - 1.0, now

    def _level(self, now: float) -> float:
        if self._tokens is None:
            return self.burst
        return min(self.burst, self._tokens + (now - self._at) * self.per_second)


@dataclass(slots=True)
class SlidingWindow(NoLimit):
    """At most ``calls`` in any ``seconds``, the most exact way to count."""

    calls: int
    seconds: float
    tells: bool = False
    whole_seconds: bool = True
    _begun: deque[float] = field(default_factory=deque)

    def refusal(self, now: float) -> Refusal | None:
        """A 429 until the oldest call that counts leaves the window."""
        while self._begun and self._begun[0] <= now - self.seconds:
            self._begun.popleft()
        if len(self._begun) < self.calls:
            return None
        left = self._begun[0] + self.seconds - now
        return _refused(left, tells=self.tells, whole=self.whole_seconds)

    def begin(self, now: float) -> None:
        """Count a call."""
        self._begun.append(now)


@dataclass(slots=True)
class FixedWindow(NoLimit):
    """At most ``calls`` in each window of ``seconds``, as free models have it by the minute.

    The windows follow the clock and not the first call; a refusal tells when the present one ends.
    """

    calls: int
    seconds: float
    tells: bool = True
    whole_seconds: bool = True
    _window: int = -1
    _count: int = 0

    def refusal(self, now: float) -> Refusal | None:
        """A 429 until the window's end once it is full."""
        if self._number(now) != self._window or self._count < self.calls:
            return None
        left = (self._window + 1) * self.seconds - now
        return _refused(left, tells=self.tells, whole=self.whole_seconds)

    def begin(self, now: float) -> None:
        """Count a call in its window."""
        window = self._number(now)
        self._count = self._count + 1 if window == self._window else 1
        self._window = window

    def _number(self, now: float) -> int:
        return math.floor(now / self.seconds)


@dataclass(slots=True)
class Concurrency(NoLimit):
    """At most ``most`` calls at a time; nobody knows when one ends, so no header tells."""

    most: int
    _running: int = 0

    def refusal(self, now: float) -> Refusal | None:  # noqa: ARG002 - it does not depend on time
        """A 429 while all places are taken."""
        if self._running < self.most:
            return None
        return Refusal(429, "too many concurrent requests")

    def begin(self, now: float) -> None:  # noqa: ARG002
        """Take a place."""
        self._running += 1

    def end(self, now: float) -> None:  # noqa: ARG002
        """Give it back."""
        self._running -= 1


@dataclass(slots=True)
class Closed(NoLimit):
    """Refuses everything from ``since`` until ``until``.

    ``quota`` and ``overload`` make the two that providers have; ``Closed`` itself is a rate limit
    that lasts.
    """

    since: float
    until: float
    status: int = 429
    message: str = _TOO_MANY
    tells: bool = True
    whole_seconds: bool = True

    @classmethod
    def quota(cls, since: float, until: float) -> Closed:
        """A day's free requests are used up (OpenRouter docs, limits), until the day's end."""
        message = "Rate limit exceeded: free-models-per-day"
        return cls(since, until, message=message)

    @classmethod
    def overload(cls, since: float, until: float) -> Closed:
        """The model's servers are full for a while, and do not know how long."""
        return cls(since, until, 503, "The model is overloaded, please try again", tells=False)

    def refusal(self, now: float) -> Refusal | None:
        """The status and words given, while it is closed."""
        if not self.since <= now < self.until:
            return None
        header = _header(self.until - now, whole=self.whole_seconds) if self.tells else None
        return Refusal(self.status, self.message, header)


@dataclass(frozen=True, slots=True)
class Several:
    """All of ``limits`` together: the first that refuses answers, and then none has counted."""

    limits: Sequence[Limit]

    def refusal(self, now: float) -> Refusal | None:
        """The first refusal."""
        found = (limit.refusal(now) for limit in self.limits)
        return next((refusal for refusal in found if refusal is not None), None)

    def begin(self, now: float) -> None:
        """Count the call everywhere."""
        for limit in self.limits:
            limit.begin(now)

    def end(self, now: float) -> None:
        """The call is over everywhere."""
        for limit in self.limits:
            limit.end(now)


def _refused(seconds: float, *, tells: bool, whole: bool) -> Refusal:
    return Refusal(429, _TOO_MANY, _header(seconds, whole=whole) if tells else None)


def _header(seconds: float, *, whole: bool) -> str:
    """``Retry-After`` has whole seconds (RFC 9110, section 10.2.3), rounded up.

    A fraction is for a clock that was made short: a window of 60 ms cannot end in whole seconds.
    """
    return str(max(1, math.ceil(seconds - _ROUNDING))) if whole else f"{seconds:.6f}"
