"""The head of an answer, held against http.client: what is read by hand is read as it reads it."""

from __future__ import annotations

import http.client
import socket

import pytest

from chat.providers.bounded import BoundedResponse

_STATUS = b"HTTP/1.1 200 OK\r\n"
_BODY = b'{"done": true}'
_LENGTH = b"Content-Length: %d\r\n" % len(_BODY)


def head(*lines: bytes, status: bytes = _STATUS) -> bytes:
    """A head with these lines."""
    return status + b"".join(lines) + b"\r\n"


_HEADS = [
    pytest.param(head(_LENGTH), id="a length"),
    pytest.param(head(_LENGTH, b"a:b\r\n", b"C-d: \t e f \t\r\n", b"g:\r\n"), id="odd blanks"),
    pytest.param(head(_LENGTH, b"Set-Cookie: a=1\r\n", b"set-cookie: b=2\r\n"), id="a field twice"),
    pytest.param(head(_LENGTH, b"x: caf\xe9 \xff\r\n"), id="Latin-1"),
    pytest.param(head(_LENGTH, b"x: a\x85b\x0bc\x1cd\r\n"), id="other ends of lines"),
    pytest.param(head(_LENGTH, b"x: a\x00b\r\n"), id="a NUL"),
    pytest.param(head(_LENGTH, b"x: a\rb: c\r\n"), id="a bare carriage return"),
    pytest.param(head(_LENGTH, b"x: a\r\n", b" folded\r\n"), id="folded"),
    pytest.param(head(_LENGTH, b"no colon\r\n", b"x: y\r\n"), id="no colon"),
    pytest.param(head(_LENGTH, b": x\r\n"), id="no name"),
    pytest.param(head(_LENGTH, b"a b: c\r\n"), id="a blank in a name"),
    pytest.param(head(_LENGTH, b"From me\r\n"), id="an mbox line"),
    pytest.param(head(_LENGTH).replace(b"\r\n", b"\n"), id="bare newlines"),
    pytest.param(head(_LENGTH, b"Connection: Close\r\n"), id="closes"),
    pytest.param(head(_LENGTH, b"Connection: keep-alive, close\r\n"), id="closes after all"),
    pytest.param(head(_LENGTH, b"Connection: x\r\n", b"Connection: close\r\n"), id="closes late"),
    pytest.param(head(_LENGTH, _LENGTH), id="two lengths"),
    pytest.param(head(b"Content-Length: 1\r\n", b"content-length: 2\r\n"), id="other lengths"),
    pytest.param(head(b"Content-Length: -1\r\n"), id="a negative length"),
    pytest.param(head(b"Content-Length: +5\r\n"), id="a signed length"),
    pytest.param(head(b"Content-Length: 1_0\r\n"), id="a length with an underscore"),
    pytest.param(head(b"Content-Length: \xb2\r\n"), id="a superscript for a length"),
    pytest.param(head(b"Content-Length: 5 \r\n"), id="a length with a blank"),
    pytest.param(head(b"Content-Length: " + b"9" * 5000 + b"\r\n"), id="a length past all numbers"),
    pytest.param(head(b"Content-Length: \r\n"), id="an empty length"),
    pytest.param(head(b"x: y\r\n"), id="no length"),
    pytest.param(head(), id="no field"),
    pytest.param(head(b"Transfer-Encoding: Chunked\r\n"), id="chunks"),
    pytest.param(head(b"Transfer-Encoding: chunked \r\n"), id="chunks with a blank"),
    pytest.param(head(b"Transfer-Encoding: gzip, chunked\r\n"), id="chunks of gzip"),
    pytest.param(head(b"Transfer-Encoding: identity\r\n", _LENGTH), id="no encoding"),
    pytest.param(head(b"Transfer-Encoding: chunked\r\n", _LENGTH), id="chunks and a length"),
    pytest.param(head(_LENGTH, status=b"HTTP/1.0 200 OK\r\n"), id="HTTP/1.0"),
    pytest.param(head(_LENGTH, status=b"HTTP/1.5 200 OK\r\n"), id="HTTP/1.5"),
    pytest.param(head(_LENGTH, status=b"HTTP/1.1 200\r\n"), id="no reason"),
    pytest.param(head(_LENGTH, status=b"HTTP/1.1 429 Too  Many \r\n"), id="a long reason"),
    pytest.param(head(_LENGTH, status=b"HTTP/1.1 204 No Content\r\n"), id="204"),
    pytest.param(head(_LENGTH, status=b"HTTP/1.1 304 Not Modified\r\n"), id="304"),
    pytest.param(head(_LENGTH, status=b"HTTP/1.1 999 Odd\r\n"), id="999"),
    pytest.param(head(_LENGTH, status=b"HTTP/1.1 100 Continue\r\n\r\n" + _STATUS), id="100 first"),
    pytest.param(head(_LENGTH, *[b"x: y\r\n"] * 98), id="99 fields"),
    pytest.param(head(_LENGTH, *[b"x: y\r\n"] * 99), id="100 fields"),
    pytest.param(head(_LENGTH, *[b"x: y\r\n"] * 100), id="101 fields"),
    pytest.param(head(_LENGTH, b"x: " + b"y" * 60_000 + b"\r\n"), id="more than one read"),
    pytest.param(_STATUS + _LENGTH, id="cut short"),
    pytest.param(b"", id="nothing"),
]


def read(
    kind: type[http.client.HTTPResponse], data: bytes, method: str
) -> tuple[object, ...] | type[Exception]:
    """What an answer of these bytes leaves behind, or how it fails."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        response = kind(ours, method=method)
        try:
            response.begin()
            message = response.headers
            return (
                (response.status, response.reason, response.version, response.will_close),
                (response.chunked, response.chunk_left, response.length),
                (message.items(), list(map(repr, message.defects)), message.get_payload() or None),
                message.get("CONTENT-LENGTH"),
                response.fp.read(99_999),
            )
        except (http.client.HTTPException, ValueError) as error:
            return type(error)
        finally:
            response.close()


@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("data", _HEADS)
def test_a_head_is_read_as_http_client_reads_it(data: bytes, method: str) -> None:
    """Status, fields, where the body ends, and that it begins where the head ends."""
    assert read(BoundedResponse, data + _BODY, method) == read(
        http.client.HTTPResponse, data + _BODY, method
    )
