"""How large an answer may be, in all that can make it dear to read."""

from __future__ import annotations

__all__ = ["AnswerTooLarge", "check_size", "check_values"]

#: Values in one JSON text. Short ones take thirty times the memory of their text, once decoded.
_MOST_VALUES = 1_000_000
_SEPARATORS = (b",", b"[", b"{")


class AnswerTooLarge(Exception):
    """An answer went over one of its limits, which is the message."""


def check_size(found: int, limit: int, what: str) -> None:
    """Raise ``AnswerTooLarge`` if there is more of something than may be."""
    if found > limit:
        raise AnswerTooLarge(f"{limit} {what}")


def check_values(text: bytes | bytearray) -> None:
    """Raise ``AnswerTooLarge`` for a JSON text with more values than may be decoded."""
    if len(text) > _MOST_VALUES:
        check_size(sum(map(text.count, _SEPARATORS)), _MOST_VALUES, "values")
