"""When an upstream says a call may be repeated: seconds, dates and epochs, read into seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from chat.providers.error_text import ErrorText

__all__ = ["seconds_until_retry"]

#: A hint further off than this is a mistake, and would close a provider for good.
_LONGEST_S = 366 * 86400.0

#: Between these two an epoch is given in seconds or in milliseconds; smaller numbers are neither.
_EPOCH_SECONDS = 1e9
_EPOCH_MILLISECONDS = 1e12


def seconds_until_retry(headers: Mapping[str, str], said: ErrorText, *, now: float) -> float | None:
    """Seconds from ``now`` (since the epoch) until the upstream wants to be asked again.

    The first hint that can be read counts: ``Retry-After`` as seconds or as an HTTP date (RFC 9110,
    section 10.2.3), OpenRouter's ``availability.retry_after`` (seconds) and ``metadata.resets_at``
    (RFC 3339), then ``X-RateLimit-Reset``, as a header or as OpenRouter copies it into the body
    (epoch, in milliseconds as far as is known). ``headers`` has lower-case names.
    """
    hints = (
        _seconds(headers.get("retry-after")),
        _until_http_date(headers.get("retry-after"), now),
        _seconds(said.retry_after),
        _until_timestamp(said.resets_at, now),
        _until_epoch(headers.get("x-ratelimit-reset"), now),
        _until_epoch(said.ratelimit_reset, now),
    )
    return next((max(0.0, hint) for hint in hints if hint is not None and hint <= _LONGEST_S), None)


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


def _as_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
