"""A response that comes in pieces, taken apart as it comes: HTTP's head and chunks, then events.

It is read strictly and by nobody's library: what these figures claim of bytes is seen here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Event", "Response"]


@dataclass(frozen=True, slots=True)
class Event:
    """One event of SSE; a line of JSON has only ``data``, a comment only ``comment``."""

    data: str = ""
    id: str = ""
    name: str = ""
    comment: str = ""


class Response:
    """One response of HTTP/1.1, fed with what a socket gives.

    ``status`` is 0 until the head is there. ``over`` is set when the body has ended as its framing
    says, and not when the connection breaks; one without any framing ends with its connection, as
    ``closed`` tells. A body that is no stream is in ``body``.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.over = False
        self._raw = bytearray()
        self._text = bytearray()
        #: Bytes of the chunk, or of the body, that are still to come; -1 before a chunk's head.
        self._rest = -1
        self._chunked = False

    @property
    def streams(self) -> bool:
        """Whether this is a stream of events or of lines."""
        kind = self.headers.get("content-type", "").partition(";")[0]
        return kind in ("text/event-stream", "application/x-ndjson")

    @property
    def body(self) -> bytes:
        """What has come of a body that is no stream."""
        return bytes(self._text)

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take what came; the events that are whole by now."""
        self._raw += data
        if not self.status and not self._head():
            return
        self._unframe()
        if self.streams:
            yield from self._events()

    def closed(self) -> None:
        """The other end has closed the connection in an orderly way."""
        self.over = self.over or (bool(self.status) and self._rest > sys.maxsize // 2)

    def _head(self) -> bool:
        at = self._raw.find(b"\r\n\r\n")
        if at < 0:
            return False
        line, *lines = self._raw[:at].decode("latin-1").split("\r\n")
        del self._raw[: at + 4]
        for name, _, value in (text.partition(":") for text in lines):
            self.headers[name.lower()] = value.strip()
        self._chunked = self.headers.get("transfer-encoding") == "chunked"
        if not self._chunked:
            self._rest = int(self.headers.get("content-length", sys.maxsize))
        self.status = int(line.split(" ")[1])
        return True

    def _unframe(self) -> None:
        """Move what is there of the body from the raw bytes to the text."""
        raw = self._raw
        while not self.over:
            if self._rest < 0:
                at = raw.find(b"\r\n")
                if at < 0:
                    return
                self._rest = int(raw[:at], 16)
                del raw[: at + 2]
                if not self._rest:
                    self.over = True
                    return
            taken = min(self._rest, len(raw))
            self._text += raw[:taken]
            del raw[:taken]
            self._rest -= taken
            if self._rest:
                return
            if not self._chunked:
                self.over = True
            elif len(raw) < len(b"\r\n"):
                return
            else:
                assert raw[:2] == b"\r\n", "a chunk that is longer than it says"
                del raw[:2]
                self._rest = -1

    def _events(self) -> Iterator[Event]:
        events = self.headers["content-type"].startswith("text/event-stream")
        while self._text:
            # A comment is whole with its line, a record of lines too; an event needs an empty one.
            single = not events or self._text.startswith(b":")
            block, end, rest = self._text.partition(b"\n" if single else b"\n\n")
            if not end:
                return
            self._text = rest
            yield _event(block.decode()) if events else Event(block.decode())


def _event(block: str) -> Event:
    found: dict[str, str] = {}
    for line in block.split("\n"):
        name, colon, value = line.partition(":")
        assert colon, f"a line of an event without a colon: {line!r}"
        name = name or "comment"
        value = value.removeprefix(" ")
        assert name in ("comment", "data", "event", "id"), f"an unknown field: {line!r}"
        found[name] = f"{found[name]}\n{value}" if name in found else value
    return Event(
        found.get("data", ""), found.get("id", ""), found.get("event", ""), found.get("comment", "")
    )
