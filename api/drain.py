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
from gunicorn.http.wsgi import FileWrapper, create
from gunicorn.workers.ggevent import GeventWorker

from api.writer import OnePiece

__all__ = ["DrainingWorker"]

#: Seconds a connection may stay without a request once the worker is told to end: enough for one
#: that was on its way, and for a busy client to use each of those it keeps once more. The answer
#: then tells it that the connection ends.
_LAST_CALL_S = 2.0
#: Seconds between two signs of life for the master, and between two looks whether all have gone.
_NOTIFY_S = 1.0
_LOOK_S = 0.1


class _Ended(BaseException):
    """Nothing has come on a connection for too long."""


class _Idle:
    """The wait for the next request on one connection; gunicorn enters it as a context.

    Without a timer of its own, which would cost each request more than all the rest of the wait:
    the worker looks each second who has waited ``until``, a moment on the monotonic clock.
    """

    __slots__ = ("_ended", "_greenlet", "_worker", "until")

    def __init__(self, worker: DrainingWorker) -> None:
        self._worker = worker
        self._ended: _Ended | None = None
        self._greenlet = gevent.getcurrent()
        self.until = time.monotonic() + (worker.cfg.keepalive if worker.alive else _LAST_CALL_S)

    def __enter__(self) -> Self:
        self._worker.idle.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._worker.idle.discard(self)
        return value is not None and value is self._ended

    def end(self) -> None:
        """Let the wait time out now, unless a request comes first."""
        gevent.get_hub().loop.run_callback(self._time_out)

    def _time_out(self) -> None:
        # Whatever was due before has had its turn by now: a request may have come, and is answered.
        if self in self._worker.idle:
            self._ended = _Ended()
            self._greenlet.throw(self._ended)


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
        self.keep_settings()
        servers = [self._accept_on(listener) for listener in self.sockets]
        while self.alive:
            self.notify()
            self.end_idle()
            self._told.wait(_NOTIFY_S)
        for server in servers:
            server.close()
        until = time.monotonic() + self.cfg.graceful_timeout
        while any(len(server.pool) for server in servers) and time.monotonic() < until:
            self.notify()
            self.end_idle()
            gevent.sleep(_LOOK_S)
        for server in servers:
            if len(server.pool):
                self.log.warning("%d connections are cut off at the end", len(server.pool))
            server.pool.kill(timeout=1)

    def keep_settings(self) -> None:
        """Have each setting as a plain attribute.

        gunicorn looks for them in vain as attributes first, some twenty for each request.
        """
        for name, setting in self.cfg.settings.items():
            self.cfg.__dict__[name] = setting.get()

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

    def end_idle(self) -> None:
        """End the wait on each connection on which nothing has come for too long."""
        now = time.monotonic()
        for idle in [idle for idle in self.idle if idle.until <= now]:
            idle.end()

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Answer one request. Raises ``StopIteration`` when it was the last on its connection."""
        self.requests.add(req)
        try:
            lives = self._answer(listener_name, req, sock, addr)
        finally:
            self.requests.discard(req)
        if not lives:
            raise StopIteration

    def _answer(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> bool:
        """Whether the connection lives on.

        gunicorn's own does more, for those who count, watch or log requests there.
        """
        answer: Any = None
        try:
            answer, environ = create(
                req, sock, addr, listener_name, self.cfg, response_class=OnePiece
            )
            environ["wsgi.multithread"] = True
            if not self.alive:
                answer.force_close()
            pieces = self.wsgi(environ, answer.start_response)
            try:
                if isinstance(pieces, FileWrapper):
                    answer.write_file(pieces)
                else:
                    for piece in pieces:
                        answer.write(piece)
                answer.close()
            finally:
                if hasattr(pieces, "close"):
                    pieces.close()
        except (gevent.GreenletExit, SystemExit):
            return False  # The worker ends.
        except OSError:
            raise
        except Exception:
            if answer is None or not answer.begun:
                raise  # gunicorn answers 400 or 500.
            self.log.exception("an answer broke off")
            return False
        return not answer.should_close()

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
