"""The stop of a front end, for those who wait in it when it is told to end."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

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
        # Python takes the list at one stroke. Whoever is put there later finds the moment set.
        for wake in list(self._wakes):
            wake()

    def until(self, patience_s: float) -> float:
        """The moment up to which somebody waits who goes on for ``patience_s`` once it stops."""
        since = self._since
        return math.inf if since is None else since + patience_s

    def call(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called when the stop begins, up to ``forget``; then look at ``until``."""
        self._wakes.add(wake)

    def forget(self, wake: Callable[[], None]) -> None:
        """Take ``call`` back."""
        self._wakes.discard(wake)
