"""A scripted upstream: a real HTTP/1.1 server on a free loopback port, for all test layers.

It records every request and answers by script: from a queue first, then with a standing answer.

    with ScriptedUpstream() as upstream:
        upstream.always(Answer.json({"done": True}))         # every request from here on
        upstream.then(Answer.json({"error": "busy"}, 503))   # but the next one first
        ...
        upstream.wait_for(2)[1].json()                       # the second request's body

An answer is a sequence of steps: bytes to send as they are, an Event to wait for, and the ends of
``End``. Scripts never sleep: they wait for an Event that the test sets, and go on at once when the
client hangs up, which ``Connection.hung_up`` tells.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
import select
import socket
import socketserver
import ssl
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.waiting import eventually

__all__ = ["CERTIFICATE", "Answer", "Connection", "End", "Request", "ScriptedUpstream"]

_TLS = Path(__file__).parent / "wire" / "tls"

#: The certificate of an upstream with ``tls=True``; a client has to trust it as its own authority.
CERTIFICATE = _TLS / "certificate.pem"

#: Below the range from which the kernel takes the ports of outgoing connections.
_PORTS = range(20000, 32000)

#: How often a waiting script looks whether its client is still there.
_LOOK_S = 0.01

_HUNG_UP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class End(Enum):
    """How a script ends a connection instead of keeping it for the next request."""

    CLOSE = auto()
    RESET = auto()


@dataclass(frozen=True)
class _Forever:
    """``piece`` without end: as fast as it goes, or now and then."""

    piece: bytes
    slowly: bool = False


Step = bytes | threading.Event | End | _Forever


@dataclass(frozen=True)
class Answer:
    """What the upstream does with one request, step by step."""

    steps: tuple[Step, ...]

    @classmethod
    def raw(cls, *steps: Step) -> Self:
        """Exactly these steps."""
        return cls(steps)

    @classmethod
    def of(
        cls,
        body: bytes,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        *,
        after: threading.Event | None = None,
    ) -> Self:
        """``body`` with a Content-Length, all of it withheld until ``after`` is set."""
        head = _head(status, headers, {"content-length": str(len(body))})
        waits: tuple[Step, ...] = () if after is None else (after,)
        return cls((*waits, head + body))

    @classmethod
    def json(
        cls,
        body: object,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        *,
        after: threading.Event | None = None,
    ) -> Self:
        """``body`` as JSON, all of it withheld until ``after`` is set."""
        merged = {"content-type": "application/json", **(headers or {})}
        return cls.of(json.dumps(body).encode(), status, merged, after=after)

    @classmethod
    def payload(cls, payload: Mapping[str, Any]) -> Self:
        """An example answer of ``tests/wire/payloads``: its status, headers and body."""
        body = payload["body_text"] if "body_text" in payload else json.dumps(payload["body"])
        return cls.of(body.encode(), payload["status"], payload["headers"])

    @classmethod
    def chunked(cls, pieces: Iterable[bytes | threading.Event], *, ended: bool = True) -> Self:
        """A 200 in chunks, with Events to wait for between them; unended, the body stays open."""
        steps: list[Step] = [_head(200, None, {"transfer-encoding": "chunked"})]
        steps += [_chunk(piece) if isinstance(piece, bytes) else piece for piece in pieces]
        if ended:
            steps.append(b"0\r\n\r\n")
        return cls(tuple(steps))

    @classmethod
    def until_close(cls, pieces: Iterable[bytes | threading.Event]) -> Self:
        """A 200 without a length, whose end is the end of the connection."""
        return cls((_head(200, {"connection": "close"}, {}), *pieces, End.CLOSE))

    @classmethod
    def streamed(
        cls, pieces: Iterable[bytes | threading.Event], kind: str, *, framing: str = "chunks"
    ) -> Self:
        """A 200 with this content type whose body comes in ``pieces``, with Events between them.

        ``framing`` is ``"chunks"``, ``"length"`` or ``"close"``, as ``chunked``, ``of`` and
        ``until_close`` have it.
        """
        steps = list(pieces)
        if framing == "chunks":
            head = _head(200, {"content-type": kind}, {"transfer-encoding": "chunked"})
            chunks = [_chunk(step) if isinstance(step, bytes) else step for step in steps]
            return cls((head, *chunks, b"0\r\n\r\n"))
        if framing == "close":
            head = _head(200, {"content-type": kind, "connection": "close"}, {})
            return cls((head, *steps, End.CLOSE))
        length = sum(len(step) for step in steps if isinstance(step, bytes))
        head = _head(200, {"content-type": kind}, {"content-length": str(length)})
        return cls((head, *steps))

    @classmethod
    def cut(cls, body: bytes, at: int, *, status: int = 200, by: End = End.CLOSE) -> Self:
        """``body`` with its full Content-Length, of which only the first ``at`` bytes come."""
        head = _head(status, None, {"content-length": str(len(body))})
        return cls((head + body[:at], by))

    @classmethod
    def endless(
        cls, piece: bytes, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Self:
        """An answer in chunks that never ends."""
        head = _head(status, headers, {"transfer-encoding": "chunked"})
        return cls((head, _Forever(_chunk(piece))))

    @classmethod
    def raw_endless(cls, begin: bytes, piece: bytes, *, slowly: bool = False) -> Self:
        """Exactly ``begin``, and then ``piece`` after piece."""
        return cls((begin, _Forever(piece, slowly)))


@dataclass
class Connection:
    """One TCP connection.

    ``hung_up`` is set when the client was seen to have closed it, ``ended`` when our own end is
    closed, whoever began.
    """

    number: int
    hung_up: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Request:
    """One request as it came; header names are lower-case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: Connection

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class ScriptedUpstream:
    """The server; starts when it is made, and ``close`` (or leaving its context) ends it.

    ``connections`` has every TCP connection in the order of their coming.
    """

    def __init__(self, *, tls: bool = False) -> None:
        self.connections: list[Connection] = []
        self._requests: list[Request] = []
        self._changed = threading.Condition()
        self._queue: deque[Answer] = deque()
        self._standing: Callable[[Request], Answer] = lambda _: Answer.json(
            {"error": "no script"}, 500
        )
        self._numbers = itertools.count(1)
        self._server = _listen(self)
        self._server.tls = _server_context() if tls else None
        host, self.port = "127.0.0.1", self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_LOOK_S,), name=f"upstream-{self.port}"
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    @property
    def closing(self) -> threading.Event:
        """Set when the server closes: what a script waits for that is never to go on."""
        return self._server.closing

    @property
    def requests(self) -> list[Request]:
        """The requests so far."""
        with self._changed:
            return list(self._requests)

    def always(self, answer: Answer | Callable[[Request], Answer]) -> None:
        """Answer every request like this, when nothing is queued."""
        self._standing = (lambda _: answer) if isinstance(answer, Answer) else answer

    def then(self, *answers: Answer) -> None:
        """Answer the next requests like this, one answer each."""
        self._queue.extend(answers)

    def wait_for(self, count: int, *, within_s: float = 30.0) -> list[Request]:
        """The requests, as soon as there are ``count`` of them."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self._requests) >= count, within_s)
            assert came, f"{len(self._requests)} of {count} requests within {within_s} s"
            return list(self._requests)

    def wait_for_hang_up(self, request: Request, *, within_s: float = 30.0) -> None:
        """Wait until the client has closed the connection of ``request``."""
        eventually(request.connection.hung_up.is_set, within_s=within_s, what="hang-up")

    def close(self) -> None:
        """End all scripts and connections, and stop listening."""
        self._server.closing.set()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()

    def _connected(self) -> Connection:
        connection = Connection(next(self._numbers))
        self.connections.append(connection)
        return connection

    def _answer_to(self, request: Request) -> Answer:
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()
            queued = self._queue.popleft() if self._queue else None
        return self._standing(request) if queued is None else queued


class _NotHTTPError(Exception):
    """The client began with something that is no request line, such as a TLS handshake."""


class _Server(socketserver.ThreadingTCPServer):
    """One thread per connection, all of them joined by ``server_close``."""

    request_queue_size = 512
    daemon_threads = False
    tls: ssl.SSLContext | None = None

    def __init__(self, port: int, upstream: ScriptedUpstream) -> None:
        self.upstream = upstream
        self.closing = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def serving(self, sock: socket.socket) -> None:
        """Remember a connection, so that ``hang_up`` reaches it."""
        with self._lock:
            self._sockets.add(sock)

    def served(self, sock: socket.socket) -> None:
        """Forget a connection before it is closed."""
        with self._lock:
            self._sockets.discard(sock)

    def hang_up(self) -> None:
        """Wake every thread that reads from or writes to its client."""
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        """Let a fault in a script be seen by pytest, not only by its connection."""
        raise AssertionError("the scripted upstream failed") from sys.exception()


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        """Serve one connection until either side ends it."""
        connection = self.server.upstream._connected()
        sock: socket.socket = self.request
        try:
            # Else the kernel would gather pieces that a script sends one by one.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.server.tls is not None:
                # Here rather than in accept, so that a client which stalls holds up only itself.
                sock = self.server.tls.wrap_socket(sock, server_side=True)
            self.server.serving(sock)
            with sock.makefile("rb") as stream:
                while (request := _read_request(stream, connection)) is not None:
                    answer = self.server.upstream._answer_to(request)
                    if not self._play(sock, answer, connection):
                        break
                else:
                    connection.hung_up.set()
        except _NotHTTPError:
            sock.sendall(_head(400, None, {"content-length": "0"}))
        except OSError:
            # Whatever failed on the way, a handshake, a read or a write: the client has gone.
            connection.hung_up.set()
        finally:
            self.server.served(sock)
            sock.close()
            connection.ended.set()

    def _play(self, sock: socket.socket, answer: Answer, connection: Connection) -> bool:
        """Play one answer; whether the connection stays open after it."""
        for step in answer.steps:
            match step:
                case bytes():
                    sock.sendall(step)
                case threading.Event():
                    if not self._wait(sock, step, connection):
                        return False
                case _Forever():
                    while not self.server.closing.wait(_LOOK_S if step.slowly else 0):
                        sock.sendall(step.piece)
                case End.RESET:
                    # A linger of zero seconds makes closing send RST instead of FIN.
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return False
                case End.CLOSE:
                    return False
        return True

    def _wait(self, sock: socket.socket, event: threading.Event, connection: Connection) -> bool:
        """Wait for ``event``; false if the client hung up or the server closes meanwhile."""
        poll = select.poll()
        poll.register(sock, _HUNG_UP)
        while not event.wait(_LOOK_S):
            if poll.poll(0):
                connection.hung_up.set()
                return False
            if self.server.closing.is_set():
                return False
        return True


def _listen(upstream: ScriptedUpstream) -> _Server:
    """A server on a port that was free."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            return _Server(random.choice(_PORTS), upstream)
    raise AssertionError(f"no free port in {_PORTS}")


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, _TLS / "key.pem")
    return context


def _read_request(stream: Any, connection: Connection) -> Request | None:
    """The next request, or None when the client has closed the connection."""
    first = stream.peek(1)[:1]
    if not first:
        return None
    if not first.isalpha():
        raise _NotHTTPError
    method, path, _version = stream.readline().decode("latin-1").split()
    parsed = http.client.parse_headers(stream)
    headers = {name.lower(): value for name, value in parsed.items()}
    body = stream.read(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body, connection)


def _head(status: int, headers: Mapping[str, str] | None, framing: Mapping[str, str]) -> bytes:
    fields = {**(headers or {}), **framing}
    lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)
