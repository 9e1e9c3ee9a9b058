"""A batch as a value: what was asked for, how far it is, and OpenAI's object of both."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

from chat.types import JSON

__all__ = ["Batch", "Fault", "Progress", "Status"]


class Status(StrEnum):
    """Where a batch stands, in OpenAI's words. The last four never change."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the batch is over."""
        return self in _TERMINAL


_TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.EXPIRED, Status.CANCELLED})


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one line of the input file, or with all of it (``line`` is ``None``)."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(slots=True)
class Progress:
    """How far a batch is. Times are Unix seconds; ``times`` has them by OpenAI's names."""

    status: Status = Status.VALIDATING
    times: dict[str, int] = field(default_factory=dict)
    total: int = 0
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    codes: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    output_file_id: str | None = None
    error_file_id: str | None = None

    def count(self, result: JSON) -> bool:
        """Add one result, as ``chat.batches.lines`` makes them; returns whether it is an error."""
        account = result["chatd"]
        code = account["code"]
        if code is None:
            self.completed += 1
        else:
            self.failed += 1
            self.codes[code] += 1
        self.input_tokens += account.get("input_tokens") or 0
        self.output_tokens += account.get("output_tokens") or 0
        cost = account.get("cost_usd")
        if cost is not None:
            self.cost_usd = (self.cost_usd or 0.0) + cost
        return code is not None

    def to_wire(self) -> JSON:
        """JSON-ready form for the batch's own file."""
        return {**asdict(self), "status": self.status.value, "codes": dict(self.codes)}

    @classmethod
    def from_wire(cls, wire: JSON) -> Self:
        """Read what ``to_wire`` wrote."""
        own: dict[str, Any] = {
            **wire,
            "status": Status(wire["status"]),
            "codes": Counter(wire["codes"]),
            "faults": [Fault(**fault) for fault in wire["faults"]],
        }
        return cls(**own)


@dataclass(frozen=True, slots=True)
class Batch:
    """What was asked for. Its end, ``expires_at``, and ``created_at`` are Unix seconds.

    The ids of its result files are chosen beforehand, so that making them twice makes one. The
    input of one that ``grows`` is an evaluation's own, and appended to until it is sealed.
    ``owner`` is the name of the key it came with, if there is one.
    """

    id: str
    input_file_id: str
    endpoint: str
    completion_window: str
    created_ms: int
    expires_at: int
    output_file_id: str
    error_file_id: str
    metadata: dict[str, str] | None = None
    grows: bool = False
    owner: str = ""

    def to_wire(self) -> JSON:
        """JSON-ready form for the batch's own file."""
        return asdict(self)

    def shown(self, progress: Progress) -> JSON:
        """OpenAI's batch object; ``chatd`` in it is ours: the cost, and the errors by code."""
        times = progress.times
        faults = [asdict(fault) for fault in progress.faults]
        used = progress.input_tokens + progress.output_tokens
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": None,
            "errors": {"object": "list", "data": faults} if faults else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": progress.status.value,
            "output_file_id": progress.output_file_id,
            "error_file_id": progress.error_file_id,
            "created_at": self.created_ms // 1000,
            "expires_at": self.expires_at,
            **{name: times.get(name) for name in _TIMES},
            "request_counts": {
                "total": progress.total,
                "completed": progress.completed,
                "failed": progress.failed,
            },
            "usage": {
                "input_tokens": progress.input_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": progress.output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": used,
            },
            "metadata": self.metadata,
            "chatd": {"cost_usd": progress.cost_usd, "errors": dict(progress.codes)},
        }


_TIMES = (
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)
