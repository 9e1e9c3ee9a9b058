"""The terminal that a process was started in. SIGHUP means that it was closed, or asks for more."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

__all__ = ["Terminal"]

#: Seconds within which a shell passes SIGHUP on when its terminal is closed.
_PASSED_ON_S = 3.0


def _is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


class Terminal:
    """Looked at again and again, so that it is known when it went away.

    ``is_there`` and ``clock`` (monotonic seconds) are what it looks at.
    """

    def __init__(
        self,
        is_there: Callable[[], bool] = _is_there,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._is_there = is_there
        self._clock = clock
        self._there = is_there()
        self._closed_at = float("-inf")

    def look(self) -> None:
        """Note whether it is still there."""
        if self._there and not self._is_there():
            self._there = False
            self._closed_at = self._clock()

    def just_closed(self) -> bool:
        """Whether it went away a moment ago; false where there never was one."""
        self.look()
        return self._clock() - self._closed_at < _PASSED_ON_S
