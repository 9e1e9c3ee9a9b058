"""Redis' protocol (RESP 2 and 3), cut into whole commands and replies from pieces of any size."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Command", "CommandReader", "ReplyReader", "is_message"]

#: How a reply begins that nobody asked for: what was published on a channel of the connection.
_MESSAGES = tuple(
    kind + head for kind in (b"*", b">") for head in (b"3\r\n$7\r\nmessage", b"4\r\n$8\r\npmessage")
)
#: Values that are one line: status, error, integer, null, double, boolean, big number.
_LINES = frozenset(b"+-:_,#(")
#: Values with a length: string, error, verbatim string.
_STRINGS = frozenset(b"$!=")
#: Values made of others, and how many of them an element has: array, set, push, map.
_ELEMENTS = {ord("*"): 1, ord("~"): 1, ord(">"): 1, ord("%"): 2}


@dataclass(frozen=True, slots=True, eq=False)
class Command:
    """A command as it was sent; equal only to itself, since the same words may come twice."""

    raw: bytes
    words: tuple[bytes, ...]


class _Pieces:
    """Bytes of which the beginning has been read up to some place."""

    def __init__(self) -> None:
        self._data = b""

    def _take(self, end: int) -> bytes:
        taken, self._data = self._data[:end], self._data[end:]
        return taken


class CommandReader(_Pieces):
    """What a client sends: arrays of bulk strings. Raises ``ValueError`` for anything else."""

    def feed(self, data: bytes) -> list[Command]:
        """The commands that are whole now."""
        self._data += data
        commands = []
        while (found := _command_end(self._data)) is not None:
            end, words = found
            commands.append(Command(self._take(end), words))
        return commands


class ReplyReader(_Pieces):
    """What Redis answers, and what it pushes to subscribers. Raises ``ValueError`` for the rest."""

    def feed(self, data: bytes) -> list[bytes]:
        """The replies that are whole now."""
        self._data += data
        replies = []
        while (end := _reply_end(self._data, 0)) is not None:
            replies.append(self._take(end))
        return replies


def is_message(reply: bytes) -> bool:
    """Whether it was published on a channel, and so answers no command."""
    return reply.startswith(_MESSAGES)


def _command_end(data: bytes) -> tuple[int, tuple[bytes, ...]] | None:
    """Where the first command ends, and its words; ``None`` while it is not whole."""
    head = _line(data, 0)
    if head is None:
        return None
    line, at = head
    if not line.startswith(b"*"):
        message = f"not an array: {line[:40]!r}"
        raise ValueError(message)
    words = []
    for _ in range(int(line[1:])):
        size = _line(data, at)
        if size is None:
            return None
        line, begin = size
        if not line.startswith(b"$"):
            message = f"not a bulk string: {line[:40]!r}"
            raise ValueError(message)
        end = begin + int(line[1:])
        at = end + 2
        if at > len(data):
            return None
        words.append(data[begin:end])
    return at, tuple(words)


def _reply_end(data: bytes, at: int) -> int | None:
    """Where the reply that begins at ``at`` ends; ``None`` while it is not whole."""
    head = _line(data, at)
    if head is None:
        return None
    line, at = head
    kind, rest = line[0] if line else 0, line[1:]
    if kind in _LINES:
        return at
    if kind in _STRINGS:
        end = at if int(rest) < 0 else at + int(rest) + 2
        return end if end <= len(data) else None
    if kind in _ELEMENTS:
        for _ in range(int(rest) * _ELEMENTS[kind]):
            end_of_one = _reply_end(data, at)
            if end_of_one is None:
                return None
            at = end_of_one
        return at
    message = f"not a reply: {line[:40]!r}"
    raise ValueError(message)


def _line(data: bytes, at: int) -> tuple[bytes, int] | None:
    """The line that begins at ``at``, and where the next one does."""
    end = data.find(b"\r\n", at)
    return None if end < 0 else (data[at:end], end + 2)
