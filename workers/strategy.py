"""From a wake-up straight to the pool.

Celery makes a request object of each message, sends signals and traces the task. None of that has
anybody who listens in chatd, and it costs more than the rest of the receiving. A strategy is where
Celery lets a task decide how its messages become calls.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from celery.worker.strategy import default

from workers.app import envelope

__all__ = ["plain_first"]

_log = logging.getLogger(__name__)

#: What differs from one wake-up to the next.
_OWN = {"id": None, "root_id": None}


def plain_first(task: Any, app: Any, consumer: Any) -> Callable[..., object]:
    """What Celery calls with each message of ``task``, whose ``wake`` says what to do with it.

    A message that is the envelope of ``admit`` in everything but its job is plain: ``wake(job_id,
    queue)`` is called in the pool, and false gives the message back to its queue. Everything else
    (a due time, an argument, another Celery's headers) goes down Celery's own path.
    """
    usual = default(task, app, consumer)
    wake, pool, errors = task.wake, consumer.pool, consumer.connection_errors
    template = json.loads(envelope(app, "any"))
    headers = {**template["headers"], **_OWN}
    body, kind = template["body"], template["content-type"]

    def handle(message: Any, decoded: object, ack: Any, reject: Any, callbacks: Any) -> object:
        raw = message._raw
        if (
            callbacks
            or {**message.headers, **_OWN} != headers
            or (raw["body"], message.content_type) != (body, kind)
        ):
            return usual(message, decoded, ack, reject, callbacks)

        def settle(done: bool) -> None:  # noqa: FBT001 - the pool's callback
            if done:
                ack(_log, errors)
            else:
                reject(_log, errors, True)  # noqa: FBT003 - as Celery calls it: requeue

        job_id, queue = message.headers["id"], message.delivery_info["routing_key"]
        return pool.apply_async(_woken, (wake, job_id, queue), callback=settle)

    return handle


def _woken(wake: Callable[[str, str], bool], job_id: str, queue: str) -> bool:
    try:
        return wake(job_id, queue)
    except Exception:  # noqa: BLE001 - a message that is not settled would hold its slot for ever
        _log.exception("job %s: its wake-up failed in an unforeseen way", job_id)
        return True
