"""The order in which the threads of a worker ask for the next permit."""

from __future__ import annotations

import threading
import time
from typing import Self

__all__ = ["Line", "Place"]

#: Seconds after which a thread asks although others stand before it: a wake-up that nobody speaks
#: for is taken for lost after thirty.
_PATIENCE_S = 5.0
_SLICE_S = 0.5


class Line:
    """First come, first served, once permits are short.

    While they are not, nobody stands here and every thread asks at once, without so much as a lock.
    Without a line a permit would go to whichever thread asks first after it was given back: to a
    newcomer, as a rule.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._places: list[Place] = []

    def place(self, *, lines_up: bool) -> Place:
        """A place for one thread, at the end if there is a line; given up on the way out."""
        place = Place(self._changed, self._places)
        if lines_up and self._places:
            place.join()
        return place

    def call(self) -> None:
        """A permit was given back: whoever is first asks now."""
        if self._places:
            with self._changed:
                self._changed.notify_all()


class Place:
    """Where one thread stands; outside the line until it joins."""

    __slots__ = ("_asked_at", "_changed", "_places", "_stands")

    def __init__(self, changed: threading.Condition, places: list[Place]) -> None:
        self._changed = changed
        self._places = places
        self._stands = False
        self._asked_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def join(self) -> None:
        """Stand at the end."""
        with self._changed:
            self._stand()

    def comes_next(self, patience_s: float = _PATIENCE_S) -> bool:
        """Whether to ask now: this is the first place, or nothing was asked here for so long.

        Waits a little for that; false lets the caller look whether it is still to wait.
        """
        if not self._stands:
            return True
        with self._changed:
            if self._places[0] is not self:
                self._changed.wait(min(_SLICE_S, patience_s))
            patient = time.monotonic() - self._asked_at < patience_s
            if self._places[0] is not self and patient:
                return False
            self._asked_at = time.monotonic()
            return True

    def wait(self, seconds: float) -> None:
        """No permit was free: keep the place, or take the last one, until one is given back."""
        with self._changed:
            if not self._stands:
                self._stand()
            # Those of other workers are not heard: the caller asks again after so many seconds.
            self._changed.wait(seconds)

    def leave(self) -> None:
        """Make room for those behind."""
        if self._stands:
            with self._changed:
                self._stands = False
                self._places.remove(self)
                self._changed.notify_all()

    def _stand(self) -> None:
        self._stands = True
        self._asked_at = time.monotonic()
        self._places.append(self)
