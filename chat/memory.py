"""What Redis has confirmed a moment ago, kept in case it forgets it.

A restart after a power failure, or a fail-over, may take back about the last second. Workers keep
the ends of calls here, and front ends the jobs that were accepted, to tell them again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, TypeVar

__all__ = ["Memory"]

#: Seconds after which something is on Redis' disk, if Redis has answered since.
_REMEMBER_S = 5.0
#: Characters that are kept at the most.
_MOST = 64 << 20

T = TypeVar("T")


class Memory(Generic[T]):
    """Keeps things for some seconds, and up to a size; the oldest goes first. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[tuple[float, T, int]] = deque()
        self._size = 0

    def keep(self, thing: T, size: int) -> None:
        """Remember one thing more, of so many characters."""
        with self._lock:
            self._kept.append((time.monotonic(), thing, size))
            self._size += size
            while self._size > _MOST:
                self._forget_first()

    def forget_old(self, now: float) -> None:
        """Redis has answered, at this monotonic moment: what is old by then has outlived it."""
        with self._lock:
            while self._kept and self._kept[0][0] < now - _REMEMBER_S:
                self._forget_first()

    def all(self) -> list[T]:
        """What is remembered, the oldest first."""
        with self._lock:
            return [thing for _, thing, _ in self._kept]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self._size = 0

    def _forget_first(self) -> None:
        _, _, size = self._kept.popleft()
        self._size -= size
