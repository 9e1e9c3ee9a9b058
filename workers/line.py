"""The order in which the threads of a worker ask for the next permit."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Line", "Place"]

#: Seconds after which a thread asks although others stand before it: a wake-up that nobody speaks
#: for is taken for lost after thirty.
_PATIENCE_S = 5.0
_SLICE_S = 0.5


class Line:
    """First come, first served, once permits are short.

    While they are not, nobody stands here and every thread asks at once. Without a line a permit
    would go to whichever thread asks first after it was given back: to a newcomer, as a rule.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._places: list[Place] = []

    @contextmanager
    def place(self, *, lines_up: bool) -> Iterator[Place]:
        """A place for one thread, at the end if there is a line; given up on the way out."""
        place = Place(self._changed, self._places)
        if lines_up:
            place.join_if_there_is_one()
        try:
            yield place
        finally:
            place.leave()

    def call(self) -> None:
        """A permit was given back: whoever is first asks now."""
        with self._changed:
            self._changed.notify_all()


class Place:
    """Where one thread stands; outside the line until it joins."""

    def __init__(self, changed: threading.Condition, places: list[Place]) -> None:
        self._changed = changed
        self._places = places
        self._asked_at = time.monotonic()

    def join_if_there_is_one(self) -> None:
        """Stand at the end, unless nobody is waiting."""
        with self._changed:
            if self._places:
                self._places.append(self)

    def comes_next(self, patience_s: float = _PATIENCE_S) -> bool:
        """Whether to ask now: this is the first place, or nothing was asked here for so long.

        Waits a little for that; false lets the caller look whether it is still to wait.
        """
        with self._changed:
            if self._stands_behind():
                self._changed.wait(min(_SLICE_S, patience_s))
            patient = time.monotonic() - self._asked_at < patience_s
            if self._stands_behind() and patient:
                return False
            self._asked_at = time.monotonic()
            return True

    def wait(self, seconds: float) -> None:
        """No permit was free: keep the place, or take the last one, until one is given back."""
        with self._changed:
            if self not in self._places:
                self._places.append(self)
            # Those of other workers are not heard: the caller asks again after so many seconds.
            self._changed.wait(seconds)

    def leave(self) -> None:
        """Make room for those behind."""
        with self._changed:
            if self in self._places:
                self._places.remove(self)
                self._changed.notify_all()

    def _stands_behind(self) -> bool:
        return self in self._places and self._places[0] is not self
