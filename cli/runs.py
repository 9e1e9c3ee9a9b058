"""What the objects of batches and of evaluations have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chat.types import JSON

__all__ = ["OVER", "Fault", "ended_at", "faults", "most_frequent"]

#: The states that never change.
OVER = ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an input file was not taken; ``line`` counts from 1, ``None`` is the file as a whole."""

    line: int | None
    code: str
    message: str


def faults(wire: JSON) -> tuple[Fault, ...]:
    """The faults that an object tells. Raises ``KeyError`` for what is none."""
    return tuple(
        Fault(fault.get("line"), fault["code"], fault["message"])
        for fault in (wire.get("errors") or {}).get("data", ())
    )


def ended_at(wire: JSON) -> int | None:
    """When it was over, in seconds of the Unix epoch."""
    ends = (wire.get(f"{status}_at") for status in OVER)
    return next((end for end in ends if end is not None), None)


def most_frequent(errors: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Error codes and how often each was met, the most frequent first."""
    return tuple(sorted(errors.items(), key=lambda error: (-error[1], error[0])))
