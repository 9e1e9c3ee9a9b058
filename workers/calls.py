"""The upstream calls this process has in flight: renewing their leases, ordering their ends."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from redis.exceptions import RedisError

from chat.errors import QueueUnavailable
from chat.memory import Memory
from chat.types import Cancelled
from workers.outbox import Outbox

if TYPE_CHECKING:
    from chat.jobs import Ending
    from chat.store import Grant, JobStore
    from workers.outbox import Pieces

__all__ = ["HEARTBEAT_S", "Calls"]

_log = logging.getLogger(__name__)

#: Seconds between two heartbeats. The keeper gives a lease up after six that did not come.
HEARTBEAT_S = 5.0
#: Seconds past a call's deadline for which its lease is still renewed, whatever its thread does.
_GRACE_S = 10.0
_RECONNECT_S = 0.2


class _Call:
    """One call, entered in ``calls`` as long as it lasts.

    The switch ``cancelled`` is set when it must stop. ``pieces`` takes those of its answer, if that
    is to come piece by piece.
    """

    __slots__ = ("_calls", "_key", "_outbox", "cancelled", "grant", "pieces", "renew_until")

    def __init__(
        self,
        calls: dict[tuple[str, str], _Call],
        outbox: Outbox,
        grant: Grant,
        renew_until: float,
    ) -> None:
        self._calls = calls
        self._outbox = outbox
        self._key = grant.job_id, grant.token
        self.grant = grant
        self.cancelled = Cancelled()
        self.pieces: Pieces | None = None
        self.renew_until = renew_until

    @property
    def delivered(self) -> bool:
        """Whether any piece of its answer may have gone out: there is no other attempt then."""
        return self.pieces is not None and self.pieces.delivered

    def __enter__(self) -> Self:
        self._calls[self._key] = self
        if self.grant.request.stream:
            self.pieces = self._outbox.open(self.grant, self.cancelled)
        return self

    def __exit__(self, *_: object) -> None:
        del self._calls[self._key]
        if self.pieces is not None:
            self._outbox.forget(self.grant)


class Calls:
    """Renews the leases of this worker's calls and stops those that are no longer wanted.

    Two daemon threads: one sends a heartbeat for all calls at once and learns from its answer what
    to stop, the other hears of it at once on the channel ``chatd:stop:<worker>``. The channel may
    lose a message; the heartbeat is the net. ``after_beat`` runs after each heartbeat that went
    through; it may raise ``QueueUnavailable``. A third one, once a call is to be answered piece by
    piece, sends the pieces.

    What Redis has confirmed it may forget all the same, when it is restarted after a power failure.
    So before the first heartbeat of each of its lives, it is told again what this process is
    calling and what has just ended.
    """

    def __init__(
        self,
        store: JobStore,
        worker: str,
        provider: str,
        *,
        after_beat: Callable[[], object] = lambda: None,
    ) -> None:
        self._store = store
        self._worker = worker
        self._provider = provider
        self._after_beat = after_beat
        # Without a lock: to enter a call, to find one and to list them all is one step each.
        self._calls: dict[tuple[str, str], _Call] = {}
        self._outbox = Outbox(store)
        self._ended: Memory[Ending] = Memory()
        self._life = ""
        self._closed = threading.Event()
        self._beat_now = threading.Event()

    def start(self) -> None:
        """Send the first heartbeat and go on in the background. Raises ``QueueUnavailable``."""
        self.beat()
        for target in (self._beat, self._listen):
            threading.Thread(target=target, name=target.__name__, daemon=True).start()

    def close(self) -> None:
        """End all threads."""
        self._closed.set()
        self._beat_now.set()
        self._outbox.close()

    def open(self, grant: Grant, remaining_s: float) -> _Call:
        """Hold the lease of one call."""
        return _Call(self._calls, self._outbox, grant, time.monotonic() + remaining_s + _GRACE_S)

    def remember(self, ending: Ending) -> None:
        """Keep for a while what Redis has confirmed, should it forget it."""
        # Numbers are of no weight, and as texts they would take longer than all the rest.
        large = [value for value in ending.payload.values() if value and type(value) is not int]
        self._ended.keep(
            ending, sum([len(value if type(value) is str else str(value)) for value in large])
        )

    def stop(self, job_id: str, token: str, reason: str) -> None:
        """Stop one call if this process has it."""
        call = self._calls.get((job_id, token))
        if call is not None:
            call.cancelled.set(reason)

    def beat(self) -> None:
        """Send one heartbeat and follow what it brings. Raises ``QueueUnavailable``."""
        now = time.monotonic()
        life = self._store.life()
        if self._life not in ("", life):
            self._reassert()
        self._life = life
        self._ended.forget_old(now)
        calls = [key for key, call in list(self._calls.items()) if now < call.renew_until]
        orders = self._store.heartbeat(self._worker, self._provider, calls, life=life)
        if orders is None:  # It was restarted in this very moment.
            self._beat_now.set()
            return
        for order in orders:
            self.stop(*order)
        self._after_beat()

    def _reassert(self) -> None:
        """Redis has a new life: tell it what it may not have taken over from the last one."""
        calls = list(self._calls.values())
        ended = self._ended.all()
        became: Counter[str] = Counter()
        for call in calls:
            became[
                self._store.reassert(
                    call.grant,
                    worker=self._worker,
                    provider=self._provider,
                    delivered=call.delivered,
                )
            ] += 1
        for ending in ended:
            self._store.finish(ending)
        _log.warning(
            "Redis was restarted: %d calls in flight and %d that had just ended were told again",
            len(calls),
            len(ended),
            extra={"became": dict(became)},
        )

    def _beat(self) -> None:
        reachable = True
        while not self._closed.is_set():
            self._beat_now.wait(HEARTBEAT_S if reachable else 1.0)
            self._beat_now.clear()
            if self._closed.is_set():
                return
            try:
                self.beat()
            except QueueUnavailable as error:
                if reachable:
                    _log.warning("heartbeat failed, trying again each second: %s", error)
                reachable = False
            except Exception:  # noqa: BLE001 - a fault of ours must not end every call's lease
                _log.exception("heartbeat failed in an unforeseen way")
            else:
                if not reachable:
                    _log.info("heartbeat is back")
                reachable = True

    def _listen(self) -> None:
        subscribed = False
        while not self._closed.is_set():
            pubsub = self._store.redis.pubsub()
            try:
                pubsub.subscribe(f"chatd:stop:{self._worker}")
                while not self._closed.is_set():
                    message = pubsub.get_message(timeout=2.0)
                    if message is not None and message["type"] == "subscribe":
                        if subscribed:
                            # Redis may have a new life, where all wait for this worker's word.
                            self._beat_now.set()
                        subscribed = True
                    elif message is not None and message["type"] == "message":
                        job_id, token = message["data"].split(" ")
                        self.stop(job_id, token, "cancelled")
            except (RedisError, OSError):
                # The heartbeat reports the outage and stands in until this is back.
                self._closed.wait(_RECONNECT_S)
            except Exception:  # noqa: BLE001 - as above
                _log.exception("the stop channel failed in an unforeseen way")
                self._closed.wait(1.0)
            finally:
                pubsub.close()
