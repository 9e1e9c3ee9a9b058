"""HTTP connections that another thread can stop in every phase, and the attempt that owns one.

A blocked ``connect``, TLS handshake, send or read ends at once when its TCP connection is shut
down; closing a socket object does not wake whoever waits on it. Neither requests nor urllib3
hands that socket out (``conn.sock`` is even ``None`` while a body without a length is read), so
the connection classes below give it to the attempt on whose behalf they work. They find the
attempt through a thread-local, since the pool in between knows nothing of it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidProxyURL
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from chat.keepalive import tcp_options
from chat.providers.bounded import BoundedResponse
from chat.providers.names import addresses
from chat.providers.watchdog import StopReason, Watchdog

__all__ = ["Attempt", "AttemptStopped", "StoppableAdapter"]

#: With a linger time of zero the last close sends RST. An upstream that is busy sending would not
#: notice a FIN, and could take it for a half-closed connection whose answer is still wanted.
_ABORT = struct.pack("ii", 1, 0)


class AttemptStopped(OSError):
    """The attempt was stopped; an OSError, so that urllib3 drops the connection as a broken one."""


class _Current(threading.local):
    attempt: Attempt | None = None


_current = _Current()


class Attempt:
    """One upstream call on the wire, which the deadline or another thread may stop at any moment.

    Use it as a context manager round the whole exchange, body included. ``stopped`` is final once
    the context is left, and what was read counts only if it is ``None``: a body that was cut short
    can look complete. ``sent`` says whether any byte of the request may have left.

    The attempt holds a duplicate of the socket's descriptor. It stays valid while TLS takes the
    descriptor over and when urllib3 closes its own, so stopping never meets a number that the
    kernel has given to somebody else's socket.
    """

    def __init__(
        self, watchdog: Watchdog, *, connect_by: float, deadline: float, silence_s: float
    ) -> None:
        self.sent = False
        self.stopped: StopReason | None = None
        self.silence_s = silence_s
        self._watchdog = watchdog
        self._connect_by = connect_by
        self._deadline = deadline
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._over = False

    def __enter__(self) -> Self:
        _current.attempt = self
        connecting_ends_first = self._connect_by < self._deadline
        self._watchdog.watch(
            self,
            min(self._connect_by, self._deadline),
            StopReason.CONNECT if connecting_ends_first else StopReason.DEADLINE,
        )
        return self

    def __exit__(self, *_: object) -> None:
        _current.attempt = None
        self.finish()

    def stop(self, reason: StopReason) -> None:
        """End the exchange now, from any thread; without effect once it is over."""
        with self._lock:
            late_alarm = reason is StopReason.CONNECT and self.sent
            if self._over or self.stopped is not None or late_alarm:
                return
            self.stopped = reason
            if self._socket is not None:
                # A connection that is already broken has nothing left to shut down.
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                    self._socket.shutdown(socket.SHUT_RDWR)

    def cancel(self) -> None:
        """Stop because somebody cancelled the call."""
        self.stop(StopReason.CANCELLED)

    def attach(self, descriptor: int) -> None:
        """Remember the socket in use; raises AttemptStopped if the attempt was stopped before."""
        with self._lock:
            self._attach(descriptor)

    def begin_sending(self, descriptor: int) -> None:
        """The connection stands and the request goes out: from here on only the deadline counts.

        Raises AttemptStopped if the attempt was stopped before, when nothing has been sent yet.
        """
        with self._lock:
            self._attach(descriptor)
            self.sent = True
        self._watchdog.watch(self, self._deadline, StopReason.DEADLINE)

    def finish(self) -> None:
        """Nothing can stop the attempt after this; what has stopped it before stays."""
        with self._lock:
            self._over = True
            self._detach()
        self._watchdog.forget(self)

    def check(self) -> None:
        """Raise AttemptStopped if the attempt was stopped."""
        if self.stopped is not None:
            raise AttemptStopped(self.stopped.value)

    def _attach(self, descriptor: int) -> None:
        self.check()
        self._detach()
        # Family and kind do not matter for shutting down, and TLS inside TLS does not tell them.
        self._socket = socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM)

    def _detach(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class _StoppableHTTP(HTTPConnection):
    """Gives its socket to the current attempt before it connects and whenever it is used again."""

    response_class = BoundedResponse

    #: What the request under way has of its head and body so far.
    _unsent: list[bytes] | None = None

    def _new_conn(self) -> socket.socket:
        """Connect to the first address that answers, as urllib3 does, with the attempt attached.

        urllib3 makes the socket and connects it in one step, out of reach of any other thread.
        """
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
        attempt = _current.attempt
        try:
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            sock.settimeout(self.timeout)
            if attempt is not None:
                attempt.attach(sock.fileno())
            sock.connect(address)
        except OSError:
            sock.close()
            if attempt is not None:
                attempt.check()
            raise
        return sock

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request, on a connection that stands already or on a new one."""
        if self.sock is None:
            self.connect()
        attempt = _current.attempt
        if attempt is not None:
            attempt.begin_sending(self.sock.fileno())
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

    def _put_conn(self, conn: Any) -> None:
        """Take a connection back, unless its attempt was stopped.

        From here on another thread may be using the connection. So the attempt ends first, and one
        that was stopped until now has shut the connection down.
        """
        attempt = _current.attempt
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


class StoppableAdapter(HTTPAdapter):
    """requests over the connections above, directly or through an HTTP proxy; for a few URLs.

    How a URL is reached, and whom it has to prove itself to, is looked up by the first call there
    and kept for those that follow. Answers have a status, headers and a raw body, nothing else:
    no cookies are read out of them, and no encoding is guessed.
    """

    def __init__(self, **options: Any) -> None:
        self._ways: dict[str | None, tuple[HTTPConnectionPool, str]] = {}
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
            pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
            super().cert_verify(pool, request.url or "", verify, cert)
            way = self._ways[request.url] = pool, super().request_url(request, proxies)
        return way[0]

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Nothing: whom to trust is part of what was looked up."""

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """What the request line names: the path, or the whole URL for a proxy."""
        way = self._ways.get(request.url)
        return super().request_url(request, proxies) if way is None else way[1]

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """The answer, without what nobody here asks for."""
        response = requests.Response()
        response.status_code, response.reason = resp.status, resp.reason
        response.headers, response.raw = resp.headers, resp
        response.request, response.url = req, req.url or ""
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
