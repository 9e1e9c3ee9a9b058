"""Waiting for the end of a job, on this process's own monotonic clock."""

from __future__ import annotations

from api.frontend import FrontEnd
from api.hangup import Watch
from chat.jobs import Outcome
from chat.replies import Waiter

__all__ = ["await_outcome", "watch_outcome"]


def await_outcome(
    front: FrontEnd, waiter: Waiter, seconds: float, watch: Watch | None = None
) -> Outcome | None:
    """The job's end; ``None`` after ``seconds``, or as soon as the caller of ``watch`` is gone."""
    until = front.clock() + seconds
    while (remaining := until - front.clock()) > 0:
        outcome = waiter.wait(remaining)
        if outcome is not None or (watch is not None and watch.gone):
            return outcome
    return waiter.outcome


def watch_outcome(front: FrontEnd, job_id: str, seconds: float) -> Outcome | None:
    """The end of a job that was admitted earlier, waiting up to ``seconds`` for it.

    Raises ``JobNotFound``.
    """
    connections = front.connections()
    store, replies = connections.store, connections.replies
    with replies.expect(job_id) as waiter:
        channel = replies.channel
        outcome = store.watch(job_id, channel)
        if outcome is None:
            outcome = await_outcome(front, waiter, seconds)
            if outcome is None:
                store.unwatch(job_id, channel)
    return outcome
