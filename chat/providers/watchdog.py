"""The one thread of a process that stops calls whose time is up."""

from __future__ import annotations

import math
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
    ANSWERED = "nothing more to wait for"


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
        #: When the thread wakes by itself. Until it has looked at all subjects, that is never.
        self._wakes_at = math.inf
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """How many subjects are watched now."""
        return len(self._watched)

    def watch(self, subject: Stoppable, at: float, reason: StopReason) -> None:
        """Stop ``subject`` for ``reason`` at ``at``; this replaces what was set for it before.

        This takes no lock unless the thread has to be told: either it looks at the subjects after
        ``subject`` is there, or it is seen here when it would wake too late.
        """
        self._watched[subject] = (at, reason)
        if at < self._wakes_at or self._thread is None:
            with self._changed:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run, name="upstream-watchdog", daemon=True
                    )
                    self._thread.start()
                self._changed.notify()

    def forget(self, subject: Stoppable) -> None:
        """Let ``subject`` go; one that is not watched is no fault."""
        self._watched.pop(subject, None)

    def _run(self) -> None:
        try:
            while True:
                for subject, reason in self._wait_for_due():
                    subject.stop(reason)
        finally:
            # The next call starts another one.
            self._thread = None

    def _wait_for_due(self) -> list[tuple[Stoppable, StopReason]]:
        """Sleep until a moment has come, and take out everything whose moment it is."""
        with self._changed:
            while True:
                self._wakes_at = math.inf
                now = time.monotonic()
                watched = list(self._watched.items())
                due = [(subject, reason) for subject, (at, reason) in watched if at <= now]
                if due:
                    for subject, _ in due:
                        self.forget(subject)
                    return due
                self._wakes_at = min((at for _, (at, _) in watched), default=math.inf)
                self._changed.wait(min(self._wakes_at - now, _LONGEST_NAP_S))


#: Keyed by process id: a forked child has none of its parent's threads, and a lock that was held
#: while forking stays locked for ever in the child. So a child makes a watchdog of its own.
_watchdogs: dict[int, Watchdog] = {}


def process_watchdog() -> Watchdog:
    """The watchdog of this process, made on first use."""
    watchdog = _watchdogs.get(os.getpid())
    return _watchdogs.setdefault(os.getpid(), Watchdog()) if watchdog is None else watchdog
