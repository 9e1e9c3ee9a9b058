"""http.client's reading of an answer, held to what a server needs for one.

Lengths of body and header lines are bounded there and in urllib3. What is left without a bound, or
is read in a way that hurts, is bounded here.
"""

from __future__ import annotations

import http.client
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    import socket

__all__ = ["BoundedResponse", "Reader", "WholeAnswer"]

#: Characters of one line: a header, the size of a chunk, a trailer.
_LONGEST_LINE = 65536

#: Lines of one answer. Each chunk begins with one, so that a long answer in small pieces has many.
_MOST_LINES = 500_000

_INTERIM = range(100, 200)

#: The head of nearly every answer: complete, with a status that has a body, one field per line
#: without odd characters, and no more of them than http.client takes.
_USUAL_HEAD = re.compile(
    rb"HTTP/1\.1 ([2-9][0-9]{2}) ([ -~]*)\r\n"
    rb"((?:[!-9;-~]+:[\t -~\x80-\xff]*\r\n){1,99})"
    rb"\r\n"
)

#: Statuses without a body, whatever the head says of its length.
_BODILESS = (http.HTTPStatus.NO_CONTENT, http.HTTPStatus.NOT_MODIFIED)

#: Fields that say where the body ends. http.client and urllib3 differ in what they make of two.
_FRAMING = ("transfer-encoding", "content-length", "connection")

#: Digits of a length in the usual form: an exabyte less one.
_LENGTH_DIGITS = 18


#: As much of an answer as is looked at before any of it is taken: most answers are whole by then.
_FIRST_LOOK = 32768


class _Head(NamedTuple):
    """A head in the usual form; ``length`` is that of the body, which comes in chunks without."""

    size: int
    status: int
    reason: str
    fields: list[tuple[str, str]]
    length: int | None
    closes: bool


def _usual_head(data: bytes) -> _Head | None:
    """The head that ``data`` begins with, if it is there whole and in the usual form."""
    head = _USUAL_HEAD.match(data)
    if head is None:
        return None
    status, reason, lines = (part.decode("latin-1") for part in head.groups())
    fields = []
    framing: dict[str, str] = {}
    for line in lines.split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        value = value.lstrip(" \t")
        fields.append((name, value))
        if (known := name.lower()) in _FRAMING:
            if known in framing:
                return None
            framing[known] = value
    length = framing.get("content-length")
    chunked = framing.get("transfer-encoding", "").lower() == "chunked"
    if chunked == (length is not None) or ("transfer-encoding" in framing) != chunked:
        return None
    if length is not None and not (length.isdecimal() and len(length) <= _LENGTH_DIGITS):
        return None
    if int(status) in _BODILESS:
        return None
    return _Head(
        size=head.end(),
        status=int(status),
        reason=reason.strip(),
        fields=fields,
        length=None if length is None else int(length),
        closes="close" in framing.get("connection", "").lower(),
    )


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """An answer that was there whole at the first look; header names are lower-case."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    def stream(self, *_: object, **__: object) -> tuple[bytes]:
        """The body, as requests asks urllib3 for it."""
        return (self.body,)

    def close(self) -> None:
        """Nothing: the connection has gone back already."""


class Reader(io.BufferedReader):
    """The bytes of one answer."""

    lines = 0

    def __init__(self, sock: Any) -> None:
        super().__init__(sock.makefile("rb", buffering=0), _FIRST_LOOK)

    def makefile(self, *_: object) -> Reader:
        """Itself: http.client asks its socket for what to read from."""
        return self

    def whole(self) -> WholeAnswer | None:
        """The answer, if it is of the usual form and there whole, with nothing behind it.

        Waits for the first bytes and takes none: any other answer is there to be read from its
        beginning.
        """
        data = self.peek(1)
        head = _usual_head(data)
        if head is None or head.closes or head.length != len(data) - head.size:
            return None
        headers = {name.lower(): value for name, value in head.fields}
        if "content-encoding" in headers:
            return None
        return WholeAnswer(head.status, head.reason, headers, data[head.size :])

    def read(self, size: int | None = -1, /) -> bytes:
        """At most ``size`` bytes.

        A negative number here is the size of a chunk, which urllib3 reads as ``int`` does: -1 would
        mean everything until the connection closes, past every limit of bytes and time.
        """
        if size is None or size < 0:
            raise http.client.HTTPException(f"a chunk of {size} bytes")
        return super().read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        """One line; a line without end, and lines without end, are no HTTP."""
        limit = _LONGEST_LINE if size is None or size < 0 else size
        line = super().readline(limit)
        if len(line) == limit and not line.endswith(b"\n"):
            raise http.client.LineTooLong("answer")
        self.lines += 1
        if self.lines > _MOST_LINES:
            raise http.client.HTTPException(f"more than {_MOST_LINES} lines")
        return line


class BoundedResponse(http.client.HTTPResponse):
    """An answer whose bytes come through the reader above, and whose interim answers are skipped.

    http.client skips 100 alone, and takes 103 for the answer: the real one would then be the answer
    to the next call on the connection, which may be somebody else's.
    """

    _method: str | None

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        reader = sock if isinstance(sock, Reader) else Reader(sock)
        super().__init__(cast("socket.socket", reader), *args, **kwargs)

    def begin(self) -> None:
        """Read the head.

        http.client gives it to the parser of e-mail, which takes longer than all else of a call.
        So a head in the usual form is read here, and any other one there, from its first byte.
        """
        if self.headers is not None or not self._begin_as_usual():
            super().begin()

    def _begin_as_usual(self) -> bool:
        """Read a head in the usual form; false, with nothing read, if it is none.

        What is left behind is what http.client leaves behind after the same head.
        """
        head = None if self._method == "HEAD" else _usual_head(self.fp.peek(1))
        if head is None:
            return False
        self.fp.read(head.size)
        self.headers = self.msg = http.client.HTTPMessage()
        for name, value in head.fields:
            self.headers.set_raw(name, value)
        self.version, self.code, self.status = 11, head.status, head.status
        self.reason = head.reason
        self.length, self.chunked = head.length, head.length is None
        if self.chunked:
            self.chunk_left = None
        self.will_close = head.closes
        return True

    def _read_status(self) -> tuple[str, int, str]:
        """The status line. 101 is no interim answer, and was not asked for."""
        version, status, reason = super()._read_status()  # type: ignore[misc]
        if status == http.HTTPStatus.SWITCHING_PROTOCOLS:
            raise http.client.HTTPException("it changes the protocol, unasked")
        if status in _INTERIM:
            status = http.HTTPStatus.CONTINUE
        return version, status, reason
