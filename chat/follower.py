"""The pieces of one job on their way to one reader: each once, in their order, none left out.

They are told on the reply channel, which loses what it tells while a connection is broken. Redis
keeps them for a while, and is asked only when something is missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from chat.errors import QueueUnavailable
from chat.partial import Partial
from chat.types import JSON, Delta

__all__ = ["START", "Follower", "Place"]

#: Pieces that are kept for a reader who does not take them; beyond that, Redis has them.
_MOST_KEPT = 1000


class Place(NamedTuple):
    """A piece's place among all pieces of its job, which is also its id in Redis."""

    attempt: int
    number: int

    @classmethod
    def of(cls, entry_id: str) -> Place:
        """Read what ``str`` wrote."""
        attempt, _, number = entry_id.partition("-")
        return cls(int(attempt), int(number))

    def __str__(self) -> str:
        return f"{self.attempt}-{self.number}"

    def before(self, other: Place) -> bool:
        """Whether ``other`` comes next. Only the first piece of a job may be of any attempt."""
        if self == START:
            return other.number == 1
        return other == (self.attempt, self.number + 1)


#: Before the first piece.
START = Place(0, 0)


class Follower:
    """What one reader has had of a job's pieces, and what has come for it since.

    ``entries`` reads those that Redis keeps beyond an id. The reader has had all up to ``had``.
    ``begun``: there may be pieces that were told before anybody listened here. ``ended``: none
    beyond ``had`` are wanted, since the reader has begun with the rest of the answer.

    ``push`` and ``look_again`` are for the thread that listens, everything else for the reader.
    """

    def __init__(
        self,
        entries: Callable[[str], Sequence[tuple[str, Delta]]],
        had: Place = START,
        *,
        begun: bool = False,
        ended: bool = False,
    ) -> None:
        self._entries = entries
        self._had = had
        self._ended = ended
        #: Whether Redis has to be asked before anything that was told counts.
        self._behind = begun
        self._come: deque[tuple[int, int, JSON | None]] = deque()
        #: Taken up and not handed out yet: Redis may go away in the middle.
        self._fresh: list[tuple[Place, Delta]] = []
        #: Whether pieces are missing that cannot be had any more: no further one is handed out.
        self.torn = False
        self.place = START
        self.partial = Partial()

    def push(self, attempt: int, number: int, delta: JSON | None) -> None:
        """A piece was told; ``None`` for one that is too large for that."""
        if self.torn or self._behind:
            return
        if len(self._come) >= _MOST_KEPT:
            self._behind = True
        else:
            self._come.append((attempt, number, delta))

    def look_again(self) -> None:
        """Some may have been told while nobody listened."""
        self._behind = True

    def take(self) -> list[tuple[Place, Delta]]:
        """The pieces that come next, as far as they are there.

        Raises ``QueueUnavailable`` when Redis has to be asked and does not answer; nothing is lost
        by that, and the next call asks again.
        """
        if self._behind and not self.torn:
            self._read()
        while self._come and not self.torn:
            attempt, number, wire = self._come.popleft()
            place = Place(attempt, number)
            if place <= self.place:
                continue
            if wire is not None and self.place.before(place):
                self._add(place, Delta.from_wire(wire))
                continue
            self._read()
            # Redis has each piece before it is told.
            self.torn = self.torn or (place > self.place and not self._enough)
        fresh, self._fresh = self._fresh, []
        return fresh

    def rest_of(self, answer: JSON) -> list[Delta] | None:
        """What ``answer`` has beyond what the reader has had; ``None`` if that is not known."""
        if self.place < self._had:
            return None
        return self.partial.rest_of(answer)

    @property
    def lost(self) -> bool:
        """Whether what the reader has had cannot be known any more, nor what follows it."""
        return self.torn and self.place < self._had

    @property
    def _enough(self) -> bool:
        return self._ended and self.place >= self._had

    def _read(self) -> None:
        # In this order: what is told from now on is kept, and what was told before can be read.
        self._behind = False
        self._come.clear()
        if self._enough:
            return
        try:
            entries = self._entries("-" if self.place == START else str(self.place))
        except QueueUnavailable:
            self._behind = True
            raise
        for entry_id, delta in entries:
            place = Place.of(entry_id)
            if not self.place.before(place):
                self.torn = True
            if self.torn or self._enough:
                return
            self._add(place, delta)

    def _add(self, place: Place, delta: Delta) -> None:
        if self._enough:
            return
        try:
            self.partial.add(delta)
        except ValueError:
            # Of a tool call whose beginning is not there.
            self.torn = True
            return
        self.place = place
        if place > self._had:
            self._fresh.append((place, delta))
