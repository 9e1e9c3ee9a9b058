"""The keeper: whatever has to happen although no request and no worker makes it happen.

Lost wake-ups are sent again, calls whose worker died are given up, jobs past their deadline end,
old records go. Every action is a script that checks the state first, so two keepers are harmless;
the lock in Redis only saves them the work.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redis.exceptions import OutOfMemoryError, RedisError

from chat.errors import QueueUnavailable
from chat.jobs import new_token, queue_name
from chat.types import Lane
from chat.upkeep import BATCH, NEARLY_FULL, Call

if TYPE_CHECKING:
    from chat.store import JobStore

__all__ = ["Keeper", "LeaseWatch", "QueueWatch"]

_log = logging.getLogger(__name__)

#: Seconds a lease may go without renewal, counted on the keeper's own clock.
LEASE_S = 30.0
#: Seconds after which a wake-up that others have overtaken counts as lost.
LOST_S = 30.0
#: A Redis call slower than this says nothing about when a lease was last renewed.
_SLOW_S = 2.0
_TICK_S = 0.25
_SLOW_TICK_S = 1.0
_RARE_TICK_S = 600.0
#: Parked jobs of a fast budget are brought back this often.
_SHORTEST_TICK_S = 0.02
_LOCK_KEY = "chatd:keeper"
_LOCK_MS = 5000


@dataclass(slots=True)
class LeaseWatch:
    """Which calls have not been renewed for a full period of this process's monotonic clock.

    No two machines' clocks are compared, and an outage proves nothing: ``forget`` after a failed
    or slow call, and every lease gets its full period again.
    """

    period_s: float = LEASE_S
    _seen: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)

    def overdue(self, calls: Collection[Call], now: float) -> list[Call]:
        """Of the calls that exist now, those to give up."""
        seen = {}
        for call in calls:
            key = (call.job_id, call.token)
            renewed_at, since = self._seen.get(key, (None, now))
            seen[key] = (call.renewed_at, since if renewed_at == call.renewed_at else now)
        self._seen = seen
        return [call for call in calls if now - seen[call.job_id, call.token][1] >= self.period_s]

    def forget(self) -> None:
        """Start every lease's period anew."""
        self._seen.clear()


@dataclass(slots=True)
class QueueWatch:
    """Up to which sequence number the wake-ups of one queue are lost.

    Lists are first in, first out. So a job whose wake-up has a lower number than one that was
    started ``period_s`` ago is not in the list any more; and when the list is empty, no wake-up
    that was sent ``period_s`` ago is. The samples are this process's own.
    """

    period_s: float = LOST_S
    _samples: deque[tuple[float, int, int]] = field(default_factory=deque)

    def lost_below(self, seq: int, mark: int, *, empty: bool, now: float) -> tuple[int, bool]:
        """The highest number that counts as lost, and whether only while the list is empty.

        ``seq`` and ``mark`` are the queue's last number given out and highest number started.
        """
        self._samples.append((now, seq, mark))
        old_seq = old_mark = 0
        while self._samples and now - self._samples[0][0] >= self.period_s:
            _, old_seq, old_mark = self._samples.popleft()
        if old_seq:
            # The newest sample of full age stays for the next look.
            self._samples.appendleft((now - self.period_s, old_seq, old_mark))
        return (old_seq, True) if empty else (old_mark - 1, False)

    def forget(self) -> None:
        """Take nothing for lost until a full period has been watched again."""
        self._samples.clear()


class Keeper:
    """Looks after every provider's queues; ``run`` until ``stop`` is set.

    ``envelopes`` are the queues' messages, which a Redis that has lost its data needs again.
    """

    def __init__(
        self,
        store: JobStore,
        providers: Collection[str],
        *,
        envelopes: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._providers = list(providers)
        self._clock = clock
        self._envelopes = dict(envelopes or {})
        self._token = new_token()
        self._leases = {name: LeaseWatch() for name in self._providers}
        self._queues = {
            queue_name(name, lane): QueueWatch() for name in self._providers for lane in Lane
        }
        self._mine = False
        self._next_usual = self._next_slow = self._next_rare = 0.0
        self._last_tick = 0.0
        self._reachable = True
        self._full = False

    def run(self, stop: threading.Event) -> None:
        """Keep house every quarter of a second; an unreachable Redis is waited for."""
        pause = _TICK_S
        while not stop.wait(pause):
            pause = self.tick()
        self._give_up_lock()

    def tick(self) -> float:
        """One round; returns the seconds until the next.

        Trouble with Redis is logged once and makes every period count anew.
        """
        pause = _TICK_S
        begun = self._clock()
        if begun - self._last_tick > _SLOW_S:
            # This process stood still, and so may the workers have: no renewal was missed by them.
            self._forget()
        self._last_tick = begun
        try:
            if begun >= self._next_usual:
                self._next_usual = begun + _TICK_S
                self._mine = self._own_lock()
                if self._mine:
                    self._keep_house(begun)
            if self._mine:
                _, soonest_s = self._store.release(sweep=False)
                if soonest_s is not None:
                    pause = max(_SHORTEST_TICK_S, min(pause, soonest_s))
        except (QueueUnavailable, RedisError) as error:
            if self._reachable:
                _log.warning("keeper cannot reach Redis: %s", error)
            self._reachable = False
            self._forget()
            return pause
        if not self._reachable:
            _log.info("keeper reaches Redis again")
        self._reachable = True
        if self._clock() - begun > _SLOW_S:
            self._forget()
        return pause

    def _keep_house(self, now: float) -> None:
        self._expire()
        if now < self._next_slow:
            return
        self._next_slow = now + _SLOW_TICK_S
        # What frees memory comes first, and what needs some last.
        self._retire()
        self._store.release(sweep=True)
        self._reclaim()
        self._republish()
        self._note_memory()
        self._store.register_envelopes(self._envelopes)
        self._store.register_settings(self._providers, only_missing=True)
        if now >= self._next_rare:
            self._next_rare = now + _RARE_TICK_S
            for provider in self._providers:
                self._store.retire(provider)

    def _forget(self) -> None:
        for leases in self._leases.values():
            leases.forget()
        for queue in self._queues.values():
            queue.forget()

    def _own_lock(self) -> bool:
        redis = self._store.redis
        try:
            if redis.set(_LOCK_KEY, self._token, nx=True, px=_LOCK_MS):
                return True
        except OutOfMemoryError:
            # Redis is full: somebody has to remove old records, and two may do it.
            return True
        if redis.get(_LOCK_KEY) != self._token:
            # Somebody else keeps house. What was seen before may be old when it is our turn.
            self._forget()
            return False
        redis.pexpire(_LOCK_KEY, _LOCK_MS)
        return True

    def _give_up_lock(self) -> None:
        """Let the next keeper begin at once: until then no parked job would be brought back."""
        redis = self._store.redis
        try:
            # Should the lock be another's in between, two keep house for a moment.
            if self._mine and redis.get(_LOCK_KEY) == self._token:
                redis.delete(_LOCK_KEY)
        except RedisError as error:
            _log.warning("the keeper's lock is left to run out: %s", error)

    def _expire(self) -> None:
        while self._store.expire_due() == BATCH:
            pass

    def _retire(self) -> None:
        while self._store.retire() == BATCH:
            pass

    def _note_memory(self) -> None:
        share = self._store.note_memory()
        full = share is not None and share >= NEARLY_FULL
        if full != self._full:
            said = "refused until some of it is free" if full else "accepted again"
            _log.warning(
                "Redis uses %.0f %% of its memory: new jobs are %s", 100 * (share or 0), said
            )
        self._full = full

    def _reclaim(self) -> None:
        for provider, leases in self._leases.items():
            begun = self._clock()
            calls = self._store.calls(provider)
            if self._clock() - begun > _SLOW_S:
                leases.forget()
                continue
            for call in leases.overdue(calls, self._clock()):
                reclaimed = self._store.reclaim(provider, call)
                _log.warning(
                    "job %s: its call was not renewed for %.0f s: %s",
                    call.job_id,
                    LEASE_S,
                    reclaimed.became,
                    extra={"job_id": call.job_id},
                )

    def _republish(self) -> None:
        drained = self._store.drained(self._providers)
        for name in drained:
            # Its wake-ups stand still, and some went back to the front: overtaken is not lost.
            for lane in Lane:
                self._queues[queue_name(name, lane)].forget()
        for queue, watch in self._queues.items():
            seq, mark, empty = self._store.marks(queue)
            upto, only_if_empty = watch.lost_below(seq, mark, empty=empty, now=self._clock())
            if upto > 0:
                sent = self._store.republish(queue, upto, only_if_empty=only_if_empty)
                if sent:
                    _log.warning("queue %s: %d lost wake-ups sent again", queue, sent)
