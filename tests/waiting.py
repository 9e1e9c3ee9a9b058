"""Waiting on a condition, with a limit that only a hang reaches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["eventually"]

T = TypeVar("T")

_PAUSE = threading.Event()


def eventually(condition: Callable[[], T], *, within_s: float = 30.0, what: str = "") -> T:
    """The first true value of ``condition``; fails the test when there is none in time."""
    until = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            message = f"not within {within_s} s: {what or condition}"
            raise AssertionError(message)
        _PAUSE.wait(0.02)
