"""gunicorn's gevent worker, which does not wait for connections on which nothing happens.

At SIGTERM gunicorn's worker closes the port and waits for every open connection, also for those a
client merely keeps for its next request: a restart would take as long as the keep-alive. And it
would let a client keep the connection of a request that came before the signal, only to close it
when the next one may be on its way.
"""

from __future__ import annotations

import time
from functools import partial
from types import TracebackType
from typing import Any, Self

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.workers.ggevent import GeventWorker

__all__ = ["DrainingWorker"]

#: Seconds a connection may stay without a request once the worker is told to end: enough for one
#: that was on its way, and for a busy client to use each of those it keeps once more. The answer
#: then tells it that the connection ends.
_LAST_CALL_S = 2.0
#: Seconds between two signs of life for the master, and between two looks whether all have gone.
_NOTIFY_S = 1.0
_LOOK_S = 0.1
#: Bytes up to which a body is copied behind its head.
_SMALL_BODY = 65536


class _Idle:
    """The wait for the next request on one connection; gunicorn enters it as a context."""

    def __init__(self, worker: DrainingWorker) -> None:
        self._worker = worker
        seconds = worker.cfg.keepalive if worker.alive else _LAST_CALL_S
        self._timeout = gevent.Timeout(seconds, exception=False)
        self._greenlet: Any = None

    def __enter__(self) -> Self:
        self._greenlet = gevent.getcurrent()
        self._worker.idle.add(self)
        self._timeout.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        self._worker.idle.discard(self)
        ended: bool | None = self._timeout.__exit__(kind, value, trace)
        return ended

    def end(self) -> None:
        """Let the wait time out now, unless a request comes first."""
        gevent.get_hub().loop.run_callback(self._time_out)

    def _time_out(self) -> None:
        # Whatever was due before has had its turn by now: a request may have come, and is answered.
        if self in self._worker.idle:
            self._greenlet.throw(self._timeout)


class _OnePiece:
    """A connection on which the head of an answer leaves together with what follows it.

    gunicorn sends the head by itself, and the body after it: two system calls here, and two
    wake-ups of whoever reads. For one answer; what is sent with ``send`` is not held back.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._head: bytes | None = None
        self._begun = False

    def sendall(self, data: bytes) -> None:
        """Send it, or hold it back if it is the first."""
        if not self._begun:
            self._begun, self._head = True, data
            return
        head, self._head = self._head, None
        if head is not None and len(data) <= _SMALL_BODY:
            data = head + data
        elif head is not None:
            self._connection.sendall(head)
        self._connection.sendall(data)

    def flush(self) -> None:
        """Send a head that nothing has followed. Raises ``OSError``."""
        head, self._head = self._head, None
        if head is not None:
            self._connection.sendall(head)

    def sendfile(self, *args: Any, **kwargs: Any) -> Any:
        """Send a file, which is not to overtake its head. Raises ``OSError``."""
        self.flush()
        return self._connection.sendfile(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class DrainingWorker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """Answers what has been asked, then ends. Its application is an ``api.server.FrontEndServer``.

    Once told to end, it lets nobody in and keeps no connection: each answer says that it is the
    last one there. gunicorn's own worker notices the signal up to a second later, in which a caller
    whose long poll was cut short would come back to it again and again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle: set[_Idle] = set()
        self.requests: set[Any] = set()
        self._told: Any = None

    def run(self) -> None:
        """Accept until SIGTERM, then wait for all that has come, up to ``graceful_timeout``."""
        self._told = Event()
        servers = [self._accept_on(listener) for listener in self.sockets]
        while self.alive:
            self.notify()
            self._told.wait(_NOTIFY_S)
        for server in servers:
            server.close()
        until = time.monotonic() + self.cfg.graceful_timeout
        while any(len(server.pool) for server in servers) and time.monotonic() < until:
            self.notify()
            gevent.sleep(_LOOK_S)
        for server in servers:
            if len(server.pool):
                self.log.warning("%d connections are cut off at the end", len(server.pool))
            server.pool.kill(timeout=1)

    def _accept_on(self, listener: Any) -> StreamServer:
        # A socket that `chatd up` hands over is shared with others, which may be faster.
        listener.setblocking(1)
        pool = Pool(self.worker_connections)
        server = StreamServer(listener, handle=partial(self.handle, listener), spawn=pool)
        if self.cfg.workers > 1:
            server.max_accept = 1
        server.start()
        return server

    def timeout_ctx(self) -> _Idle:
        """What bounds gunicorn's wait for the next request of a connection."""
        return _Idle(self)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Answer one request."""
        self.requests.add(req)
        answer = _OnePiece(sock)
        try:
            super().handle_request(listener_name, req, answer, addr)
        finally:
            self.requests.discard(req)
            answer.flush()

    def handle_exit(self, sig: int, frame: object) -> None:
        """SIGTERM. It comes at any moment, so that nothing that waits may be done here."""
        super().handle_exit(sig, frame)
        gevent.spawn(self._begin_stop)

    def _begin_stop(self) -> None:
        if self._told is not None:
            self._told.set()
        for request in self.requests:
            # gunicorn does this only for requests that come from now on.
            request.force_close()
        self.app.stopping.begin()
        gevent.sleep(_LAST_CALL_S)
        for idle in list(self.idle):
            idle.end()
