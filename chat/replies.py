"""Waiting for the end of jobs: one reply channel and one listener thread per process.

Pub/sub loses messages when a connection breaks, and the result key is the copy: every time the
listener (re)subscribes it reads all pending keys, and every two seconds those that have waited for
two seconds. A Redis that has a new life, by a restart or a fail-over, may have lost jobs whose
callers are still here, or were told a moment ago that they are accepted: they are admitted again,
under the same id. Threading primitives only, so that gevent may turn them into greenlets.

The pieces of answers come on the same channel. What is lost of them is made good by the follower
of each waiter, who reads what Redis keeps of them: at each (re)subscription, and where one misses.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Self, cast

from redis.exceptions import RedisError

from chat.errors import ChatError, QueueUnavailable
from chat.jobs import JobState, Outcome
from chat.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis
    from redis.client import PubSub

    from chat.follower import Follower
    from chat.jobs import NewJob
    from chat.store import JobStore
    from chat.types import JSON

    #: A piece as it is told: job, attempt, number, and the piece unless it is too large for that.
    _Event = tuple[str, int, int, JSON | None]

__all__ = ["Replies", "Waiter"]

_log = logging.getLogger(__name__)

#: Seconds after which a waiter's key is read although nobody announced it.
_SWEEP_S = 2.0
_RECONNECT_S = 0.2


class Waiter:
    """One caller's wait for one job. Leaving the ``with`` block forgets it.

    ``again`` admits the job once more, should Redis forget it; whoever has the request sets it.
    ``follower`` takes the pieces of the answer, if anybody wants them; each wakes the wait.
    """

    def __init__(self, replies: Replies, job_id: str) -> None:
        self._replies = replies
        self._event = threading.Event()
        self.job_id = job_id
        self.since = time.monotonic()
        self.outcome: Outcome | None = None
        self.again: Callable[[], None] | None = None
        self.follower: Follower | None = None

    def wait(self, timeout_s: float) -> Outcome | None:
        """The job's end, or ``None`` after ``timeout_s`` seconds or a ``wake``."""
        self._event.wait(max(0.0, timeout_s))
        if self.outcome is None:
            # A wake is for one wait. An end that is told now is seen below, and by the next wait.
            self._event.clear()
        return self.outcome

    def deliver(self, outcome: Outcome) -> None:
        """Hand over the job's end."""
        self.outcome = outcome
        self._event.set()

    def wake(self) -> None:
        """Make ``wait`` return without an outcome: the caller has gone, or this process is to."""
        self._event.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._replies.forget(self)
        # It has the request and this waiter in it: together they would stay until collected.
        self.again = None


class Replies:
    """The waiters of this process; whoever forks gets a listener of its own on first use."""

    def __init__(self, client: redis.Redis, store: JobStore) -> None:
        self._redis = client
        self._store = store
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._waiting: dict[str, set[Waiter]] = {}
        self._recent: Memory[NewJob] = Memory()
        self._life = ""
        self._channel = ""

    @property
    def channel(self) -> str:
        """The reply channel of this process; asking for it starts the listener."""
        self._ensure_listener()
        return self._channel

    def expect(self, job_id: str) -> Waiter:
        """Begin to wait for a job; call it before the job is admitted."""
        self._ensure_listener()
        waiter = Waiter(self, job_id)
        with self._lock:
            self._waiting.setdefault(job_id, set()).add(waiter)
        return waiter

    def rename(self, waiter: Waiter, job_id: str) -> None:
        """Wait for another job instead: admission joined an earlier one.

        Raises ``QueueUnavailable``.
        """
        self.forget(waiter)
        waiter.job_id = job_id
        with self._lock:
            self._waiting.setdefault(job_id, set()).add(waiter)
        # Its end may have been told since the admission, when nobody here waited for that id.
        for outcome in self._store.outcomes([job_id]).values():
            waiter.deliver(outcome)

    def remember(self, job: NewJob, size: int) -> None:
        """Keep for a while a job of ``size`` that has been admitted and that nobody waits for.

        Should Redis forget it, it is admitted again: its caller was told that it is accepted.
        """
        self._ensure_listener()
        self._recent.keep(job, size)

    def forget(self, waiter: Waiter) -> None:
        """Stop waiting."""
        with self._lock:
            waiters = self._waiting.get(waiter.job_id)
            if waiters is not None:
                waiters.discard(waiter)
                if not waiters:
                    del self._waiting[waiter.job_id]

    def _ensure_listener(self) -> None:
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid == os.getpid():
                return
            self._channel = f"chatd:reply:{uuid.uuid4().hex}"
            self._waiting = {}
            self._recent.clear()
            self._life = ""
            # Last: whoever sees it has all the rest.
            self._pid = os.getpid()
            ready = threading.Event()
            threading.Thread(
                target=self._listen, args=(ready,), name="replies", daemon=True
            ).start()
        # A job admitted before the subscription would only be found by the sweep.
        ready.wait(1.0)

    def _listen(self, ready: threading.Event) -> None:
        reachable = True
        while True:
            pubsub = self._redis.pubsub(ignore_subscribe_messages=False)
            try:
                pubsub.subscribe(self._channel)
                if not reachable:
                    _log.info("reply channel is back")
                reachable = True
                self._drain(pubsub, ready)
            except (RedisError, QueueUnavailable, OSError) as error:
                if reachable:
                    _log.warning("reply channel lost, subscribing again: %s", error)
                reachable = False
                time.sleep(_RECONNECT_S)
            except Exception:  # noqa: BLE001 - without this thread no caller of this process is told
                _log.exception("reply channel failed in an unforeseen way, subscribing again")
                time.sleep(_RECONNECT_S)
            finally:
                pubsub.close()

    def _drain(self, pubsub: PubSub, ready: threading.Event) -> None:
        swept = time.monotonic()
        while True:
            message = pubsub.get_message(timeout=_SWEEP_S)
            if message is not None and message["type"] == "subscribe":
                ready.set()
                self._look_again()
                self._read_keys(0.0)
                self._look_at_life(time.monotonic())
            elif message is not None and message["type"] == "message":
                self._arrived(json.loads(message["data"]))
            if time.monotonic() - swept >= _SWEEP_S:
                swept = time.monotonic()
                self._read_keys(_SWEEP_S)
                # A connection that nobody has closed may lead to a server that is gone.
                self._look_at_life(swept)

    def _arrived(self, meta: dict[str, object]) -> None:
        if "result" in meta:
            self._deliver(Outcome.from_meta(meta))
            return
        if "events" in meta:
            self._hand_out(cast("Iterable[_Event]", meta["events"]))
            return
        # Too large for pub/sub: the message only names the job.
        for outcome in self._store.outcomes([str(meta["task_id"])]).values():
            self._deliver(outcome)

    def _hand_out(self, events: Iterable[_Event]) -> None:
        """Give each piece to whoever follows its job here."""
        woken: set[Waiter] = set()
        with self._lock:
            for job_id, attempt, number, delta in events:
                for waiter in self._waiting.get(job_id, ()):
                    if waiter.follower is not None:
                        waiter.follower.push(attempt, number, delta)
                        woken.add(waiter)
        for waiter in woken:
            waiter.wake()

    def _look_again(self) -> None:
        """Pieces may have been told while nobody here listened."""
        with self._lock:
            following = [
                (waiter, waiter.follower)
                for waiters in self._waiting.values()
                for waiter in waiters
                if waiter.follower is not None
            ]
        for waiter, follower in following:
            follower.look_again()
            waiter.wake()

    def _read_keys(self, older_than_s: float) -> None:
        limit = time.monotonic() - older_than_s
        with self._lock:
            pending = [
                job_id
                for job_id, waiters in self._waiting.items()
                if any(waiter.since <= limit for waiter in waiters)
            ]
        for begin in range(0, len(pending), 500):
            for outcome in self._store.outcomes(pending[begin : begin + 500]).values():
                self._deliver(outcome)

    def _look_at_life(self, now: float) -> None:
        """Whether Redis has a new life, of which the subscription may have heard nothing."""
        life = self._store.life()
        if self._life in ("", life):
            self._recent.forget_old(now)
        else:
            self._admit_forgotten()
        self._life = life

    def _admit_forgotten(self) -> None:
        """Redis may have been restarted: admit again what it has no record of.

        A worker may be in a call of such a job. Nothing starts before every worker has been heard,
        so that the job is its worker's again, and is not called twice.
        """
        with self._lock:
            waiters = [one for many in self._waiting.values() for one in many if one.again]
        jobs = self._recent.all()
        gone = set(self._store.forgotten([waiter.job_id for waiter in waiters]))
        for waiter in waiters:
            if waiter.job_id in gone and waiter.again is not None:
                refusal = self._admit_again(waiter.job_id, waiter.again)
                if refusal is not None:
                    # The caller hears why, and the job exists no more.
                    wire = refusal.to_wire()
                    waiter.deliver(Outcome(waiter.job_id, JobState.FAILED, None, wire))
        gone = set(self._store.forgotten([job.id for job in jobs]))
        for job in jobs:
            if job.id in gone:
                self._admit_again(job.id, partial(self._store.admit, job, again=True))

    def _admit_again(self, job_id: str, again: Callable[[], object]) -> ChatError | None:
        """Admit one job; why it is refused this time. Raises ``QueueUnavailable``."""
        try:
            again()
        except QueueUnavailable:
            raise
        except ChatError as error:
            _log.error(
                "job %s was forgotten by Redis and is refused this time: %s",
                job_id,
                error,
                extra={"job_id": job_id},
            )
            return error
        _log.warning(
            "job %s was forgotten by Redis and admitted again", job_id, extra={"job_id": job_id}
        )
        return None

    def _deliver(self, outcome: Outcome) -> None:
        with self._lock:
            waiters = list(self._waiting.get(outcome.job_id, ()))
        for waiter in waiters:
            waiter.deliver(outcome)
