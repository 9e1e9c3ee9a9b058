"""The threads of a worker: each waits for a job and runs it, with nothing around them.

Celery's own thread pool makes a future of each job, with a condition for whoever waits for its
result, and counts its idle threads under a lock. Nobody waits for a job here, which cost as much as
the rest of the way from the message to its thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any

from celery.concurrency.base import BasePool, apply_target

__all__ = ["TaskPool"]

_log = logging.getLogger(__name__)


class TaskPool(BasePool):  # type: ignore[misc]  # Celery has no types
    """At most ``limit`` threads, started as they are needed; for greenlets, which share a counter.

    A stop waits for the jobs that were handed over, all of them.
    """

    body_can_be_buffer = True
    signal_safe = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unfinished = 0

    def hand_over(self, job: Callable[[], object]) -> None:
        """Have ``job`` run by the next free thread."""
        self._unfinished += 1
        if len(self._threads) < min(self._unfinished, self.limit):
            # A daemon, so that a process that ends in an error is not kept by those that are idle.
            name = f"job-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:  # noqa: BLE001 - the thread is needed for other jobs
                _log.exception("a job failed in an unforeseen way")
            self._unfinished -= 1

    def on_apply(
        self,
        target: Callable[..., object],
        args: Sequence[object] | None = None,
        kwargs: Mapping[str, object] | None = None,
        callback: Callable[..., object] | None = None,
        accept_callback: Callable[..., object] | None = None,
        **_: object,
    ) -> None:
        """What Celery's own way does with a message."""
        self.hand_over(partial(apply_target, target, args, kwargs, callback, accept_callback))

    def on_stop(self) -> None:
        """Wait until every job has ended."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def on_terminate(self) -> None:
        """The same: a call that was paid for is not dropped, and ends with its lease renewed."""
        self.on_stop()
