"""The pieces of answers that this process has on their way to Redis: one sender for all calls.

A call hands its pieces over and never waits for Redis. One thread takes what all of them have there
in one round trip: the first piece of a call at once, what follows each few milliseconds, joined to
as few pieces as it can be. While Redis is away they gather, and no longer than their calls last:
what does not get there comes with the answer.

Threading primitives only, so that gevent may turn them into greenlets.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from chat.errors import QueueUnavailable
from chat.jobs import Piece

if TYPE_CHECKING:
    from chat.store import Grant, JobStore
    from chat.types import Cancelled, Delta

__all__ = ["Outbox", "Pieces"]

_log = logging.getLogger(__name__)

#: Seconds from one round trip to the next, but for the first piece of a call.
_TICK_S = 0.005
#: What one round trip takes along, so that other scripts need not wait for long: pieces, and the
#: characters with which it is full.
_MOST_PIECES = 64
_MOST_CHARACTERS = 1 << 15
#: Seconds for which the end of a call waits until its last pieces have been sent.
_PATIENCE_S = 1.0
#: Seconds until Redis is tried again, at first and at the most.
_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0


class Pieces:
    """The way of one call's pieces: called with each of them, as ``Deltas`` has it."""

    __slots__ = (
        "_cancelled",
        "_closed",
        "_delivered",
        "_gathered",
        "_grant",
        "_listed",
        "_lock",
        "_number",
        "_numbered",
        "_on_way",
        "_outbox",
        "_sent",
    )

    def __init__(self, outbox: Outbox, grant: Grant, cancelled: Cancelled) -> None:
        self._outbox = outbox
        self._grant = grant
        self._cancelled = cancelled
        self._lock = threading.Lock()
        #: What has come since the sender was here last.
        self._gathered: list[Delta] = []
        #: What has its number and therefore stays as it is, whether Redis has seen it or not.
        self._numbered: deque[Piece] = deque()
        self._number = 0
        self._listed = False
        self._on_way = False
        self._delivered = False
        self._closed = False
        self._sent: threading.Event | None = None

    @property
    def delivered(self) -> bool:
        """Whether any piece may have come to Redis."""
        return self._delivered

    def __call__(self, delta: Delta) -> None:
        """Have one piece sent, soon and behind those before it."""
        with self._lock:
            if self._closed:
                return
            joined = self._gathered[-1].joined(delta) if self._gathered else None
            if joined is None:
                self._gathered.append(delta)
            else:
                self._gathered[-1] = joined
            if self._listed:
                return
            self._listed = True
        self._outbox.has_more(self, at_once=self._number == 0)

    def close(self) -> None:
        """Have what is left sent, for as long as that is worth waiting for.

        Nothing is sent afterwards that was not on its way, so that ``delivered`` stays as it is.
        """
        with self._lock:
            sent = threading.Event() if self._gathered or self._on_way else None
            self._sent = sent
        if sent is not None:
            self._outbox.hurry()
            sent.wait(_PATIENCE_S)
        with self._lock:
            self._closed = True

    def stop(self) -> None:
        """Nobody wants the answer any more: end the call."""
        with self._lock:
            self._closed = True
            self._numbered.clear()
            self._on_way = False
            if self._sent is not None:
                self._sent.set()
        self._cancelled.set("superseded")

    def take(self) -> deque[Piece]:
        """For the sender: what is to be sent, from which it removes what it takes along."""
        with self._lock:
            self._listed = False
            if self._closed:
                self._numbered.clear()
                return self._numbered
            for delta in self._gathered:
                self._number += 1
                grant = self._grant
                self._numbered.append(
                    Piece(grant.job_id, grant.token, grant.attempt, self._number, delta)
                )
            self._gathered.clear()
            self._on_way = self._delivered = True
            return self._numbered

    def arrived(self) -> None:
        """For the sender: Redis has all that was taken along."""
        with self._lock:
            if not self._numbered:
                self._on_way = False
                if self._sent is not None and not self._gathered:
                    self._sent.set()


class Outbox:
    """Sends the pieces of all calls of this process; its thread begins with the first of them."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        # Without a lock: to enter a call, to find one and to take one out is one step each.
        self._calls: dict[tuple[str, str], Pieces] = {}
        self._ready: deque[Pieces] = deque()
        self._some = threading.Event()
        self._now = threading.Event()
        self._closed = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._reachable = True

    def open(self, grant: Grant, cancelled: Cancelled) -> Pieces:
        """A way for the pieces of one call, until ``forget``; the switch is set to stop it."""
        pieces = self._calls[grant.job_id, grant.token] = Pieces(self, grant, cancelled)
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pieces", daemon=True)
                self._thread.start()
        return pieces

    def forget(self, grant: Grant) -> None:
        """A call is over."""
        del self._calls[grant.job_id, grant.token]

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._some.set()
        self._now.set()

    def has_more(self, pieces: Pieces, *, at_once: bool) -> None:
        """A call that had nothing to send has something, or the first of all that it has."""
        self._ready.append(pieces)
        if at_once:
            self._now.set()
        self._some.set()

    def hurry(self) -> None:
        """Somebody waits for what there is to be sent."""
        self._now.set()

    def _run(self) -> None:
        due = 0.0
        while True:
            self._some.wait()
            self._some.clear()
            # Meanwhile pieces gather.
            self._now.wait(max(0.0, due - time.monotonic()))
            self._now.clear()
            if self._closed.is_set():
                return
            due = time.monotonic() + _TICK_S
            calls, pieces = self._gather()
            self._send(pieces)
            for call in calls:
                call.arrived()

    def _gather(self) -> tuple[list[Pieces], list[Piece]]:
        """What goes along this time, and the calls of which there is something."""
        calls: list[Pieces] = []
        pieces: list[Piece] = []
        size = 0
        while self._ready:
            if len(pieces) >= _MOST_PIECES or size >= _MOST_CHARACTERS:
                # The others go next, and at once.
                self._now.set()
                self._some.set()
                break
            call = self._ready.popleft()
            calls.append(call)
            waiting = call.take()
            while waiting and len(pieces) < _MOST_PIECES and size < _MOST_CHARACTERS:
                pieces.append(waiting.popleft())
                size += len(pieces[-1].delta.text)
            if waiting:
                self._ready.append(call)
        return calls, pieces

    def _send(self, pieces: list[Piece]) -> None:
        """Send these until Redis has them, or until none of their calls is left.

        After trouble it may have some of them: they are sent again as they are.
        """
        pause = _PAUSE_S
        while pieces:
            try:
                unwanted = self._store.deliver(pieces)
            except QueueUnavailable as error:
                if self._reachable:
                    _log.warning("pieces of answers wait for Redis: %s", error)
                self._reachable = False
                if self._closed.wait(pause):
                    return
                pause = min(_LONGEST_PAUSE_S, pause * 2)
                pieces = [one for one in pieces if (one.job_id, one.token) in self._calls]
            except Exception:  # noqa: BLE001 - without this thread no call of this process would stream
                _log.exception("pieces of answers were not sent, in an unforeseen way")
                return
            else:
                if not self._reachable:
                    _log.info("pieces of answers reach Redis again")
                self._reachable = True
                for call in unwanted:
                    self._stop(call)
                return

    def _stop(self, call: tuple[str, str]) -> None:
        pieces = self._calls.get(call)
        if pieces is not None:
            pieces.stop()
