"""Waiting for the end of a job, on this process's own monotonic clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from api.frontend import FrontEnd
from api.hangup import Watch
from chat.jobs import NewJob, Outcome
from chat.replies import Waiter

__all__ = ["GRACE_S", "admit_again", "await_outcome", "watch_outcome"]

#: Seconds a caller waits beyond the deadline, so that the job's own end is what decides.
GRACE_S = 1.0


def await_outcome(
    front: FrontEnd,
    waiter: Waiter,
    seconds: float,
    watch: Watch | None = None,
    *,
    patience_s: float,
) -> Outcome | None:
    """The job's end; ``None`` after ``seconds``, or as soon as the caller of ``watch`` is gone.

    ``None`` as well when the front end was told to stop and ``patience_s`` seconds are over since.
    """
    until = front.clock() + seconds
    front.stopping.call(waiter.wake)
    try:
        while (left := min(until, front.stopping.until(patience_s)) - front.clock()) > 0:
            outcome = waiter.wait(left)
            if outcome is not None or (watch is not None and watch.gone):
                return outcome
    finally:
        front.stopping.forget(waiter.wake)
    return waiter.outcome


def watch_outcome(
    front: FrontEnd,
    job_id: str,
    seconds: float,
    *,
    patience_s: float = 0.0,
    again: Callable[[Waiter], Callable[[], None]] | None = None,
) -> Outcome | None:
    """The end of a job that was admitted earlier, waiting up to ``seconds`` for it.

    A caller who did not count on the job's end does not hold up the stop of a front end either,
    unless ``patience_s`` says so. ``again`` makes what ``Waiter.again`` is to be. Raises
    ``JobNotFound``.
    """
    connections = front.connections()
    store, replies = connections.store, connections.replies
    with replies.expect(job_id) as waiter:
        channel = replies.channel
        outcome = store.watch(job_id, channel)
        if outcome is None:
            waiter.again = again and again(waiter)
            outcome = await_outcome(front, waiter, seconds, patience_s=patience_s)
            if outcome is None:
                store.unwatch(job_id, channel)
    return outcome


def admit_again(front: FrontEnd, job: NewJob, waiter: Waiter) -> Callable[[], None]:
    """Admits the job of ``waiter`` once more, for the time that is left: Redis has forgotten it."""
    connections = front.connections()
    until = front.clock() + job.timeout_ms / 1000

    def again() -> None:
        left_ms = max(1, math.ceil((until - front.clock()) * 1000))
        admitted = connections.store.admit(
            replace(job, id=waiter.job_id, timeout_ms=left_ms, waits=False), again=True
        )
        if admitted.job_id != waiter.job_id:
            # The same key has come again since, and has a job of its own.
            connections.replies.rename(waiter, admitted.job_id)

    return again
