"""What comes of an answer piece by piece: handed on at once, and put together to a whole one."""

from __future__ import annotations

from typing import ClassVar

from chat.partial import Partial
from chat.providers.error_text import SHORTEST_PIECE
from chat.providers.fields import Fields
from chat.providers.framing import Framing
from chat.types import JSON, ChatResponse, Delta, DeltaKind, Deltas

__all__ = ["Assembly", "Shown"]


class Assembly:
    """One answer on its way; there is one class for each wire.

    ``take`` is given the records in their order, and ``whole`` is then what the upstream would have
    answered, had it been asked for all at once: one reader serves both. Pieces go to ``deltas``.

    ``complete``: nothing that goes wrong from here on spoils the answer. ``over``: nothing of it is
    to come any more.
    """

    #: How the wire cuts an answer into records.
    framing: ClassVar[type[Framing]]

    #: The record behind which nothing of the answer comes, where that is no JSON.
    end: ClassVar[bytes | None] = None

    def __init__(self, deltas: Deltas) -> None:
        self.complete = False
        self.over = False
        self._kept = 0
        self._deltas = deltas
        self._partial = Partial()
        self._texts: dict[DeltaKind, list[str]] = {
            DeltaKind.CONTENT: [],
            DeltaKind.REASONING: [],
        }
        self._shown: dict[DeltaKind, Shown] = {}

    def take(self, record: Fields) -> None:
        """The record that comes next. Raises UpstreamProtocolError for one that is none."""
        raise NotImplementedError

    def take_behind(self, record: Fields) -> None:
        """A record behind the end, which may say something of the bill and nothing else."""

    def whole(self) -> JSON:
        """The answer in the form of one that was not asked for in pieces."""
        raise NotImplementedError

    @property
    def kept(self) -> int:
        """About how many characters are kept of it."""
        return self._kept

    @property
    def output_tokens(self) -> int | None:
        """How many tokens the upstream says it has generated so far."""
        raise NotImplementedError

    def hand_over_rest(self, response: ChatResponse) -> None:
        """Hand on what ``response``, which was read from all of it, has beyond the pieces.

        That is all where the upstream did not answer in pieces, and what had to be kept back.
        """
        rest = self._partial.rest_of(response.to_wire())
        if rest is None:
            msg = "an answer that does not begin with the pieces that were made of it"
            raise ValueError(msg)
        for delta in rest:
            self._hand_over(delta)

    def break_off(self) -> None:
        """Hand on what was kept back, since nothing more comes; not as the first piece."""
        if self._partial.pieces:
            for kind, shown in self._shown.items():
                text = shown.last()
                if text:
                    self._hand_over(Delta(kind, text))

    def _say(self, kind: DeltaKind, source: Fields, key: str) -> None:
        """Take a piece of a text from where it stands in a record."""
        text = source.unmasked().text(key)
        if not text:
            return
        self._kept += len(text)
        self._texts[kind].append(text)
        if kind not in self._shown:
            self._shown[kind] = Shown(source.secret)
        shown = self._shown[kind].more(text)
        if shown:
            self._hand_over(Delta(kind, shown))

    def _said(self, kind: DeltaKind) -> str:
        return "".join(self._texts[kind])

    def _hand_over(self, delta: Delta) -> None:
        self._partial.add(delta)
        self._deltas(delta)


class Shown:
    """A text that comes in pieces, with ``secret`` masked as it would be in the whole text.

    What may be the beginning of the secret is kept back until more has come.
    """

    def __init__(self, secret: str | None) -> None:
        self._secret = secret or ""
        self._kept_back = ""

    def more(self, text: str) -> str:
        """What can be shown now that ``text`` has come."""
        if not self._secret:
            return text
        *parts, rest = (self._kept_back + text).split(self._secret)
        shown = len(rest) - self._beginning(rest)
        self._kept_back = rest[shown:]
        return "***".join([*parts, rest[:shown]])

    def last(self) -> str:
        """What was kept back of a text that breaks off, if it is too little to tell of a key."""
        text, self._kept_back = self._kept_back, ""
        return text if len(text) < SHORTEST_PIECE else ""

    def _beginning(self, text: str) -> int:
        """How many characters at the end of ``text`` the secret may begin with."""
        at = text.find(self._secret[0], max(0, len(text) - len(self._secret) + 1))
        while at >= 0:
            if self._secret.startswith(text[at:]):
                return len(text) - at
            at = text.find(self._secret[0], at + 1)
        return 0
