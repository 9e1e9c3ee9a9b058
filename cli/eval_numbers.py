"""Figures of an evaluation as text, with no more digits than they carry."""

from __future__ import annotations

from cli.phrases import span

__all__ = ["UNKNOWN", "chance", "interval", "milliseconds", "score", "signed"]

UNKNOWN = "-"

#: Samples from which the third digit of a score says something.
_MANY = 200
#: Probabilities below it are told as that; below the second they need a third digit.
_LEAST_P, _SMALL_P = 0.001, 0.1
_SECOND_MS = 1000
#: Milliseconds up to which a time is told in seconds with a fraction.
_LONG_MS = 100_000


def score(value: float | None, samples: int | None) -> str:
    """A mean of so many samples. It is 1 or 0 only if every score is."""
    if value is None:
        return UNKNOWN
    digits = _digits(samples)
    least = 10.0**-digits
    shown = value if value in (0, 1) else min(max(value, least), 1 - least)
    return f"{shown:.{digits}f}"


def interval(low: float | None, high: float | None, samples: int) -> str:
    """``0.64 to 0.95``."""
    if low is None or high is None:
        return UNKNOWN
    digits = _digits(samples)
    return f"{low:.{digits}f} to {high:.{digits}f}"


def signed(*values: float | None, samples: int) -> str:
    """A difference, or with two values its interval: ``+0.05``, ``-0.05 to +0.15``."""
    digits = _digits(samples)
    told = []
    for value in values:
        if value is None:
            return UNKNOWN
        rounded = round(value, digits)
        told.append(f"{rounded:+.{digits}f}" if rounded else f"{0:.{digits}f}")
    return " to ".join(told)


def chance(p: float) -> str:
    """A probability: ``<0.001``, ``0.021``, ``0.63``."""
    if p < _LEAST_P:
        return f"<{_LEAST_P}"
    return f"{p:.3f}" if p < _SMALL_P else f"{p:.2f}"


def milliseconds(value: float | None) -> str:
    """``5ms``, ``1.2s``, ``2m 05s``."""
    if value is None:
        return UNKNOWN
    if value < _SECOND_MS:
        return f"{value:.0f}ms"
    return f"{value / 1000:.1f}s" if value < _LONG_MS else span(value / 1000)


def _digits(samples: int | None) -> int:
    return 3 if samples is not None and samples >= _MANY else 2
