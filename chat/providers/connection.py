"""HTTP connections that an attempt can stop in every phase.

A blocked ``connect``, TLS handshake, send or read ends at once when its TCP connection is shut
down; closing a socket object does not wake whoever waits on it. Neither requests nor urllib3
hands that socket out (``conn.sock`` is even ``None`` while a body without a length is read), so
the connection classes below give it to the attempt on whose behalf they work. They find the
attempt through a thread-local, since the pool in between knows nothing of it.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
from collections.abc import Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidProxyURL
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
)
from urllib3.response import HTTPResponse

from chat.keepalive import tcp_options
from chat.providers.attempt import Attempt, AttemptStopped
from chat.providers.bounded import BoundedResponse, WholeAnswer
from chat.providers.names import addresses

__all__ = ["StoppableAdapter"]


class _Writer(HTTPConnection):
    """Keeps what urllib3 writes, and sends nothing."""

    def __init__(self, host: str, port: int | None) -> None:
        super().__init__(host, port)
        self.written: list[bytes] = []

    def send(self, data: Any) -> None:
        self.written.append(data)


_LENGTH = "Content-Length"

#: As much of an answer as is looked at before it is known how it is to be read: mostly all of it.
_FIRST_LOOK = 32768


@functools.lru_cache(maxsize=256)
def _head(default_port: int, host: str, port: int, target: str, *fields: tuple[str, Any]) -> bytes:
    """The head of a POST up to its length, as urllib3 writes and checks it."""
    writer = _Writer(host, port)
    # On an instance, since http and https have a port of their own, which no Host field names.
    writer.default_port = default_port  # type: ignore[misc]
    writer.request("POST", target, headers=dict([*fields, (_LENGTH, "0")]))
    return b"".join(writer.written).removesuffix(b"Content-Length: 0\r\n\r\n")


class _StoppableHTTP(HTTPConnection):
    """Gives its socket to the current attempt before it connects and whenever it is used again."""

    #: What has come of the answer that is read next, before it was known how to read it.
    _begun = b""

    #: What the request under way has of its head and body so far.
    _unsent: list[bytes] | None = None

    #: The connection's duplicate of its socket, by which an attempt stops it.
    _wire: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        """Connect to the first address that answers, as urllib3 does, with the attempt attached.

        urllib3 makes the socket and connects it in one step, out of reach of any other thread.
        """
        attempt = Attempt.current()
        if attempt is not None:
            attempt.connecting()
        try:
            found = addresses(self.host, self.port)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        failure: OSError | None = None
        for family, kind, protocol, _, address in found:
            try:
                return self._connected(socket.socket(family, kind, protocol), address)
            except AttemptStopped:
                raise
            except OSError as error:
                failure = error
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, "Connecting timed out") from failure
        raise NewConnectionError(self, f"Connecting failed: {failure}") from failure

    def _connected(self, sock: socket.socket, address: Any) -> socket.socket:
        """``sock`` connected to ``address``, whose shape depends on the address family."""
        attempt = Attempt.current()
        try:
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            sock.settimeout(self.timeout)
            self._wire = sock.dup()
            # Both are one to the kernel, and a socket with a time limit does not block there.
            self._wire.settimeout(0)
            if attempt is not None:
                attempt.attach(self._wire)
            sock.connect(address)
        except OSError:
            sock.close()
            self._close_wire()
            if attempt is not None:
                attempt.check()
            raise
        return sock

    @property
    def is_connected(self) -> bool:
        """Whether the other side has neither closed the connection nor said anything unasked.

        urllib3 polls, for which gevent makes a watcher and goes through its loop.
        """
        if self.sock is None or self._wire is None:
            return False
        try:
            self._wire.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close the connection, as far as no answer is being read from it."""
        try:
            super().close()
        finally:
            self._close_wire()

    def _close_wire(self) -> None:
        wire, self._wire = self._wire, None
        attempt = Attempt.current()
        if wire is not None and not (attempt is not None and attempt.take_over(wire)):
            wire.close()

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request, on a connection that stands already or on a new one."""
        if self.sock is None:
            self.connect()
        attempt = Attempt.current()
        if attempt is not None and self._wire is not None:
            attempt.begin_sending(self._wire)
            # urllib3 lets the time limit for connecting hold for sending as well, which is too
            # little for a body with images on a slow line.
            self.timeout = attempt.silence_s
        # http.client sends head and body by themselves: twice the work for the kernel, which wakes
        # the other side twice.
        self._unsent = []
        try:
            super().request(*args, **kwargs)
            request = b"".join(self._unsent)
        finally:
            self._unsent = None
        self.send(request)

    def exchange(
        self, target: str, headers: Mapping[str, Any], body: bytes, silence_s: float | None
    ) -> WholeAnswer | HTTPResponse:
        """POST to ``target`` on this connection, which stands, and read the answer or its head.

        ``request`` and ``getresponse`` take several times as long as the rest of a call. Here a
        request is what they have written of one like it, and an answer that is whole at the first
        look is read without them. Any other they read from its first byte.
        """
        fields = [field for field in headers.items() if field[0] != _LENGTH]
        head = _head(self.default_port, self._dns_host, self.port, target, *fields)
        attempt = Attempt.current()
        if attempt is not None and self._wire is not None:
            attempt.begin_sending(self._wire)
        self.timeout = silence_s
        self.sock.settimeout(silence_s)
        # An upstream may answer and hang up before it has read everything.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._send_all(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
        begun = self.sock.recv(_FIRST_LOOK)
        whole = WholeAnswer.of(begun)
        if whole is not None:
            return whole
        # This sends nothing: it tells http.client that a request is out, whose answer may come.
        self._unsent = []
        try:
            super().request("POST", target, preload_content=False, decode_content=False)
            self._begun = begun
            return self.getresponse()
        finally:
            self._unsent, self._begun = None, b""

    def _send_all(self, data: bytes) -> None:
        """Send ``data``, which mostly goes in one piece; gevent asks a lot before it sends two."""
        sent = self.sock.send(data)
        if sent < len(data):
            self.sock.sendall(memoryview(data)[sent:])

    def response_class(  # type: ignore[override]
        self, *args: Any, **kwargs: Any
    ) -> BoundedResponse:
        """The answer that has begun, or begins with the next byte."""
        return BoundedResponse(*args, begun=self._begun, **kwargs)

    def send(self, data: Any) -> None:
        """Send ``data``, or keep it until the request is whole."""
        if self._unsent is None:
            super().send(data)
        else:
            self._unsent.append(data)


class _StoppableHTTPS(_StoppableHTTP, HTTPSConnection):
    """The same over TLS; the handshake belongs to connecting and can be stopped as well."""


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _StoppableHTTP

    def exchange(
        self, target: str, headers: Mapping[str, Any], body: bytes, silence_s: float | None
    ) -> WholeAnswer | HTTPResponse | None:
        """POST to ``target`` on a connection that stands already; None if there is none."""
        conn: Any = self._get_conn()
        if conn.is_closed:
            super()._put_conn(conn)
            return None
        answer: WholeAnswer | HTTPResponse | None = None
        try:
            answer = conn.exchange(target, headers, body, silence_s)
        finally:
            if answer is None:
                conn.close()
            if answer is None or isinstance(answer, WholeAnswer):
                self._put_conn(conn)
            else:
                # It gives the connection back once it is read.
                answer._connection, answer._pool = conn, self  # noqa: SLF001
        return answer

    def _put_conn(self, conn: Any) -> None:
        """Take a connection back, unless its attempt was stopped.

        From here on another thread may be using the connection. So the attempt ends first, and one
        that was stopped until now has shut the connection down.
        """
        attempt = Attempt.current()
        if conn is not None and attempt is not None:
            attempt.finish()
            if attempt.stopped is not None:
                conn.close()
        super()._put_conn(conn)


class _HTTPSPool(_HTTPPool, HTTPSConnectionPool):
    ConnectionCls = _StoppableHTTPS


_POOLS: dict[str, type[HTTPConnectionPool]] = {"http": _HTTPPool, "https": _HTTPSPool}

#: A call waits for minutes without a byte. Probes keep a NAT or a firewall on the way from
#: forgetting the connection, and find out when the other side is gone, also of one that no call
#: uses.
_KEEPALIVE = tcp_options(idle_s=30, every_s=10, dead_s=60)
_SOCKET_OPTIONS = [
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *((socket.IPPROTO_TCP, *option) for option in _KEEPALIVE.items()),
]


_NO_WAY: tuple[None, str] = None, ""

#: What an answer is made of. requests would make a jar for cookies for each, and a lock for it.
_BLANK = vars(requests.Response())


class StoppableAdapter(HTTPAdapter):
    """requests over the connections above, directly or through an HTTP proxy; for a few URLs.

    How a URL is reached, and whom it has to prove itself to, is looked up by the first call there
    and kept for those that follow. Answers have a status, headers and a raw body, nothing else:
    no cookies are read out of them, and no encoding is guessed.
    """

    def __init__(self, **options: Any) -> None:
        self._ways: dict[str | None, tuple[_HTTPPool, str]] = {}
        super().__init__(**options)

    def close(self) -> None:
        """Close the connections that no call uses now."""
        self._ways.clear()
        super().close()

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: Any,
        proxies: Any = None,
        cert: Any = None,
    ) -> HTTPConnectionPool:
        """The pool whose connections lead to the URL of ``request``."""
        way = self._ways.get(request.url)
        if way is None:
            pool: Any = super().get_connection_with_tls_context(request, verify, proxies, cert)
            super().cert_verify(pool, request.url or "", verify, cert)
            way = self._ways[request.url] = pool, super().request_url(request, proxies)
        return way[0]

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Nothing: whom to trust is part of what was looked up."""

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """What the request line names: the path, or the whole URL for a proxy."""
        way = self._ways.get(request.url)
        return super().request_url(request, proxies) if way is None else way[1]

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002 - as requests has it
        timeout: Any = None,
        verify: Any = True,  # noqa: FBT002 - as requests has it
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Make a call; one where a connection stands already takes the shortest way there is."""
        pool, target = self._ways.get(request.url, _NO_WAY)
        body = request.body if request.method == "POST" else None
        if pool is not None and pool.proxy is None and isinstance(body, bytes):
            silence_s = timeout[1] if isinstance(timeout, tuple) else timeout
            try:
                answer = pool.exchange(target, request.headers, body, silence_s)
            except (OSError, http.client.HTTPException) as error:
                fault = ProtocolError("Connection aborted.", error)
                raise requests.ConnectionError(fault, request=request) from error
            if answer is not None:
                return self.build_response(request, answer)
        return super().send(request, stream, timeout, verify, cert, proxies)

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """The answer, without what nobody here asks for."""
        response = requests.Response.__new__(requests.Response)
        vars(response).update(
            _BLANK,
            status_code=resp.status,
            reason=resp.reason,
            headers=resp.headers,
            raw=resp,
            request=req,
            url=req.url,
        )
        return response

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools; the base class calls this while it is being built."""
        super().init_poolmanager(*args, socket_options=_SOCKET_OPTIONS, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """The pools that go through ``proxy``; SOCKS is refused, since its connections are others.

        Those could not be stopped.
        """
        if proxy.lower().startswith("socks"):
            raise InvalidProxyURL("chatd works through HTTP proxies, not through SOCKS")
        manager = super().proxy_manager_for(proxy, socket_options=_SOCKET_OPTIONS, **proxy_kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager
