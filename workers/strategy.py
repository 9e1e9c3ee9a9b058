"""From a wake-up straight to the pool.

kombu reads the JSON of each message and makes a message object of it; Celery makes a request object
of that, sends signals and traces the task. None of that has anybody who listens in chatd, and it
costs more than the rest of the receiving. A strategy is where Celery lets a task decide how its
messages become calls, and this one has the channel ask first.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.worker.strategy import default

from workers.app import envelope

__all__ = ["Shape", "plain_first"]

_log = logging.getLogger(__name__)

_MARK = re.compile("(@JOB@|@TAG@)")


class Shape:
    """The text of a queue's wake-ups, which differ in job and delivery tag and in nothing else."""

    def __init__(self, template: str) -> None:
        parts = _MARK.split(template)
        self._before, self._after = parts[:-1:2], parts[-1]
        self._begins = len(parts[0])
        #: Read from left to right: the job wherever it stands, and the tag last.
        self._known = parts[1::2] == ["@JOB@"] * (len(self._before) - 1) + ["@TAG@"]

    def read(self, text: str) -> tuple[str, str] | None:
        """Job and tag of a wake-up; ``None`` for anything that differs in one character."""
        job_id = text[self._begins : text.find('"', self._begins)]
        before = job_id.join(self._before)
        tag = text[len(before) : -len(self._after)]
        if (
            self._known
            and text.startswith(before)
            and text.endswith(self._after)
            and tag
            and '"' not in tag
            and "\\" not in job_id
        ):
            return job_id, tag
        return None


def plain_first(task: Any, app: Any, consumer: Any) -> Callable[..., object]:
    """What Celery calls with each message of ``task``, whose ``wake`` says what to do with it.

    A message that is the envelope of ``admit`` in everything but its job never becomes one:
    ``wake(job_id, queue)`` is called in the pool, and false gives the message back to its queue.
    Everything else (a due time, an argument, another Celery's headers) goes down Celery's own path.
    """
    wake, pool = task.wake, consumer.pool
    channel = consumer.connection.default_channel
    qos, errors = channel.qos, consumer.connection_errors
    shapes = {queue: Shape(envelope(app, queue)) for queue in app.amqp.queues.consume_from}

    def take(queue: str, text: str) -> bool:
        read = shapes[queue].read(text)
        if read is None:
            return False
        job_id, tag = read
        qos.hold(tag, queue, text)
        pool.hand_over(partial(run, job_id, queue, tag))
        return True

    def run(job_id: str, queue: str, tag: str) -> None:
        try:
            done = wake(job_id, queue)
        except Exception:  # noqa: BLE001 - a message that is not settled would hold its slot for ever
            _log.exception("job %s: its wake-up failed in an unforeseen way", job_id)
            done = True
        if done:
            qos.ack(tag)
        else:
            consumer.call_soon(give_back, tag)

    def give_back(tag: str) -> None:
        try:
            qos.reject(tag, requeue=True)
        except errors as error:
            _log.error("a wake-up cannot be given back: %s", error)

    channel.takes = take
    return default(task, app, consumer)  # type: ignore[no-any-return]
