"""What Redis has of a job, read into values."""

from __future__ import annotations

import json

from chat.errors import InvalidRequest
from chat.jobs import Attempt, JobRecord, JobState, NewJob, Outcome, rfc3339
from chat.types import JSON, Billed, Lane

__all__ = ["new_record", "outcome_of", "record_of", "waiting_of"]


def outcome_of(meta: str | None) -> Outcome | None:
    """The end of a job as its Celery result has it; ``None`` when there is none."""
    return Outcome.from_meta(json.loads(meta)) if meta else None


def record_of(
    job_id: str,
    fields: dict[str, str],
    outcome: Outcome | None,
    place: list[str | int] | None = None,
) -> JobRecord:
    """A record from the fields of its hash, its end, and ``place.lua``'s answer."""
    if "state" not in fields:
        raise InvalidRequest(f"job {job_id}: its record is incomplete")
    attempts = tuple(
        _attempt(json.loads(fields[f"a:{number}"]))
        for number in range(1, int(fields.get("attempts", 0)) + 1)
    )
    return JobRecord(
        id=job_id,
        state=JobState(fields["state"]),
        lane=Lane(fields["lane"]),
        model=fields["model"],
        provider=fields["provider"],
        upstream_model=fields["upstream_model"],
        created_at=int(fields["created"]),
        deadline_at=int(fields["deadline"]),
        attempts=attempts,
        response=outcome.response if outcome else None,
        error=outcome.error if outcome else None,
        waiting=waiting_of(place),
        metadata=json.loads(fields["metadata"]),
        owner=fields.get("owner", ""),
    )


def new_record(
    job: NewJob, created: str, deadline: str, state: str, place: list[str | int]
) -> JobRecord:
    """The record of a job that has just been admitted, from what only ``admit.lua`` knows of it."""
    return JobRecord(
        id=job.id,
        state=JobState(state),
        lane=job.lane,
        model=job.request.model,
        provider=job.provider,
        upstream_model=job.upstream_model,
        created_at=int(created),
        deadline_at=int(deadline),
        attempts=(),
        response=None,
        error=None,
        waiting=waiting_of(place),
        metadata=job.metadata,
        owner=job.owner,
    )


def waiting_of(place: list[str | int] | None) -> JSON | None:
    """What a job waits for: why, until when, its place, and when its turn may come."""
    if place is None:
        return None
    why, until, position, begins = place
    return {
        "reason": why,
        "until": rfc3339(int(float(until))) if until else None,
        "position": position or None,
        "estimated_start_at": rfc3339(int(float(begins))) if begins else None,
    }


def _attempt(wire: JSON) -> Attempt:
    billed = wire.get("billed")
    return Attempt(
        number=wire["number"],
        worker=wire["worker"],
        started_at=wire["started_at"],
        ended_at=wire.get("ended_at"),
        outcome=wire.get("outcome"),
        upstream_status=wire.get("upstream_status"),
        billed=None if billed is None else Billed(billed),
    )
