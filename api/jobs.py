"""Jobs nobody holds a connection for: ``POST /v1/jobs``, records, lists of them, cancellation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from flask import Blueprint, Response, request

from api.access import caller
from api.admission import accepted, read_job
from api.current import notes
from api.events import CompletionEvents, Events, OurEvents
from api.frontend import FrontEnd, front_end
from api.output import json_response
from api.streams import follow_job
from api.waiting import watch_outcome
from chat.errors import InvalidRequest, JobNotFound
from chat.formats.strict_json import place, shown
from chat.jobs import JobRecord, JobState, made_at
from chat.routing import PROVIDERS
from chat.types import JSON, Lane

__all__ = ["EVENT_FORMATS", "MOST_LISTED", "MOST_WAIT_S", "blueprint"]

_Word = TypeVar("_Word", bound=str)

blueprint = Blueprint("jobs", __name__)

#: The most seconds that one long poll waits.
MOST_WAIT_S = 300.0
#: The forms in which events are told.
EVENT_FORMATS = ("chatd", "openai")
#: The most jobs on one page of the list, and how many there are unless ``limit`` says so.
MOST_LISTED = 100
_LISTED = 20
#: Seconds that a cancellation waits for the worker to close its upstream call.
_CANCEL_WAIT_S = 2.0

_FILTERS = ("state", "provider", "lane", "limit", "after")
#: A number as JSON has it.
_SECONDS = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?")
_WHOLE = re.compile(r"[0-9]{1,9}")


@blueprint.post("/v1/jobs")
def submit() -> Response:
    """Admit the job and answer at once; without a lane it is a batch job, since nobody waits."""
    front = front_end()
    job = read_job(front, Lane.BATCH)
    connections = front.connections()
    admitted = connections.store.admit(job, record=True)
    if not admitted.joined:
        connections.replies.remember(job, notes().size)
    return accepted(front, admitted.job_id, record=admitted.record)


@blueprint.get("/v1/jobs")
def show_many() -> Response:
    """The newest jobs that match, one page of them."""
    given = _filters()
    states, provider, lane = given.get("state"), given.get("provider"), given.get("lane")
    store = front_end().connections().store
    page = store.listed(
        states=() if states is None else _each_of("state", states, list(JobState)),
        provider=None if provider is None else _one_of("provider", provider, PROVIDERS),
        lane=None if lane is None else _one_of("lane", lane, list(Lane)),
        owner=caller().sees,
        limit=_limit(given.get("limit", str(_LISTED))),
        after=_after(given.get("after")),
    )
    return json_response({"jobs": [_listed(r) for r in page.records], "next": page.after})


@blueprint.get("/v1/jobs/<job_id>")
def show(job_id: str) -> Response:
    """The record, whatever the state; ``wait`` puts it off until the job is over, or that long.

    A front end that is told to stop answers at once: its successor takes the next question.
    """
    seconds = _wait_s()
    front = _front_of(job_id)
    if seconds > 0:
        watch_outcome(front, job_id, seconds)
    return _record(front, job_id)


@blueprint.get("/v1/jobs/<job_id>/events")
def events(job_id: str) -> Response:
    """The pieces of its answer as they come, then the answer; also when it is over."""
    openai = _format() == "openai"

    def made(record: JobRecord) -> Events:
        if openai:
            return CompletionEvents(record.id, record.model, usage=True)
        return OurEvents(record.id)

    return follow_job(_front_of(job_id), job_id, made)


@blueprint.post("/v1/jobs/<job_id>/cancel")
def cancel(job_id: str) -> Response:
    """Cancel the job; one that is in a call is over as soon as its worker has closed that."""
    front = _front_of(job_id)
    state = front.connections().store.cancel(job_id)
    if not state.terminal:
        watch_outcome(front, job_id, _CANCEL_WAIT_S, patience_s=_CANCEL_WAIT_S)
    return _record(front, job_id)


def _record(front: FrontEnd, job_id: str) -> Response:
    return json_response(front.connections().store.record(job_id).to_wire())


def _listed(record: JobRecord) -> JSON:
    wire = record.to_wire()
    # Left out, not null: null would say that there is no answer.
    del wire["response"]
    if record.error is not None:
        wire["error"] = {name: of for name, of in record.error.items() if name != "partial"}
    return wire


def _front_of(job_id: str) -> FrontEnd:
    """The front end, if the caller may know of the job.

    What cannot be a job id is refused before Redis is asked for it.
    """
    if made_at(job_id) is None:
        raise JobNotFound(
            f"{shown(job_id)} is not a job id; those are job_ and 26 characters, as in the "
            "Location of POST /v1/jobs"
        )
    front = front_end()
    front.connections().store.check_owner(job_id, caller().sees)
    return front


def _wait_s() -> float:
    text = request.args.get("wait", "0")
    if _SECONDS.fullmatch(text) is None or not 0 <= float(text) <= MOST_WAIT_S:
        raise InvalidRequest(
            f"wait is {shown(text)}, but must be a number of seconds from 0 to {MOST_WAIT_S:g}; "
            "ask again for a longer wait",
            param="wait",
        )
    return float(text)


def _format() -> str:
    text = request.args.get("format", EVENT_FORMATS[0])
    if text not in EVENT_FORMATS:
        raise InvalidRequest(
            f"format is {shown(text)}, but must be one of {', '.join(EVENT_FORMATS)}; leave it out "
            f"for {EVENT_FORMATS[0]}",
            param="format",
        )
    return text


def _filters() -> dict[str, str]:
    """The query of a list: a filter that was misspelt must not look as if it had been kept."""
    for name, values in request.args.lists():
        if name not in _FILTERS:
            raise InvalidRequest(
                f"{shown(name)} is not a known parameter; a list of jobs takes "
                f"{', '.join(_FILTERS)}",
                param=place([name]),
            )
        if len(values) > 1:
            raise InvalidRequest(
                f"{name} is given {len(values)} times; give it once (several states are "
                "separated by commas)",
                param=name,
            )
    return request.args.to_dict()


def _each_of(name: str, text: str, known: Sequence[_Word]) -> list[_Word]:
    """Words with commas between them."""
    return [_one_of(name, word, known) for word in text.split(",")]


def _one_of(name: str, text: str, known: Sequence[_Word]) -> _Word:
    for word in known:
        if word == text:
            return word
    raise InvalidRequest(
        f"{name} is {shown(text)}, but must be one of {', '.join(known)}; leave it out for all",
        param=name,
    )


def _limit(text: str) -> int:
    if _WHOLE.fullmatch(text) is None or not 1 <= int(text) <= MOST_LISTED:
        raise InvalidRequest(
            f"limit is {shown(text)}, but must be a whole number from 1 to {MOST_LISTED}; "
            "ask for more with after, which takes the next of this page",
            param="limit",
        )
    return int(text)


def _after(text: str | None) -> str | None:
    if text is not None and made_at(text) is None:
        raise InvalidRequest(
            f"after is {shown(text)}, but must be a job id; take the next of the page before, "
            "or leave it out to begin with the newest job",
            param="after",
        )
    return text
