"""Events of streams, as a client reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from chat.types import JSON, Delta, DeltaKind

__all__ = ["Told", "call", "come", "read", "say", "text_of", "think"]


@dataclass(frozen=True, slots=True)
class Told:
    """One event, or a comment, which has nothing but its text."""

    id: str | None
    event: str
    data: str

    @property
    def json(self) -> JSON:
        """What its data says."""
        value: JSON = json.loads(self.data)
        return value


def read(raw: bytes) -> list[Told]:
    """The events and comments of a whole stream; fails for what is none (WHATWG HTML, 9.2.6)."""
    told, rest = _cut(raw)
    assert not rest
    return told


def come(pieces: Iterable[bytes]) -> Iterator[Told]:
    """The events of a stream as they come, however the connection cuts them."""
    kept = b""
    for piece in pieces:
        told, kept = _cut(kept + piece)
        yield from told


def _cut(raw: bytes) -> tuple[list[Told], bytes]:
    """What is whole, and the rest: a comment is a line, an event ends with an empty one."""
    told = []
    while raw:
        block, end, rest = raw.partition(b"\n" if raw.startswith(b":") else b"\n\n")
        if not end:
            break
        told.append(_read(block.decode()))
        raw = rest
    return told, raw


def _read(block: str) -> Told:
    if block.startswith(": "):
        return Told(None, "comment", block[2:])
    fields = dict(line.split(": ", 1) for line in block.split("\n"))
    assert set(fields) <= {"id", "event", "data"}
    return Told(fields.get("id"), fields.get("event", "message"), fields["data"])


def text_of(events: list[Told]) -> str:
    """The content that chatd's own events tell piece by piece."""
    return "".join(one.json.get("content", "") for one in events if one.event == "delta")


def say(text: str) -> Delta:
    """A piece of the content."""
    return Delta(DeltaKind.CONTENT, text)


def think(text: str) -> Delta:
    """A piece of the reasoning."""
    return Delta(DeltaKind.REASONING, text)


def call(text: str, index: int = 0, id_: str | None = None, name: str | None = None) -> Delta:
    """A piece of a tool call."""
    return Delta(DeltaKind.TOOL_CALL, text, index, id_, name)
