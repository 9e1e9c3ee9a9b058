"""Jobs nobody holds a connection for: ``POST /v1/jobs``, its record, and its cancellation."""

from __future__ import annotations

import re

from flask import Blueprint, Response, request

from api.admission import accepted, read_job
from api.body import shown
from api.frontend import FrontEnd, front_end
from api.output import json_response
from api.waiting import watch_outcome
from chat.errors import InvalidRequest, JobNotFound
from chat.types import Lane

__all__ = ["MOST_WAIT_S", "blueprint"]

blueprint = Blueprint("jobs", __name__)

#: The most seconds that one long poll waits.
MOST_WAIT_S = 300.0
#: Seconds that a cancellation waits for the worker to close its upstream call.
_CANCEL_WAIT_S = 2.0

_JOB_ID = re.compile(r"job_[0-9a-hjkmnp-tv-z]{26}")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


@blueprint.post("/v1/jobs")
def submit() -> Response:
    """Admit the job and answer at once; without a lane it is a batch job, since nobody waits."""
    front = front_end()
    job = read_job(front, Lane.BATCH)
    admitted = front.connections().store.admit(job)
    return accepted(front, admitted.job_id)


@blueprint.get("/v1/jobs/<job_id>")
def show(job_id: str) -> Response:
    """The record, whatever the state; ``wait`` puts it off until the job is over, or that long."""
    _check_id(job_id)
    seconds = _wait_s()
    front = front_end()
    if seconds > 0:
        watch_outcome(front, job_id, seconds)
    return _record(front, job_id)


@blueprint.post("/v1/jobs/<job_id>/cancel")
def cancel(job_id: str) -> Response:
    """Cancel the job; one that is in a call is over as soon as its worker has closed that."""
    _check_id(job_id)
    front = front_end()
    state = front.connections().store.cancel(job_id)
    if not state.terminal:
        watch_outcome(front, job_id, _CANCEL_WAIT_S)
    return _record(front, job_id)


def _record(front: FrontEnd, job_id: str) -> Response:
    return json_response(front.connections().store.record(job_id).to_wire())


def _check_id(job_id: str) -> None:
    """Refuse what cannot be a job id before Redis is asked for it."""
    if _JOB_ID.fullmatch(job_id) is None:
        raise JobNotFound(
            f"{shown(job_id)} is not a job id; those are job_ and 26 characters, as in the "
            "Location of POST /v1/jobs"
        )


def _wait_s() -> float:
    text = request.args.get("wait", "0")
    if _SECONDS.fullmatch(text) is None or float(text) > MOST_WAIT_S:
        raise InvalidRequest(
            f"wait is {shown(text)}, but must be a number of seconds from 0 to {MOST_WAIT_S:g}; "
            "ask again for a longer wait",
            param="wait",
        )
    return float(text)
