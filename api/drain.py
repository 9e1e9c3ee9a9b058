"""gunicorn's gevent worker, which does not wait for connections on which nothing happens.

At SIGTERM gunicorn's worker closes the port and waits for every open connection, also for those a
client merely keeps for its next request: a restart would take as long as the keep-alive.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import gevent
from gunicorn.workers.ggevent import GeventWorker

__all__ = ["DrainingWorker"]

#: Seconds a connection may stay without a request once the worker is told to end: enough for one
#: that was on its way.
_LAST_CALL_S = 0.5


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
        """Let the wait time out now."""
        gevent.kill(self._greenlet, self._timeout)


class DrainingWorker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """Answers what has been asked, then ends."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle: set[_Idle] = set()

    def timeout_ctx(self) -> _Idle:
        """What bounds gunicorn's wait for the next request of a connection."""
        return _Idle(self)

    def handle_exit(self, sig: int, frame: object) -> None:
        """SIGTERM."""
        super().handle_exit(sig, frame)
        gevent.spawn_later(_LAST_CALL_S, self._end_idle)

    def _end_idle(self) -> None:
        for idle in list(self.idle):
            idle.end()
