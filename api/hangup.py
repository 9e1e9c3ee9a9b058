"""Callers who hang up: one thread per process looks at the sockets of those who wait.

The kernel is asked which of them have been closed, all at once, and only those are looked at: a
thousand looks, four times a second, would cost more than the thousand requests.

A caller who goes away while a job is queued or running would otherwise be answered, and paid for,
in vain. The socket is peeked, so that a pipelined next request stays where it is. Closing only the
sending half counts as gone: it cannot be told from a close, and HTTP clients do not do it.
"""

from __future__ import annotations

import _socket  # gevent replaces socket.socket by one whose recv yields; this one stays plain.
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from gevent.monkey import get_original

__all__ = ["HangupMonitor", "Watch", "client_socket", "is_closed"]

_INTERVAL_S = 0.25
#: A caller is gone when this many looks in a row found the connection closed.
_LOOKS = 2
#: What makes a connection suspect, beside errors and a full close, which are always told: not that
#: there are bytes to read, unless the kernel has no word for half a close.
_CLOSED = getattr(select, "POLLRDHUP", select.POLLIN)


def client_socket(environ: Mapping[str, Any]) -> socket.socket | None:
    """The caller's connection, if the server hands it over (gunicorn and werkzeug do)."""
    found: socket.socket | None = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    return found


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed or reset ``connection``. Takes no byte and never waits."""
    descriptor = connection.fileno()
    if descriptor < 0:
        return True
    raw = _socket.socket(connection.family, connection.type, connection.proto, descriptor)
    try:
        return raw.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True
    finally:
        raw.detach()


class Watch:
    """One caller's connection within the ``with`` block; ``gone`` once it has been hung up."""

    def __init__(
        self, monitor: HangupMonitor, connection: socket.socket, wake: Callable[[], None]
    ) -> None:
        self._monitor = monitor
        self.connection = connection
        self.wake = wake
        self.descriptor = connection.fileno()
        self.closed_looks = 0
        self.gone = False

    def __enter__(self) -> Self:
        self._monitor.begin(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._monitor.end(self)


def _start_thread(run: Callable[[], None]) -> None:
    threading.Thread(target=run, name="hangups", daemon=True).start()


class HangupMonitor:
    """The connections of one process, looked at by one thread that ``spawn`` starts at the first.

    Under gevent the thread is a greenlet. The lock is held while a socket is looked at, so that a
    connection that is no longer watched is never touched: its descriptor may be another's by then.
    """

    def __init__(
        self,
        interval_s: float = _INTERVAL_S,
        spawn: Callable[[Callable[[], None]], None] = _start_thread,
    ) -> None:
        self._interval_s = interval_s
        self._spawn = spawn
        self._watched: dict[int, Watch] = {}
        # gevent's own would ask its loop, which a look must not wait for.
        self._poll = get_original("select", "poll")()
        self._changed = threading.Condition()
        self._started = False

    def watch(self, connection: socket.socket, wake: Callable[[], None]) -> Watch:
        """Call ``wake`` once if ``connection`` is hung up within the ``with`` block of this."""
        return Watch(self, connection, wake)

    def begin(self, watch: Watch) -> None:
        """Look at its connection from now on."""
        if watch.descriptor < 0:
            watch.gone = True
            watch.wake()
            return
        with self._changed:
            self._watched[watch.descriptor] = watch
            self._poll.register(watch.descriptor, _CLOSED)
            if not self._started:
                self._started = True
                self._spawn(self._run)
            if len(self._watched) == 1:
                self._changed.notify()

    def end(self, watch: Watch) -> None:
        """Never look at its connection again."""
        with self._changed:
            self._forget(watch)

    def sweep(self) -> None:
        """Look once at every connection that may be closed."""
        with self._changed:
            suspects = [self._watched[descriptor] for descriptor, _ in self._poll.poll(0)]
            gone = [watch for watch in suspects if self._look(watch)]
            for watch in gone:
                self._forget(watch)
        for watch in gone:
            watch.gone = True
            watch.wake()

    def _forget(self, watch: Watch) -> None:
        if self._watched.get(watch.descriptor) is watch:
            del self._watched[watch.descriptor]
            self._poll.unregister(watch.descriptor)

    @staticmethod
    def _look(watch: Watch) -> bool:
        watch.closed_looks = watch.closed_looks + 1 if is_closed(watch.connection) else 0
        return watch.closed_looks >= _LOOKS

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._watched:
                    self._changed.wait()
            self.sweep()
            time.sleep(self._interval_s)
