"""Batch objects as ``GET /v1/batches/<id>`` answers them."""

from __future__ import annotations

from chat.types import JSON
from cli.batch_object import Batch

__all__ = ["ID", "batch", "batch_object"]

ID = "batch_01m8227xyar66hq8dy5xzxkdnc"

_OBJECT: JSON = {
    "id": ID,
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "errors": None,
    "input_file_id": "file_in",
    "completion_window": "24h",
    "status": "in_progress",
    "output_file_id": None,
    "error_file_id": None,
    "created_at": 1_795_000_000,
    "in_progress_at": 1_795_000_002,
    "expires_at": 1_795_086_400,
    "finalizing_at": None,
    "completed_at": None,
    "failed_at": None,
    "expired_at": None,
    "cancelling_at": None,
    "cancelled_at": None,
    "request_counts": {"total": 0, "completed": 0, "failed": 0},
    "metadata": None,
    "usage": None,
    "chatd": {"cost_usd": None, "errors": {}},
}

#: What the end of a batch sets besides its status.
_ENDS: dict[str, JSON] = {
    "completed": {"output_file_id": "file_out", "completed_at": 1_795_000_725},
    "failed": {"failed_at": 1_795_000_003, "in_progress_at": None},
    "expired": {"output_file_id": "file_out", "expired_at": 1_795_086_402},
    "cancelled": {"output_file_id": "file_out", "cancelled_at": 1_795_000_009},
}


def batch_object(
    status: str = "in_progress",
    completed: int = 0,
    failed: int = 0,
    total: int = 100,
    *,
    chatd: JSON | None = None,
    **fields: object,
) -> JSON:
    """A batch of ``total`` items with that state; ``fields`` are put over it."""
    return {
        **_OBJECT,
        "status": status,
        **_ENDS.get(status, {}),
        "request_counts": {"total": total, "completed": completed, "failed": failed},
        "chatd": {**_OBJECT["chatd"], **(chatd or {})},
        **fields,
    }


def batch(*arguments: object, **fields: object) -> Batch:
    """The same as a value."""
    return Batch.from_wire(batch_object(*arguments, **fields))  # type: ignore[arg-type]
