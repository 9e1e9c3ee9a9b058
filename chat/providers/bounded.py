"""http.client's reading of an answer, held to what a server needs for one.

Lengths of body and header lines are bounded there and in urllib3. What is left without a bound, or
is read in a way that hurts, is bounded here.
"""

from __future__ import annotations

import http.client
import io
from typing import Any

__all__ = ["BoundedResponse"]

#: Characters of one line: a header, the size of a chunk, a trailer.
_LONGEST_LINE = 65536

#: Lines of one answer. Each chunk begins with one, so that a long answer in small pieces has many.
_MOST_LINES = 500_000

_INTERIM = range(100, 200)


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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp = _Reader(self.fp.detach())

    def _read_status(self) -> tuple[str, int, str]:
        """The status line. 101 is no interim answer, and was not asked for."""
        version, status, reason = super()._read_status()  # type: ignore[misc]
        if status == http.HTTPStatus.SWITCHING_PROTOCOLS:
            raise http.client.HTTPException("it changes the protocol, unasked")
        if status in _INTERIM:
            status = http.HTTPStatus.CONTINUE
        return version, status, reason
