"""When an upstream says a call may be repeated: numbers, dates and words, read into seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from chat.providers.error_text import ErrorText

__all__ = ["seconds_until_midnight", "seconds_until_retry"]

_DAY_S = 86400.0

#: A hint further off than this is a mistake, and would close a provider for good.
_LONGEST_S = 366 * _DAY_S

#: Between these two an epoch is given in seconds or in milliseconds; smaller numbers are neither.
_EPOCH_SECONDS = 1e9
_EPOCH_MILLISECONDS = 1e12

#: A length of time as Go writes it (``6m0s``, ``1.5s``, ``250ms``), which OpenAI does too, and as
#: people do (``20 seconds``, ``2hr 10min``).
_UNITS = (
    (r"milliseconds?|ms", 0.001),
    (r"seconds?|secs?|s", 1.0),
    (r"minutes?|mins?|m", 60.0),
    (r"hours?|hrs?|h", 3600.0),
    (r"days?|d", _DAY_S),
)
_ANY_UNIT = "|".join(unit for unit, _ in _UNITS)
_PART = re.compile(rf"([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?)\s*({_ANY_UNIT})(?![a-z])\s*")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")

#: "Please try again in 18.642s", "Please retry after 12 seconds", "It will reset in 2hr 10min".
_WORDS = re.compile(rf"\b(?:again|retry|resets?) (?:in|after) ({_DURATION.pattern})")


def seconds_until_retry(
    headers: Mapping[str, str], said: ErrorText, *, now: float, limited: bool
) -> float | None:
    """Seconds from ``now`` (since the epoch) until the upstream wants to be asked again.

    ``headers`` has lower-case names. ``limited`` says that a rate or a quota refused the call: only
    then do ``X-RateLimit-*`` count, since they tell when such a limit is renewed, not when a server
    recovers. The first hint that can be read counts:

    - ``Retry-After-Ms`` (openai/openai-python issue 957: Azure OpenAI), more exact than the next;
    - ``Retry-After`` as seconds or as an HTTP date (RFC 9110, section 10.2.3);
    - ``availability.retry_after`` in seconds and ``metadata.resets_at`` as RFC 3339 (OpenRouter
      docs, errors-and-debugging);
    - ``X-RateLimit-Reset`` as an epoch, in a header or where OpenRouter copies it into the body
      (OpenRouter docs, limits; in milliseconds as far as is known);
    - the words of the message (OpenAI, Azure OpenAI, OpenRouter, and handler.ts of OpenCode);
    - ``X-RateLimit-Reset-Requests`` and ``-Tokens`` (OpenAI docs, guides/rate-limits), last because
      they tell when a limit is whole again, not when there is enough of it for one call.
    """
    hints = (
        _milliseconds(headers.get("retry-after-ms")),
        _seconds(headers.get("retry-after")),
        _until_http_date(headers.get("retry-after"), now),
        _seconds(said.retry_after),
        _until_timestamp(said.resets_at, now),
        _until_epoch(headers.get("x-ratelimit-reset"), now) if limited else None,
        _until_epoch(said.ratelimit_reset, now) if limited else None,
        _in_words(said.marks),
        _until_refilled(headers) if limited else None,
    )
    return next((max(0.0, hint) for hint in hints if hint is not None and hint <= _LONGEST_S), None)


def seconds_until_midnight(now: float) -> float:
    """Seconds from ``now`` (since the epoch) until the next day begins in UTC."""
    return _DAY_S - now % _DAY_S


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _seconds(value: object) -> float | None:
    number = _number(value)
    return number if number is not None and number >= 0 else None


def _milliseconds(value: object) -> float | None:
    number = _seconds(value)
    return None if number is None else number / 1000


def _until_http_date(value: str | None, now: float) -> float | None:
    if not value:
        return None
    try:
        moment = parsedate_to_datetime(value)
        return _as_utc(moment).timestamp() - now
    except (ValueError, OverflowError, IndexError):
        return None


def _until_timestamp(value: object, now: float) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        return _as_utc(datetime.fromisoformat(value)).timestamp() - now
    except (ValueError, OverflowError):
        return None


def _until_epoch(value: object, now: float) -> float | None:
    number = _number(value)
    if number is None or number < _EPOCH_SECONDS:
        return None
    return (number / 1000 if number >= _EPOCH_MILLISECONDS else number) - now


def _in_words(marks: str) -> float | None:
    found = _WORDS.search(marks)
    return None if found is None else _duration(found.group(1))


def _until_refilled(headers: Mapping[str, str]) -> float | None:
    """When the limit that refused the call is whole again; of two that may be it, the later one.

    It was not the limit of requests if some of those are left, but a call may well need more tokens
    than are left. Azure OpenAI writes -1 where it does not know and 0 where there is no limit.
    """
    requests_left = _number(headers.get("x-ratelimit-remaining-requests"))
    if requests_left is None or requests_left < 0:
        limits: tuple[str, ...] = ("requests", "tokens")
    else:
        limits = ("tokens",) if requests_left > 0 else ("requests",)
    waits = [_duration(headers.get(f"x-ratelimit-reset-{limit}", "")) for limit in limits]
    return max((wait for wait in waits if wait), default=None)


def _duration(text: str) -> float | None:
    """A length of time in seconds, which is what a bare number means as well (Azure OpenAI)."""
    text = text.strip().lower()
    if not _DURATION.fullmatch(text):
        return _seconds(text)
    return sum(float(number) * _seconds_per(unit) for number, unit in _PART.findall(text))


def _seconds_per(unit: str) -> float:
    return next(seconds for names, seconds in _UNITS if re.fullmatch(names, unit))


def _as_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
