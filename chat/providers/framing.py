"""The bytes of an answer that comes piece by piece, cut into its records as they come.

Ollama writes a JSON object a line, the others server-sent events (WHATWG HTML, "Server-sent
events"). Neither says anything of where the bytes of an answer are cut on their way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Protocol

from chat.providers.limits import check_size

__all__ = ["EventStream", "Framing", "JsonLines", "first_line"]

#: Lines of one answer, empty ones and comments too; an event takes two.
_MOST_LINES = 1_000_000

_BOM = b"\xef\xbb\xbf"

#: How an event stream begins: a comment or one of the four fields. JSON and HTML do not.
_EVENTS = re.compile(rb"(\xef\xbb\xbf)?(:|(data|event|id|retry)[ \t]*(:|$))")


class Framing(Protocol):
    """How one answer is cut; ``longest`` bounds a record in bytes.

    ``broke_off`` once the record that was given last is what came after the last record's end: what
    is no JSON there was cut.
    """

    broke_off: bool

    def __init__(self, longest: int) -> None: ...

    @staticmethod
    def begins(line: bytes) -> bool:
        """Whether an answer with this first line comes in records; else it is one whole."""

    def records(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Each record of the body that comes in ``pieces``, as soon as it is there.

        Raises ``AnswerTooLarge`` for a record or a number of lines beyond all measure.
        """


def first_line(pieces: Iterator[bytes], longest: int) -> tuple[bytes, bytes]:
    """The first line with something in it, and all that had to be taken of ``pieces`` for it.

    White space in front is left out of both. Raises ``AnswerTooLarge`` when more than ``longest``
    bytes have to be taken.
    """
    taken, size = bytearray(), 0
    for piece in pieces:
        size += len(piece)
        check_size(size, longest, "bytes")
        taken += piece if taken else piece.lstrip()
        if b"\n" in piece or b"\r" in piece:
            lines = taken.splitlines(keepends=True)
            if lines and lines[0].endswith((b"\n", b"\r")):
                break
    return bytes(taken.splitlines()[0]) if taken else b"", bytes(taken)


class JsonLines:
    """A JSON object a line."""

    def __init__(self, longest: int) -> None:
        self.broke_off = False
        self._lines = _Lines(longest)

    @staticmethod
    def begins(line: bytes) -> bool:
        """Whether it looks like a JSON object: one over several lines is a whole answer."""
        text = line.removeprefix(_BOM).strip()
        return text.startswith(b"{") and text.endswith(b"}")

    def records(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The lines that are not empty."""
        for piece in pieces:
            yield from filter(bytes.strip, self._lines.ended_by(piece))
        # A line alone has an end to be known by, or it would not be read as a record.
        self.broke_off = not self._lines.first
        if self._lines.begun.strip():
            yield self._lines.begun


class EventStream:
    """Server-sent events, of which only the data counts."""

    def __init__(self, longest: int) -> None:
        self.broke_off = False
        self._longest = longest
        self._lines = _Lines(longest)
        self._data: list[bytes] = []
        self._size = 0

    @staticmethod
    def begins(line: bytes) -> bool:
        """Whether it is a comment or one of the fields that an event has."""
        return _EVENTS.match(line) is not None

    def records(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The data of each event.

        An event ends with an empty line; one without that, at the end of the body, is given too,
        since some servers leave the line out.
        """
        for piece in pieces:
            for line in self._lines.ended_by(piece):
                if line:
                    self._take(line)
                elif self._data:
                    yield self._event()
        self._take(self._lines.begun)
        self.broke_off = True
        if self._data:
            yield self._event()

    def _take(self, line: bytes) -> None:
        """Read a line of an event. All fields but one are about reconnecting, or unknown."""
        name, _, value = line.partition(b":")
        if name != b"data":
            return
        self._data.append(value.removeprefix(b" "))
        self._size += len(value)
        check_size(self._size, self._longest, "bytes")

    def _event(self) -> bytes:
        event = b"\n".join(self._data)
        self._data, self._size = [], 0
        return event


class _Lines:
    """Lines as their bytes come; each ends with LF, CR LF or CR.

    ``begun`` is what has come of the one that has not ended, and ``first`` whether that is the
    first one.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._begun = bytearray()
        self._count = 0
        self._after_cr = False
        self.first = True

    @property
    def begun(self) -> bytes:
        return bytes(self._begun.removeprefix(_BOM) if self.first else self._begun)

    def ended_by(self, piece: bytes) -> list[bytes]:
        """The lines that end within ``piece``, without their ends."""
        if not piece:
            return []
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]  # The line ended with the CR, which came before.
        self._after_cr = piece.endswith(b"\r")
        ended = []
        for line in piece.splitlines(keepends=True):
            self._begun += line
            check_size(len(self._begun), self._longest, "bytes")
            if line.endswith((b"\n", b"\r")):
                ended.append(self._ended())
        return ended

    def _ended(self) -> bytes:
        self._count += 1
        check_size(self._count, _MOST_LINES, "lines")
        line = self.begun.rstrip(b"\r\n")
        self._begun.clear()
        self.first = False
        return line
