"""What a scripted upstream is to stream: written into the question itself, so that both ends know.

Nothing beyond the standard library is needed here: programs in environments of their own use it.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from typing import Any, Self

__all__ = ["Script"]

#: What pieces are made of. Beside words it has what text formats and decoders stumble over: ends of
#: lines of every kind, field names of SSE, quotes, JSON, characters of two to four bytes, those
#: that join or turn their neighbours, and some that are more than one code point.
_WORDS = (
    *("the ", "queue", " holds", " what", " came", ", ", ". ", "so ", "streams", " end"),
    *("\n", "\n\n", "\r\n", "\r", "\t", "data: ", "\n\nevent: error\n", "id: 7\n", ": ", "[DONE]"),
    *('"', "\\", "\\u0041", '{"a":', "</s>", "&amp;", "\x00", "\x1b[31m", "\x7f"),
    *("é", "ß", "日本", "語", "한국어", "שלום", "مرحبا", "\u202e", "\u2028", "\u2029", "\u0085"),
    *("🧑\u200d🚀", "👍🏽", "🇫🇷", "e\u0301", "\U0001d518", "\ufeff", "\ufdd0", "\u200b", "😀"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One answer: ``name`` tells it from all others, and its text follows from the name.

    The first piece leaves ``first_ms`` after the call is there, and ``pieces`` of them one each
    ``every_ms``. ``text`` is said in place of the text of the name, ``thinking`` before it, and
    ``tool`` (``name`` and ``arguments``) is called after it. ``pause_ms`` passes in the middle.

    ``fails`` says what becomes of it after ``fails_after`` pieces: ``error`` is the error that the
    wire has for it, ``reset`` breaks the connection, ``end`` ends it without what belongs there,
    ``silence`` says no more. A ``status`` other than 200 is answered in place of all that.
    """

    name: str
    pieces: int = 20
    first_ms: float = 0.0
    every_ms: float = 20.0
    pause_ms: float = 0.0
    text: str = ""
    thinking: str = ""
    tool: dict[str, Any] | None = None
    fails: str = ""
    fails_after: int = 0
    status: int = 200

    @property
    def question(self) -> str:
        """What a caller asks to have this said."""
        known = type(self)(name="").to_wire()
        return json.dumps({k: v for k, v in self.to_wire().items() if v != known[k]})

    @classmethod
    def of(cls, question: str) -> Self:
        """The script that a question has. Any other question is said again, as an echo."""
        try:
            wire = json.loads(question)
        except ValueError:
            wire = None
        if isinstance(wire, dict) and "name" in wire:
            return cls(**wire)
        return cls(name=question, text=f"echo: {question}", every_ms=0.0)

    def to_wire(self) -> dict[str, Any]:
        """The script as JSON has it."""
        return asdict(self)

    def said(self) -> list[str]:
        """The pieces of the text, none of them empty."""
        if self.text:
            size = max(1, -(-len(self.text) // self.pieces))
            return [self.text[at : at + size] for at in range(0, len(self.text), size)]
        chance = random.Random(self.name)  # noqa: S311 - it is to be the same at both ends
        return [
            "".join(chance.choices(_WORDS, k=chance.choice((1, 1, 2)))) for _ in range(self.pieces)
        ]

    def whole(self) -> str:
        """The whole text."""
        return "".join(self.said())
