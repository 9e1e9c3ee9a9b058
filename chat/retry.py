"""What a failed call means for its job and for its budget: again or not, and what was learned.

Pure decisions over ``chat.errors``: the counts, the time that is left and chance are handed in. A
provider's own words were turned into an error class before (``chat.providers.classify``), so that
nothing here knows a provider.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from chat.errors import ChatError, QuotaExhausted, UpstreamRateLimited, UpstreamUnavailable
from chat.types import Billed

__all__ = ["Decision", "Signal", "Tally", "decide", "signal", "tally"]

#: Refusals cost nothing and are no attempts, but a job is not refused for ever: it ends after this
#: many for each attempt that it may have.
_REFUSALS_PER_ATTEMPT = 100

_FIRST_BACKOFF_S = 1.0
_LONGEST_BACKOFF_S = 60.0

#: What an answer may have instead of a verdict on the call: no status at all (the connection was
#: cut, or the time limit of the call passed), or one that says only that somebody stopped waiting.
_TELLS_NOTHING = frozenset({None, 408, 504, 524})

#: Statuses with which an unavailable upstream says that it has too much to do.
_OVERLOADED = frozenset({429, 503, 529})


class Signal(StrEnum):
    """What a budget learns from the end of a call."""

    NONE = ""
    ACCEPTED = "accepted"
    REFUSED = "refused"
    OVERLOADED = "overloaded"
    QUOTA = "quota"


class Tally(StrEnum):
    """Which of a job's counts a failed attempt belongs to; ``NONE`` ends the job in any case.

    ``REFUSED``: a limit turned the request away before it ran. ``UNKNOWN``: nobody knows whether it
    ran, and it may be on the bill. ``ANSWERED``: the upstream, or the way to it, is known to have
    failed.
    """

    NONE = ""
    REFUSED = "refused"
    ANSWERED = "answered"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a job is called again.

    ``delay_s`` is its own back-off, 0 when its budget's cool-down decides. ``reason`` is what it
    waits for: ``rate_limited``, ``quota_exhausted``, ``overloaded`` or ``retry``; empty when the
    job ends with the error that it has.
    """

    again: bool
    delay_s: float = 0.0
    reason: str = ""


_END = Decision(again=False)


def signal(error: ChatError | None) -> Signal:
    """What the budget of a call learns from its ``error``, or from its success (``None``).

    A used-up balance closes no budget, unlike a quota: it does not come back by waiting, it may be
    no more than one request that asks for more tokens than it can pay, and a budget that was closed
    would stay so after somebody has paid. Every call finds out by itself, in a refusal that is
    free. It is closed where the upstream says until when.
    """
    if error is None or error.billed is Billed.YES:
        return Signal.ACCEPTED
    if not _may_pass(error):
        return Signal.NONE
    if isinstance(error, UpstreamRateLimited):
        return Signal.REFUSED
    if isinstance(error, QuotaExhausted):
        return Signal.QUOTA
    if isinstance(error, UpstreamUnavailable):
        never_reached = error.upstream_status is None and error.billed is Billed.NO
        if never_reached or error.upstream_status in _OVERLOADED:
            return Signal.OVERLOADED
    return Signal.NONE


def tally(error: ChatError) -> Tally:
    """Which count of its job an attempt with this ``error`` belongs to."""
    if not _may_pass(error):
        return Tally.NONE
    if isinstance(error, UpstreamRateLimited | QuotaExhausted) and error.billed is Billed.NO:
        return Tally.REFUSED
    if error.billed is Billed.MAYBE and error.upstream_status in _TELLS_NOTHING:
        return Tally.UNKNOWN
    return Tally.ANSWERED


def decide(  # noqa: PLR0913 - what is known of a job and what it may have, all by name
    error: ChatError,
    *,
    answered: int,
    refused: int,
    unknown: int,
    max_attempts: int,
    max_lost_calls: int,
    on_lost_call: str,
    remaining_s: float,
    chance: float,
) -> Decision:
    """Whether the job whose call ended with ``error`` is called again, and when at the earliest.

    ``answered``, ``refused`` and ``unknown`` count its attempts by ``Tally``, this one included.
    ``on_lost_call`` is ``retry`` or ``fail``: an unknown outcome is never repeated unasked.
    ``remaining_s`` is left until its deadline; what cannot be tried within it ends now, with the
    error as it is. ``chance``, from 0 to 1, spreads the back-off. Whether the budget opens again in
    time is not known here.
    """
    kind = tally(error)
    attempts = answered + unknown if kind is Tally.UNKNOWN else answered
    repeats_unknown = on_lost_call == "retry" and unknown < max_lost_calls
    allowed = {
        Tally.NONE: False,
        Tally.REFUSED: refused < _REFUSALS_PER_ATTEMPT * max_attempts,
        Tally.ANSWERED: attempts < max_attempts,
        Tally.UNKNOWN: repeats_unknown and attempts < max_attempts,
    }
    backoff_s = 0.0 if kind is Tally.REFUSED else _backoff_s(attempts, chance)
    wait_s = max(backoff_s, error.retry_after_s or 0.0)
    if not allowed[kind] or wait_s >= remaining_s:
        return _END
    if kind is Tally.REFUSED:
        return Decision(again=True, reason=error.code)
    overloaded = signal(error) is Signal.OVERLOADED
    return Decision(again=True, delay_s=wait_s, reason="overloaded" if overloaded else "retry")


def _may_pass(error: ChatError) -> bool:
    """Whether waiting can help; what was paid for once is not asked for again."""
    renewed = isinstance(error, QuotaExhausted) and error.retry_after_s is not None
    return (error.retryable or renewed) and error.billed is not Billed.YES


def _backoff_s(attempts: int, chance: float) -> float:
    """Seconds to wait after so many attempts: doubled each time, and half of it left to chance."""
    doublings = min(max(attempts - 1, 0), 10)  # More would only make a number that is too large.
    longest: float = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2**doublings)
    return longest * (1 + chance) / 2
