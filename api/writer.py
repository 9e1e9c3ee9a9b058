"""gunicorn's answer to one request, sent with less work and in one piece."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

from gunicorn.http.errors import InvalidResponseHeader, InvalidResponseHeaderName
from gunicorn.http.message import TOKEN_RE
from gunicorn.http.wsgi import HEADER_VALUE_RE, Response
from gunicorn.util import http_date, is_hoppish

__all__ = ["OnePiece"]

#: Bytes up to which a body is copied behind its head.
_SMALL_BODY = 65536
_LENGTH = "content-length"


class OnePiece(Response):  # type: ignore[misc]  # gunicorn has no types
    """An answer whose head leaves together with what follows it.

    gunicorn sends the head by itself, and the body after it: two system calls here, and two
    wake-ups of whoever reads. ``flush`` at the end sends a head that nothing has followed.
    """

    headers_sent: bool
    _head = b""

    @property
    def begun(self) -> bool:
        """Whether any of it has left."""
        return self.headers_sent and not self._head

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        """Take over the headers of the application. Raises what cannot stand in a head."""
        for name, given in headers:
            # Whoever could put the end of a line into a header would write our answers.
            if not HEADER_VALUE_RE.fullmatch(given):
                raise InvalidResponseHeader(repr(name))
            value = given.strip(" \t")
            kind = _kind(name)
            if kind == _LENGTH:
                self.response_length = int(value)
            elif kind == "hop":
                continue
            self.headers.append((name, value))

    def send_headers(self) -> None:
        """Write the head, which waits for what follows."""
        if self.headers_sent:
            return
        major, minor = self.req.version
        end = "close" if self.should_close() else "keep-alive"
        coding = "Transfer-Encoding: chunked\r\n" if self.chunked else ""
        lines = "".join([f"{name}: {value}\r\n" for name, value in self.headers])
        self._head = (
            f"HTTP/{major}.{minor} {self.status}\r\nServer: {self.version}\r\n"
            f"Date: {_date(int(time.time()))}\r\nConnection: {end}\r\n{coding}{lines}\r\n"
        ).encode("latin-1")
        self.headers_sent = True

    def flush(self) -> None:
        """Send the head if it still waits. Raises ``OSError``."""
        head, self._head = self._head, b""
        if head:
            self.sock.sendall(head)

    def _emit_body(self, data: bytes) -> None:
        if len(data) > _SMALL_BODY:
            self.flush()
            super()._emit_body(data)
            return
        head, self._head = self._head, b""
        # What comes piece by piece leaves piece by piece: nothing waits for the next one.
        self.sock.sendall(head + (b"%X\r\n%s\r\n" % (len(data), data) if self.chunked else data))

    def sendfile(self, respiter: Any) -> bool:
        """Send a file, which is not to overtake its head. Raises ``OSError``."""
        self.send_headers()
        self.flush()
        sent: bool = super().sendfile(respiter)
        return sent

    def close(self) -> None:
        """The answer is at its end. Raises ``OSError``."""
        self.send_headers()
        self.flush()
        super().close()


# All names are the application's own, a few dozen.
@lru_cache(maxsize=256)
def _kind(name: str) -> str:
    """What a header is: a length, one that only the server may send (``hop``), or any other."""
    if not TOKEN_RE.fullmatch(name):
        raise InvalidResponseHeaderName(repr(name))
    lower = name.lower()
    return _LENGTH if lower == _LENGTH else "hop" if is_hoppish(name) else ""


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    date: str = http_date(second)
    return date
