"""OpenAI's batch object as a value (platform.openai.com/docs/api-reference/batch/object).

What chatd adds to it stands under ``chatd``: what the batch has cost, its errors by code, and which
providers keep it waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from chat.types import JSON
from cli.runs import OVER, Fault, ended_at, faults, most_frequent

__all__ = ["Batch"]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch object. Times are seconds of the Unix epoch on the clock of chatd's host.

    ``completed`` counts the items that succeeded, as OpenAI has it, and none that ``failed``.
    ``errors`` has how many items failed with which code, the most frequent first; ``waiting`` says
    which provider keeps items waiting and why.
    """

    id: str
    status: str
    endpoint: str
    total: int
    completed: int
    failed: int
    created_at: int
    began_at: int | None
    ended_at: int | None
    output_file_id: str | None
    error_file_id: str | None
    faults: tuple[Fault, ...]
    errors: tuple[tuple[str, int], ...]
    waiting: tuple[tuple[str, str], ...]
    cost_usd: float | None
    input_tokens: int
    output_tokens: int

    @classmethod
    def from_wire(cls, wire: JSON) -> Self:
        """What ``GET /v1/batches/<id>`` answers. Raises ``KeyError`` when it is no batch object."""
        counts = wire.get("request_counts") or {}
        usage = wire.get("usage") or {}
        extra = wire.get("chatd") or {}
        return cls(
            id=wire["id"],
            status=wire["status"],
            endpoint=wire["endpoint"],
            total=counts.get("total", 0),
            completed=counts.get("completed", 0),
            failed=counts.get("failed", 0),
            created_at=wire["created_at"],
            began_at=wire.get("in_progress_at"),
            ended_at=ended_at(wire),
            output_file_id=wire.get("output_file_id"),
            error_file_id=wire.get("error_file_id"),
            faults=faults(wire),
            errors=most_frequent(extra.get("errors") or {}),
            waiting=tuple(sorted((extra.get("waiting") or {}).items())),
            cost_usd=extra.get("cost_usd"),
            input_tokens=usage.get("input_tokens", 0),
            output_tokens=usage.get("output_tokens", 0),
        )

    @property
    def done(self) -> int:
        """Items that are over, whichever way."""
        return self.completed + self.failed

    @property
    def over(self) -> bool:
        """Whether it has reached a state that never changes."""
        return self.status in OVER

    @property
    def clean(self) -> bool:
        """Whether it is completed and no item failed."""
        return self.status == "completed" and self.failed == 0
