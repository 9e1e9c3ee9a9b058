"""``POST /v1/chat``, a chat that waits for its answer, and ``GET /v1/chat/providers``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from flask import Blueprint, Response

from api.admission import accepted, job_path, naming, read_job
from api.current import notes, this_request
from api.events import Events, OurEvents
from api.frontend import FrontEnd, front_end
from api.hangup import Watch, client_socket
from api.headers import RESPOND_ASYNC, Preference
from api.output import json_response
from api.streams import stream_job
from api.waiting import GRACE_S, admit_again, await_outcome, watch_outcome
from chat.errors import DeadlineExceeded, JobCancelled, ResultExpired
from chat.jobs import NewJob, Outcome
from chat.replies import Waiter
from chat.store import Admitted
from chat.types import JSON, Lane

__all__ = ["answer_job", "blueprint"]

blueprint = Blueprint("chat", __name__)

_Format = Callable[[str, JSON], JSON]
_Streamed = Callable[[str], Events]
_HandOver = Callable[[FrontEnd, str], Response]

#: Seconds after which a caller who is handed a job's id is to ask for its end.
_COME_BACK_S = 1


@blueprint.post("/v1/chat")
def chat() -> Response:
    """Admit the job and wait for its end, as long as the caller prefers."""
    front = front_end()
    job = read_job(front, Lane.INTERACTIVE)
    return answer_job(front, job, _in_our_format, OurEvents, _handed_over)


@blueprint.get("/v1/chat/providers")
def providers() -> Response:
    """The registered providers and their budgets, what waits for each, and counts of all jobs."""
    front = front_end()
    overview = front.connections().store.overview(front.names.names)
    return json_response({"default": front.names.default, **overview})


def answer_job(
    front: FrontEnd,
    job: NewJob,
    formatted: _Format,
    streamed: _Streamed,
    handed_over: _HandOver,
) -> Response:
    """Admit ``job`` and answer as the caller prefers: with its end, or with 202 before that.

    ``formatted`` makes the body of a job's id and its answer, ``streamed`` the events of its id.
    ``handed_over`` answers a caller who waited for the end, of a job that goes on while this front
    end stops. The job's own error is raised.
    """
    preference = Preference.from_headers(this_request().headers)
    if job.request.stream and preference.applied != RESPOND_ASYNC:
        return stream_job(front, job, streamed, handed_over)
    if preference.wait_s is None:
        ended = _until_the_end(front, job)
        if isinstance(ended, str):
            return handed_over(front, ended)
        return _answer(front, ended, formatted)
    outcome = _for_a_while(front, job, preference.wait_s)
    if isinstance(outcome, Admitted):
        return accepted(front, outcome.job_id, preference.applied, outcome.record)
    response = _answer(front, outcome, formatted)
    if preference.applied is not None:
        response.headers["Preference-Applied"] = preference.applied
    return response


def _in_our_format(job_id: str, answer: JSON) -> JSON:
    return {"id": job_id, **answer}


def _handed_over(front: FrontEnd, job_id: str) -> Response:
    """202 as for a caller who did not want to wait; the next front end knows the job as well."""
    response = accepted(front, job_id)
    response.headers["Retry-After"] = str(_COME_BACK_S)
    return response


def _for_a_while(front: FrontEnd, job: NewJob, seconds: float) -> Outcome | Admitted:
    """Wait up to ``seconds``, then leave the job to itself; it is kept as long as any job.

    Returns its end, or the job while it has none or nobody wanted to wait.
    """
    connections = front.connections()
    admitted = connections.store.admit(job, record=seconds == 0)
    if not admitted.joined:
        connections.replies.remember(job, notes().size)
    outcome = admitted.outcome
    if outcome is None and seconds > 0:
        most = job.timeout_ms / 1000 + GRACE_S
        with naming(admitted.job_id):
            outcome = watch_outcome(
                front,
                admitted.job_id,
                min(seconds, most),
                again=lambda waiter: admit_again(front, job, waiter),
            )
    return admitted if outcome is None or seconds == 0 else outcome


def _until_the_end(front: FrontEnd, job: NewJob) -> Outcome | str:
    """Wait until the job is over; give up a second after its deadline.

    Returns its end, or its id when the front end stops and has waited ``drain_s`` for that. Raises
    ``JobCancelled`` when the caller hung up, ``DeadlineExceeded`` when a call is still out.
    """
    connections = front.connections()
    store, replies = connections.store, connections.replies
    seconds = job.timeout_ms / 1000
    with replies.expect(job.id) as waiter:
        job.reply_to, job.waits = replies.channel, True
        admitted = store.admit(job)
        if admitted.outcome is not None:
            return admitted.outcome
        if admitted.joined:
            replies.rename(waiter, admitted.job_id)
        waiter.again = admit_again(front, job, waiter)
        # Whoever sent a key means to come back with it: hanging up then cancels nothing.
        with _watched(front, waiter, cancels=job.idempotency_key is None) as watch:
            outcome = await_outcome(
                front, waiter, seconds + GRACE_S, watch, patience_s=front.config.drain_s
            )
    if outcome is not None:
        return outcome
    if watch is not None and watch.gone:
        with naming(waiter.job_id):
            store.cancel(waiter.job_id)
        raise JobCancelled("the caller hung up before the answer", job_id=waiter.job_id)
    if front.clock() >= front.stopping.until(front.config.drain_s):
        return waiter.job_id
    with naming(waiter.job_id):
        outcome = store.expire(waiter.job_id)
    if outcome is None:
        raise DeadlineExceeded(
            f"job {waiter.job_id} had no answer within timeout_s = {seconds:g} and its upstream "
            f"call is still being closed; GET {job_path(waiter.job_id)} tells how it ended",
            job_id=waiter.job_id,
            provider=job.provider,
        )
    return outcome


def _watched(
    front: FrontEnd, waiter: Waiter, *, cancels: bool
) -> AbstractContextManager[Watch | None]:
    connection = client_socket(this_request().environ)
    if connection is None or not cancels:
        return nullcontext()
    return front.connections().hangups.watch(connection, waiter.wake)


def _answer(front: FrontEnd, outcome: Outcome, formatted: _Format) -> Response:
    """200 with the answer; the job's own error is raised."""
    outcome.raise_error()
    if outcome.response is None:
        raise ResultExpired(
            f"job {outcome.job_id} is over, but its answer is no longer kept; ask again",
            job_id=outcome.job_id,
        )
    answer = outcome.response
    queue_ms, upstream_ms = answer["queue_ms"], answer["latency_ms"]
    noted = notes()
    noted.job_id = outcome.job_id
    gateway_ms = max(0.0, (front.clock() - noted.started) * 1000 - queue_ms - upstream_ms)
    return json_response(
        formatted(outcome.job_id, answer),
        headers={
            "Server-Timing": f"queue;dur={queue_ms}, upstream;dur={upstream_ms}, "
            f"gateway;dur={gateway_ms:.1f}",
            "X-Chatd-Job-Id": outcome.job_id,
        },
    )
