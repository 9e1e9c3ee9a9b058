"""Running one job: permit, upstream call, outcome. Plain Python, no Celery."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from chat.errors import (
    ChatError,
    DeadlineExceeded,
    JobCancelled,
    QueueUnavailable,
    UpstreamTimeout,
)
from chat.jobs import JobState, new_token
from chat.registry import Route
from chat.store import Grant
from chat.types import JSON, Billed, ChatResponse, Deadline
from workers.orphans import Ending, Orphans

if TYPE_CHECKING:
    from chat.registry import Registry
    from chat.store import JobStore
    from workers.calls import Calls

__all__ = ["Runner"]

_log = logging.getLogger(__name__)

#: Seconds between two tries to get a permit.
_PERMIT_S = 0.05
#: Seconds past a job's deadline for which its outcome is offered to Redis before it goes to disk.
_FINISH_GRACE_S = 60.0


class Runner:
    """What a worker thread does with a wake-up."""

    def __init__(  # noqa: PLR0913 - the parts of a worker meet here and nowhere else
        self,
        *,
        store: JobStore,
        registry: Registry,
        calls: Calls,
        orphans: Orphans,
        provider: str,
        worker: str,
        permits: int,
        timeout_s: float,
        stopping: threading.Event,
    ) -> None:
        self._store = store
        self._registry = registry
        self._calls = calls
        self._orphans = orphans
        self._provider = provider
        self._worker = worker
        self._permits = permits
        self._timeout_s = timeout_s
        self._stopping = stopping

    def run(self, job_id: str) -> bool:
        """Run a job to its end. False: this worker is stopping, and the wake-up goes back."""
        grant = self._take(job_id)
        if isinstance(grant, Grant):
            self._call(grant)
            return True
        return grant is not None

    def _take(self, job_id: str) -> Grant | str | None:
        """A grant, why there is nothing to do, or ``None`` because this worker is stopping.

        The token stays the same through every try, so that a grant whose reply was lost in an
        outage is found again instead of being taken for a lost call.
        """
        token = new_token()
        pause = _PERMIT_S
        while not self._stopping.is_set():
            try:
                answer = self._store.start(
                    job_id, worker=self._worker, token=token, permits=self._permits
                )
            except QueueUnavailable as error:
                _log.warning("job %s waits for Redis: %s", job_id, error)
                pause = min(2.0, pause * 2)
            else:
                if answer != "wait":
                    return answer
                pause = _PERMIT_S
            self._stopping.wait(pause)
        return None

    def _call(self, grant: Grant) -> None:
        started = time.monotonic()
        remaining_s = grant.remaining_ms / 1000
        with self._calls.open(grant, remaining_s) as cancelled:
            route = Route(self._provider, grant.upstream_model)
            deadline = Deadline(started + min(self._timeout_s, remaining_s))
            try:
                response = self._registry.chat(
                    route, grant.request, deadline=deadline, cancelled=cancelled
                )
            except ChatError as error:
                ending = self._failed(grant, self._whose_deadline(error, remaining_s))
            except Exception:  # noqa: BLE001 - said below
                # A bug of ours: the job must end all the same, and the log has the traceback.
                _log.exception("job %s: the provider failed in an unforeseen way", grant.job_id)
                fault = ChatError("an internal error ended the call; the worker's log has it")
                fault.billed = Billed.MAYBE
                ending = self._failed(grant, fault)
            else:
                ending = self._succeeded(grant, response)
            self._finish(ending, started + remaining_s + _FINISH_GRACE_S)

    def _whose_deadline(self, error: ChatError, remaining_s: float) -> ChatError:
        """A local timeout is the job's own end if its deadline was nearer than the call's limit."""
        if (
            not isinstance(error, UpstreamTimeout)
            or error.upstream_status is not None
            or remaining_s > self._timeout_s
        ):
            return error
        return DeadlineExceeded(
            "the job's deadline passed during the upstream call, which was closed; "
            "ask with a larger timeout_s",
            provider=error.provider,
            upstream_model=error.upstream_model,
            latency_ms=error.latency_ms,
            billed=error.billed,
        )

    def _succeeded(self, grant: Grant, response: ChatResponse) -> Ending:
        payload: JSON = {
            "model": grant.model,
            **response.to_wire(),
            "queue_ms": grant.queue_ms,
            "attempt_count": grant.attempt,
        }
        return self._ending(grant, JobState.SUCCEEDED, payload, "succeeded", 200, Billed.YES)

    def _failed(self, grant: Grant, error: ChatError) -> Ending:
        state = JobState.CANCELLED if isinstance(error, JobCancelled) else JobState.FAILED
        error.job_id = grant.job_id
        return self._ending(
            grant, state, error.to_wire(), error.code, error.upstream_status, error.billed
        )

    def _ending(
        self,
        grant: Grant,
        state: JobState,
        payload: JSON,
        outcome: str,
        upstream_status: int | None,
        billed: Billed,
    ) -> Ending:
        return Ending(
            job_id=grant.job_id,
            token=grant.token,
            attempt=grant.attempt,
            record=grant.record,
            provider=self._provider,
            worker=self._worker,
            state=state.value,
            payload=payload,
            outcome=outcome,
            upstream_status=upstream_status,
            billed=billed.value,
        )

    def _finish(self, ending: Ending, until: float) -> None:
        pause = 0.1
        while True:
            try:
                ending.hand_in(self._store)
            except QueueUnavailable as error:
                # A worker that is told to stop has less time than a job: its supervisor kills it.
                late = time.monotonic() >= until or self._stopping.is_set()
                if late and self._kept(ending):
                    return
                _log.warning("job %s: its end waits for Redis: %s", ending.job_id, error)
                time.sleep(pause)
                pause = min(2.0, pause * 2)
            else:
                return

    def _kept(self, ending: Ending) -> bool:
        """Keep the end of a call on disk; false when the disk does not take it either."""
        try:
            path = self._orphans.keep(ending)
        except OSError as error:
            _log.error("job %s: its end cannot be kept on disk: %s", ending.job_id, error)
            return False
        _log.error("job %s: Redis stays away; its end is kept in %s", ending.job_id, path)
        return True
