"""Running one job: permit, upstream call, outcome. Plain Python, no Celery."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chat.errors import (
    ChatError,
    DeadlineExceeded,
    JobCancelled,
    QueueUnavailable,
    UpstreamTimeout,
)
from chat.jobs import Ending, JobState, new_token
from chat.logs import begin_log_context, end_log_context, log_event
from chat.registry import Route
from chat.retry import Tally, decide, signal, tally
from chat.store import Grant, Held
from chat.types import JSON, Billed, ChatResponse, Deadline
from workers.line import Line, Place

if TYPE_CHECKING:
    from chat.registry import Registry
    from chat.settings import ChatdConfig
    from chat.store import JobStore
    from workers.calls import Calls
    from workers.orphans import Orphans

__all__ = ["Runner"]

_log = logging.getLogger(__name__)

#: Seconds between two tries to get a permit, at first.
_PERMIT_S = 0.05
#: Seconds that an interactive job may wait in its slot for its budget before it is parked.
_SLOT_WAIT_S = 1.0
#: Seconds for which a worker that is told to stop asks whether its last start was granted.
_DOUBT_S = 10.0
#: Seconds past a job's deadline for which its outcome is offered to Redis before it goes to disk.
_FINISH_GRACE_S = 60.0


class Runner:
    """What a worker thread does with a wake-up.

    ``on_room`` is told, after each answer of the store, how many batch jobs may start now.
    """

    def __init__(  # noqa: PLR0913 - the parts of a worker meet here and nowhere else
        self,
        *,
        store: JobStore,
        registry: Registry,
        calls: Calls,
        orphans: Orphans,
        provider: str,
        worker: str,
        config: ChatdConfig,
        stopping: threading.Event,
        on_room: Callable[[int], None] = lambda _: None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._registry = registry
        self._calls = calls
        self._orphans = orphans
        self._provider = provider
        self._worker = worker
        self._config = config
        self._stopping = stopping
        self._on_room = on_room
        self._chance = chance
        self._line = Line()

    def run(
        self,
        job_id: str,
        decided: Callable[[int | None], None] = lambda _: None,
        *,
        lines_up: bool = True,
    ) -> bool:
        """Run a job to its end, or give it back when this worker is stopping.

        False: it could not be given back, and its wake-up is still in this worker's hand.

        ``decided`` is called once, with the room for batch jobs, as soon as it is known whether
        this job starts; with ``None`` if that never becomes known. ``lines_up`` is false for batch
        jobs, which never wait here.
        """
        told = False

        def tell(room: int) -> None:
            nonlocal told
            if told:
                self._on_room(room)
            else:
                decided(room)
            told = True

        begun = begin_log_context(job_id=job_id)
        try:
            with self._line.place(lines_up=lines_up) as place:
                answer = self._take(job_id, tell, place)
            if isinstance(answer, Grant):
                # It goes with the job's id at the end.
                begin_log_context(request_id=answer.request_id or None)
                self._call(answer)
            return answer is not None
        finally:
            end_log_context(begun)
            if not told:
                decided(None)

    def _take(self, job_id: str, tell: Callable[[int], None], place: Place) -> Grant | Held | None:
        """A grant, why there is nothing to do, or ``None`` because this worker is stopping.

        The token stays the same through every try, so that a grant whose reply was lost in an
        outage is found again instead of being taken for a lost call.
        """
        token = new_token()
        waits_for_budget_since: float | None = None
        while not self._stopping.is_set():
            if not place.comes_next():
                continue
            since = waits_for_budget_since
            may_wait = since is None or time.monotonic() - since < _SLOT_WAIT_S
            answer = self._start(job_id, token, may_wait=may_wait)
            if answer is None:
                return None
            tell(answer.room)
            if isinstance(answer, Grant) or answer.kind != "wait":
                return answer
            if answer.why in {"permits", "turn"}:
                place.wait(answer.wait_s)
            else:
                # Its budget is short, of which those behind it may use another one.
                place.leave()
                if since is None:
                    waits_for_budget_since = time.monotonic()
                self._stopping.wait(answer.wait_s)
        return self._give_back(job_id, token)

    def _give_back(self, job_id: str, token: str) -> Grant | Held | None:
        """Put the wake-up where it was, before younger ones; ``None`` when Redis is away.

        A grant whose reply was lost shows up here as well, and is run to its end.
        """
        try:
            return self._store.start(job_id, worker=self._worker, token=token, give_back=True)
        except QueueUnavailable as error:
            _log.warning("job %s cannot be given back just now: %s", job_id, error)
            return None

    def _start(self, job_id: str, token: str, *, may_wait: bool) -> Grant | Held | None:
        """What the store says, asked again while Redis is away; ``None``: nobody will know.

        A worker that is told to stop meanwhile goes on asking for a while, and gives the job back:
        if Redis has granted the call and only the answer was lost, the job would end as lost though
        nothing was sent.
        """
        pause = _PERMIT_S
        give_up_at = math.inf
        while True:
            try:
                return self._store.start(
                    job_id,
                    worker=self._worker,
                    token=token,
                    may_wait=may_wait,
                    give_back=self._stopping.is_set(),
                )
            except QueueUnavailable as error:
                _log.warning("job %s waits for Redis: %s", job_id, error)
            pause = min(2.0, pause * 2)
            if self._stopping.wait(pause):
                give_up_at = min(give_up_at, time.monotonic() + _DOUBT_S)
                time.sleep(min(pause, _DOUBT_S))
            if time.monotonic() >= give_up_at:
                return None

    def _call(self, grant: Grant) -> None:
        started = time.monotonic()
        remaining_s = grant.remaining_ms / 1000
        with self._calls.open(grant, remaining_s) as call:
            route = Route(self._provider, grant.upstream_model)
            deadline = Deadline(started + min(self._config.timeout_s, remaining_s))
            try:
                try:
                    response = self._registry.chat(
                        route,
                        grant.request,
                        deadline=deadline,
                        cancelled=call.cancelled,
                        deltas=call.pieces,
                    )
                finally:
                    if call.pieces is not None:
                        # They go before the end; whether any has gone is known from here on.
                        call.pieces.close()
            except ChatError as error:
                error = self._whose_deadline(error, remaining_s)
                left_s = remaining_s - (time.monotonic() - started)
                ending = self._failed(grant, error, left_s, delivered=call.delivered)
            except Exception:  # noqa: BLE001 - said below
                # A bug of ours: the job must end all the same, and the log has the traceback.
                _log.exception("job %s: the provider failed in an unforeseen way", grant.job_id)
                fault = ChatError("an internal error ended the call; the worker's log has it")
                fault.billed = Billed.MAYBE
                ending = self._failed(grant, fault, 0)
            else:
                ending = self._succeeded(grant, response)
            self._finish(ending, started + remaining_s + _FINISH_GRACE_S)
            log_event(
                _log,
                logging.INFO,
                "job %s: attempt %d: %s",
                grant.job_id,
                grant.attempt,
                ending.outcome,
                attempt=grant.attempt,
                outcome=ending.outcome,
                upstream_model=grant.upstream_model,
                upstream_status=ending.upstream_status,
                billed=ending.billed,
                queue_ms=grant.queue_ms,
                call_ms=round((time.monotonic() - started) * 1000),
                again=ending.again_why,
            )

    def _whose_deadline(self, error: ChatError, remaining_s: float) -> ChatError:
        """A local timeout is the job's own end if its deadline was nearer than the call's limit."""
        if (
            not isinstance(error, UpstreamTimeout)
            or error.upstream_status is not None
            or remaining_s > self._config.timeout_s
        ):
            return error
        return DeadlineExceeded(
            "the job's deadline passed during the upstream call, which was closed; "
            "ask with a larger timeout_s",
            provider=error.provider,
            upstream_model=error.upstream_model,
            latency_ms=error.latency_ms,
            billed=error.billed,
            partial=error.partial,
        )

    def _succeeded(self, grant: Grant, response: ChatResponse) -> Ending:
        payload: JSON = {
            "model": grant.model,
            **response.to_wire(),
            "queue_ms": grant.queue_ms,
            "attempt_count": grant.attempt,
        }
        return self._ending(
            grant,
            JobState.SUCCEEDED,
            payload,
            outcome="succeeded",
            upstream_status=200,
            billed=Billed.YES.value,
            signal=signal(None).value,
            input_tokens=response.input_tokens,
            output_tokens=response.output_tokens,
        )

    def _failed(
        self, grant: Grant, error: ChatError, remaining_s: float, *, delivered: bool = False
    ) -> Ending:
        """The end of a failed call, with what its budget learns and whether it is tried again.

        It is not if pieces of its answer were ``delivered``: their reader cannot begin anew.
        """
        state = JobState.CANCELLED if isinstance(error, JobCancelled) else JobState.FAILED
        error.job_id = grant.job_id
        counts = tally(error)
        decision = decide(
            error,
            refused=grant.refused + (counts is Tally.REFUSED),
            answered=grant.answered + (counts is Tally.ANSWERED),
            unknown=grant.unknown + (counts is Tally.UNKNOWN),
            max_attempts=self._config.max_attempts,
            max_lost_calls=self._config.max_lost_calls,
            on_lost_call=self._config.on_lost_call[grant.lane.value],
            remaining_s=remaining_s,
            chance=self._chance(),
        )
        again = decision.again and not delivered
        payload = error.to_wire()
        if error.billed is Billed.NO and grant.answered + grant.unknown > 0:
            # An earlier call may have been billed: whoever repeats the request might pay twice.
            payload["billed"] = Billed.MAYBE.value
        return self._ending(
            grant,
            state,
            payload,
            outcome=error.code,
            upstream_status=error.upstream_status,
            billed=error.billed.value,
            signal=signal(error).value,
            retry_after_s=error.retry_after_s,
            chance=self._chance(),
            output_tokens=(error.partial or {}).get("output_tokens"),
            again_after_s=decision.delay_s if again else None,
            again_why=decision.reason if again else "",
            counts_as=counts.value,
        )

    def _ending(self, grant: Grant, state: JobState, payload: JSON, **rest: Any) -> Ending:
        return Ending(
            job_id=grant.job_id,
            token=grant.token,
            record=grant.record,
            provider=self._provider,
            worker=self._worker,
            state=state.value,
            payload=payload,
            **rest,
        )

    def _finish(self, ending: Ending, until: float) -> None:
        pause = 0.1
        while True:
            try:
                finished = self._store.finish(ending)
            except QueueUnavailable as error:
                # A worker that is told to stop has less time than a job: its supervisor kills it.
                late = time.monotonic() >= until or self._stopping.is_set()
                if late and self._kept(ending):
                    return
                _log.warning("job %s: its end waits for Redis: %s", ending.job_id, error)
                time.sleep(pause)
                pause = min(2.0, pause * 2)
            else:
                self._calls.remember(ending)
                self._on_room(finished.room)
                self._line.call()
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
