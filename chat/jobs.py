"""A job: one chat request on its way through the queue, and the record that is its truth."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

from chat.errors import ChatError, error_from_wire
from chat.types import JSON, Billed, ChatRequest, Delta, Lane

__all__ = [
    "ID_CHARACTERS",
    "TASK_NAME",
    "Attempt",
    "Ending",
    "JobRecord",
    "JobState",
    "NewJob",
    "Outcome",
    "Piece",
    "is_id",
    "made_at",
    "new_id",
    "new_job_id",
    "new_token",
    "queue_name",
    "rfc3339",
]

#: The one Celery task: it takes no argument, its task id is the job id.
TASK_NAME = "chatd.run_job"

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
#: Two characters for each ten bits.
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
#: A regular expression for what stands behind the prefix of an id.
ID_CHARACTERS = "[0-9a-hjkmnp-tv-z]{26}"


def new_id(prefix: str, milliseconds: int | None = None, chance: bytes | None = None) -> str:
    """``prefix`` and 26 characters that sort by time: 48 bits of milliseconds, 80 bits of chance.

    Whoever gives both gets the same id each time.
    """
    if milliseconds is None:
        milliseconds = time.time_ns() // 1_000_000
    number = milliseconds << 80 | int.from_bytes(os.urandom(10) if chance is None else chance[:10])
    return prefix + "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def is_id(prefix: str, text: str) -> bool:
    """Whether ``text`` has the form of what ``new_id`` makes with that prefix."""
    return re.fullmatch(prefix + ID_CHARACTERS, text) is not None


def new_job_id() -> str:
    """``job_`` and 26 characters that sort by time."""
    return new_id("job_")


def made_at(job_id: str) -> int | None:
    """When an id was made, in ms since the epoch; ``None`` for what is no job id.

    By the clock of who made it: it may lie in the future.
    """
    if not is_id("job_", job_id):
        return None
    # The first ten of 26 characters have the 48 bits of time, and two that are always 0.
    milliseconds = 0
    for character in job_id[4:14]:
        milliseconds = milliseconds << 5 | _ALPHABET.index(character)
    return milliseconds


def new_token() -> str:
    """A fencing token: whoever holds the newest one owns the attempt."""
    return os.urandom(12).hex()


def queue_name(provider: str, lane: Lane) -> str:
    """The Celery queue of a provider's lane: ``chat.<provider>`` or ``chat.<provider>.batch``."""
    return f"chat.{provider}" if lane is Lane.INTERACTIVE else f"chat.{provider}.batch"


def rfc3339(milliseconds: int) -> str:
    """A stored Redis time (ms since the epoch) as ``2026-11-22T15:04:05.123Z``."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JobState(StrEnum):
    """Where a job stands. The last four never change."""

    QUEUED = "queued"
    WAITING = "waiting"
    CALLING = "calling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        """Whether the job is over."""
        return self in _TERMINAL


_TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})


@dataclass(slots=True)
class NewJob:
    """What the front end hands to ``JobStore.admit``; who waits for it is filled in last.

    ``timeout_ms`` is the job's deadline counted from admission by Redis' clock. ``reply_to`` is
    the channel of the process that waits, or ``None``. ``waits`` is true when a caller waits, so
    that a job of a provider without a live worker (``NoWorker``) or of a drained one (``Draining``)
    is refused rather than queued. ``owner`` is the name of the key it came with, if there is one.
    """

    id: str
    request: ChatRequest
    provider: str
    upstream_model: str
    lane: Lane
    timeout_ms: int
    metadata: dict[str, str] = field(default_factory=dict)
    reply_to: str | None = None
    waits: bool = False
    idempotency_key: str | None = None
    body_hash: str | None = None
    request_id: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How one call ended: everything ``JobStore.finish`` needs, and nothing of the request.

    ``payload`` is the response, or the error when it failed; ``record`` what ``start`` handed out.
    ``signal`` is what the budget learns (``chat.retry.Signal``), ``retry_after_s`` when the
    upstream wants to be asked again, ``chance`` a number from 0 to 1. With ``again_after_s`` the
    job is to be tried again after that back-off, for the reason ``again_why``, if that is before
    its deadline. ``counts_as`` says among which attempts this one counts: ``refused``,
    ``answered``, ``unknown``, or none.
    """

    job_id: str
    token: str
    record: str
    provider: str
    worker: str
    state: str
    payload: JSON
    outcome: str
    upstream_status: int | None
    billed: str
    signal: str = ""
    retry_after_s: float | None = None
    chance: float = 0.0
    input_tokens: int | None = None
    output_tokens: int | None = None
    again_after_s: float | None = None
    again_why: str = ""
    counts_as: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a call's answer on its way to whoever reads it; ``number`` counts from 1."""

    job_id: str
    token: str
    attempt: int
    number: int
    delta: Delta


@dataclass(frozen=True, slots=True)
class Attempt:
    """One upstream call as the ledger has it; times in ms since the epoch by Redis' clock."""

    number: int
    worker: str
    started_at: int
    ended_at: int | None
    outcome: str | None
    upstream_status: int | None
    billed: Billed | None

    def to_wire(self) -> JSON:
        """The attempt as the HTTP record shows it."""
        return {
            "number": self.number,
            "worker": self.worker,
            "started_at": rfc3339(self.started_at),
            "ended_at": None if self.ended_at is None else rfc3339(self.ended_at),
            "outcome": self.outcome,
            "upstream_status": self.upstream_status,
            "billed": None if self.billed is None else self.billed.value,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: an answer or an error, as JSON-ready dictionaries."""

    job_id: str
    state: JobState
    response: JSON | None
    error: JSON | None

    @classmethod
    def from_meta(cls, meta: JSON) -> Self:
        """Read the Celery result that ``finish`` wrote (``celery-task-meta-<id>``)."""
        result = meta["result"]
        return cls(
            job_id=meta["task_id"],
            state=JobState(result["state"]),
            response=result["response"],
            error=result["error"],
        )

    def raise_error(self) -> None:
        """Raise the job's own error, rebuilt by code, if it ended in one."""
        if self.error is not None:
            error: ChatError = error_from_wire({**self.error, "job_id": self.job_id})
            raise error


@dataclass(frozen=True, slots=True)
class JobRecord:
    """Everything a person may ask about a job."""

    id: str
    state: JobState
    lane: Lane
    model: str
    provider: str
    upstream_model: str
    created_at: int
    deadline_at: int
    attempts: tuple[Attempt, ...]
    response: JSON | None
    error: JSON | None
    waiting: JSON | None
    metadata: dict[str, str]
    owner: str = ""

    def to_wire(self) -> JSON:
        """The record as the HTTP API shows it; times are RFC 3339."""
        return {
            "id": self.id,
            "state": self.state.value,
            "lane": self.lane.value,
            "model": self.model,
            "provider": self.provider,
            "upstream_model": self.upstream_model,
            "created_at": rfc3339(self.created_at),
            "deadline_at": rfc3339(self.deadline_at),
            "attempts": [attempt.to_wire() for attempt in self.attempts],
            "response": self.response,
            "error": self.error,
            "waiting": self.waiting,
            "metadata": self.metadata,
            "owner": self.owner or None,
        }
