"""The one thread of a process that stops calls whose time is up."""

from __future__ import annotations

import os
import threading
import time
from enum import Enum
from typing import Protocol

__all__ = ["StopReason", "Stoppable", "Watchdog", "process_watchdog"]

#: Waking now and then costs nothing and keeps a far-off moment inside what a lock can wait for.
_LONGEST_NAP_S = 3600.0


class StopReason(Enum):
    """Why an attempt was stopped from outside."""

    CONNECT = "no connection in time"
    DEADLINE = "deadline passed"
    CANCELLED = "cancelled"


class Stoppable(Protocol):
    """What a watchdog can stop. ``stop`` must neither block nor raise."""

    def stop(self, reason: StopReason) -> None:
        """End it now."""


class Watchdog:
    """Stops each watched subject at its moment on the monotonic clock.

    A call in flight is a subject, so there are about as many as the process has threads: looking
    through all of them at each alarm is cheaper than a heap, and what is forgotten is gone at
    once. The thread starts with the first subject and lasts as long as the process.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: dict[Stoppable, tuple[float, StopReason]] = {}
        self._wakes_at: float | None = None
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """How many subjects are watched now."""
        with self._changed:
            return len(self._watched)

    def watch(self, subject: Stoppable, at: float, reason: StopReason) -> None:
        """Stop ``subject`` for ``reason`` at ``at``; this replaces what was set for it before."""
        with self._changed:
            self._watched[subject] = (at, reason)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="upstream-watchdog", daemon=True
                )
                self._thread.start()
            elif self._wakes_at is None or at < self._wakes_at:
                self._changed.notify()

    def forget(self, subject: Stoppable) -> None:
        """Let ``subject`` go; one that is not watched is no fault."""
        with self._changed:
            self._watched.pop(subject, None)

    def _run(self) -> None:
        while True:
            for subject, reason in self._wait_for_due():
                subject.stop(reason)

    def _wait_for_due(self) -> list[tuple[Stoppable, StopReason]]:
        """Sleep until a moment has come, and take out everything whose moment it is."""
        with self._changed:
            while True:
                now = time.monotonic()
                due = [(s, reason) for s, (at, reason) in self._watched.items() if at <= now]
                if due:
                    for subject, _ in due:
                        del self._watched[subject]
                    return due
                self._wakes_at = min((at for at, _ in self._watched.values()), default=None)
                nap = _LONGEST_NAP_S if self._wakes_at is None else self._wakes_at - now
                self._changed.wait(min(nap, _LONGEST_NAP_S))


#: Keyed by process id: a forked child has none of its parent's threads, and a lock that was held
#: while forking stays locked for ever in the child. So a child makes a watchdog of its own.
_watchdogs: dict[int, Watchdog] = {}


def process_watchdog() -> Watchdog:
    """The watchdog of this process, made on first use."""
    watchdog = _watchdogs.get(os.getpid())
    return _watchdogs.setdefault(os.getpid(), Watchdog()) if watchdog is None else watchdog
