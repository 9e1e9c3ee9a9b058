"""http.client's reading of an answer, held to what a server needs for one.

Lengths of body and header lines are bounded there and in urllib3. What is left without a bound, or
is read in a way that hurts, is bounded here.
"""

from __future__ import annotations

import http.client
import io
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

__all__ = ["BoundedResponse", "WholeAnswer", "as_it_comes"]

#: As much as is taken at once of what is there.
_MOST_AT_ONCE = 65536

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

_FIELD = re.compile(r"([^:\r\n]+):[\t ]*([^\r\n]*)\r\n")

#: Statuses without a body, whatever the head says of its length.
_BODILESS = (http.HTTPStatus.NO_CONTENT, http.HTTPStatus.NOT_MODIFIED)

#: Fields that say where the body ends. http.client and urllib3 differ in what they make of two.
_FRAMING = ("transfer-encoding", "content-length", "connection")

#: Digits of a length in the usual form: an exabyte less one.
_LENGTH_DIGITS = 18


class _Head(NamedTuple):
    """A head in the usual form; ``length`` is that of the body, which comes in chunks without.

    ``named`` has the last value of each field under its name in lower case.
    """

    size: int
    status: int
    reason: str
    fields: list[tuple[str, str]]
    named: dict[str, str]
    length: int | None
    closes: bool


def _usual_head(data: bytes) -> _Head | None:
    """The head that ``data`` begins with, if it is there whole and in the usual form."""
    head = _USUAL_HEAD.match(data)
    if head is None:
        return None
    status, reason, lines = (part.decode("latin-1") for part in head.groups())
    fields = _FIELD.findall(lines)
    named = {name.lower(): value for name, value in fields}
    if len(named) < len(fields):
        names = [name.lower() for name, _ in fields]
        if any(names.count(name) > 1 for name in _FRAMING):
            return None
    length = named.get("content-length")
    chunked = named.get("transfer-encoding", "").lower() == "chunked"
    if chunked == (length is not None) or ("transfer-encoding" in named) != chunked:
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
        named=named,
        length=None if length is None else int(length),
        closes="close" in named.get("connection", "").lower(),
    )


class WholeAnswer(NamedTuple):
    """An answer that came in one piece; header names are lower-case."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, data: bytes) -> Self | None:
        """The answer that ``data`` is, if it is of the usual form and whole, with nothing behind.

        One that ends with its connection, or is compressed, is not of the usual form.
        """
        head = _usual_head(data)
        if head is None or head.closes or head.length != len(data) - head.size:
            return None
        if "content-encoding" in head.named:
            return None
        return cls(head.status, head.reason, head.named, data[head.size :])

    def stream(self, *_: object, **__: object) -> tuple[bytes]:
        """The body, as requests asks urllib3 for it."""
        return (self.body,)

    def close(self) -> None:
        """Nothing: the connection has gone back already."""


class _Begun(io.RawIOBase):
    """The bytes that have come already, and then those of ``rest``."""

    def __init__(self, begun: bytes, rest: io.RawIOBase) -> None:
        self._begun, self._rest = begun, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if not self._begun:
            return self._rest.readinto(buffer)
        size = min(len(buffer), len(self._begun))
        buffer[:size], self._begun = self._begun[:size], self._begun[size:]
        return size

    def close(self) -> None:
        self._rest.close()
        super().close()


class _Reader(io.BufferedReader):
    """The bytes of one answer."""

    lines = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """At most ``size`` bytes.

        A negative number here is the size of a chunk, which urllib3 reads as ``int`` does: -1 would
        mean everything until the connection closes, past every limit of bytes and time.
        """
        if size is None or size < 0:
            raise http.client.HTTPException(f"a chunk of {size} bytes")
        return super().read(size)

    def read1(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes, and no waiting where there are some; negative as above."""
        if size < 0:
            raise http.client.HTTPException(f"a chunk of {size} bytes")
        return super().read1(size)

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
    to the next call on the connection, which may be somebody else's. ``begun`` are bytes of it that
    were read before.
    """

    _method: str | None

    def __init__(self, *args: Any, begun: bytes = b"", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp = _Reader(_Begun(begun, self.fp.detach()))

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

    def _read_next_chunk_size(self) -> int:
        """The size of the next chunk, where the body is read as it comes.

        http.client takes one that is no number for the end of the connection.
        """
        line = self.fp.readline()
        if not line:
            raise http.client.IncompleteRead(b"")
        try:
            return int(line.partition(b";")[0], 16)
        except ValueError:
            raise http.client.HTTPException("a chunk without a size") from None

    def _read_status(self) -> tuple[str, int, str]:
        """The status line. 101 is no interim answer, and was not asked for."""
        version, status, reason = super()._read_status()  # type: ignore[misc]
        if status == http.HTTPStatus.SWITCHING_PROTOCOLS:
            raise http.client.HTTPException("it changes the protocol, unasked")
        if status in _INTERIM:
            status = http.HTTPStatus.CONTINUE
        return version, status, reason


def as_it_comes(raw: Any) -> Iterator[bytes]:
    """The body of ``raw``, a ``WholeAnswer`` or an answer of urllib3, in the pieces it comes in.

    urllib3 would wait for a number of bytes where a body has a length or ends with its connection.
    """
    if isinstance(raw, WholeAnswer):
        yield from raw.stream()
        return
    while piece := raw.read1(_MOST_AT_ONCE, decode_content=True):
        yield piece
