"""Which job a stream is of, and for how long: one that begins with it, or any other."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from flask import Response

from api.admission import naming
from api.current import notes, this_request
from api.events import Events
from api.frontend import FrontEnd
from api.headers import NOTHING, Position, last_event
from api.streaming import Stream, Terms
from api.waiting import GRACE_S, admit_again
from chat.errors import Draining, InvalidRequest, QueueUnavailable, ResultExpired
from chat.follower import Follower
from chat.jobs import JobRecord, NewJob, Outcome
from chat.replies import Waiter

__all__ = ["follow_job", "stream_job"]


def stream_job(
    front: FrontEnd,
    job: NewJob,
    events: Callable[[str], Events],
    handed_over: Callable[[FrontEnd, str], Response],
) -> Response:
    """Admit ``job``, or join the one of its key, and answer with its events, made by its id.

    ``handed_over`` answers a caller who has been told nothing of a job that goes on while this
    front end stops. What goes wrong before the first event is raised.
    """
    had = last_event(this_request().headers)
    if had != NOTHING and job.idempotency_key is None:
        raise InvalidRequest(
            "Last-Event-ID says that the answer had begun, but without its Idempotency-Key nobody "
            "knows which: send that too, or go on with GET /v1/jobs/{job_id}/events",
            param="Last-Event-ID",
        )
    connections = front.connections()
    store, replies = connections.store, connections.replies
    with ExitStack() as held:
        waiter = held.enter_context(replies.expect(job.id))
        job.reply_to, job.waits = replies.channel, True
        waiter.follower = Follower(partial(store.events, job.id))
        admitted = store.admit(job)
        job_id = admitted.job_id
        if admitted.joined:
            waiter.follower = _follower(front, job_id, had, over=admitted.outcome is not None)
            if admitted.outcome is None:
                with naming(job_id):
                    replies.rename(waiter, job_id)
            else:
                waiter.deliver(admitted.outcome)
        elif had != NOTHING:
            store.cancel(job_id)
            raise ResultExpired(
                "Last-Event-ID says that the answer had begun, but there is no record of the job "
                "of this Idempotency-Key any more; send the request without Last-Event-ID"
            )
        _check_position(had, waiter.outcome)
        if admitted.outcome is None:
            waiter.again = admit_again(front, job, waiter)
        terms = Terms(
            job_id,
            job.timeout_ms / 1000 + GRACE_S,
            patience_s=front.config.drain_s,
            # Whoever sent a key means to come back with it: hanging up then cancels nothing.
            cancels=job.idempotency_key is None,
            had=had,
        )
        stream = Stream(front, waiter, events(job_id), terms, held.pop_all())
    try:
        return _answer(stream, job_id)
    except Draining:
        return handed_over(front, job_id)


def follow_job(front: FrontEnd, job_id: str, events: Callable[[JobRecord], Events]) -> Response:
    """The events of a job that was admitted earlier; leaving them changes nothing about it."""
    had = last_event(this_request().headers)
    connections = front.connections()
    store, replies = connections.store, connections.replies
    with ExitStack() as held:
        record = store.record(job_id)
        waiter = held.enter_context(replies.expect(job_id))
        # Before Redis is asked to tell them: it may tell the first at once.
        waiter.follower = _follower(front, job_id, had, over=record.state.terminal)
        channel = replies.channel
        outcome = store.watch(job_id, channel)
        if outcome is None and record.state.terminal:
            outcome = Outcome(job_id, record.state, record.response, record.error)
        if outcome is None:
            held.callback(_unwatch, front, waiter, job_id, channel)
        else:
            waiter.deliver(outcome)
        _check_position(had, waiter.outcome)
        left_s = (record.deadline_at - time.time_ns() // 1_000_000) / 1000
        # It did not count on the job's end, so it does not hold up the stop of a front end.
        terms = Terms(job_id, max(0.0, left_s) + GRACE_S, patience_s=0.0, cancels=False, had=had)
        stream = Stream(front, waiter, events(record), terms, held.pop_all())
    return _answer(stream, job_id)


def _answer(stream: Stream, job_id: str) -> Response:
    noted = notes()
    if this_request().method != "HEAD":
        try:
            stream.begin()
        except BaseException:
            stream.close()
            raise
    noted.job_id = job_id
    headers = {"X-Chatd-Job-Id": job_id, "X-Accel-Buffering": "no"}
    return Response(
        stream, headers=headers, content_type="text/event-stream", direct_passthrough=True
    )


def _follower(front: FrontEnd, job_id: str, had: Position, *, over: bool) -> Follower:
    """For a job whose pieces may have begun; of one that is over, all is in its answer."""
    return Follower(
        partial(front.connections().store.events, job_id),
        had.piece,
        begun=not over or (had != NOTHING and had.ends == 0),
        ended=had.rest > 0,
    )


def _check_position(had: Position, outcome: Outcome | None) -> None:
    if outcome is None and (had.rest > 0 or had.ends > 0):
        raise InvalidRequest(
            "Last-Event-ID is that of an event after the end of the job, which is not over; send "
            "the id of the last event of this job",
            param="Last-Event-ID",
        )


def _unwatch(front: FrontEnd, waiter: Waiter, job_id: str, channel: str) -> None:
    if waiter.outcome is None:
        try:
            front.connections().store.unwatch(job_id, channel)
        except QueueUnavailable:
            # The channel is told of a job that nobody here follows, up to its end.
            return
