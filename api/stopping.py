"""The stop of a front end, for those who wait in it when it is told to end."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Stopping"]


class Stopping:
    """Whether this process has been told to end, and since when.

    Whoever waits meanwhile says how long it goes on after that. ``clock`` is monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._wakes: set[Callable[[], None]] = set()
        self._since: float | None = None

    def begin(self) -> None:
        """The process has been told to end: wake everybody who waits. A second time is nothing."""
        with self._lock:
            if self._since is not None:
                return
            self._since = self._clock()
            wakes = list(self._wakes)
        for wake in wakes:
            wake()

    def until(self, patience_s: float) -> float:
        """The moment up to which somebody waits who goes on for ``patience_s`` once it stops."""
        with self._lock:
            return math.inf if self._since is None else self._since + patience_s

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Call ``wake`` when the stop begins within the ``with`` block."""
        with self._lock:
            self._wakes.add(wake)
        try:
            yield
        finally:
            with self._lock:
                self._wakes.discard(wake)
