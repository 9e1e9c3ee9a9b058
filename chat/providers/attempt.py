"""One upstream call on the wire, which the deadline or another thread may stop at any moment."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import Self

from chat.providers.watchdog import StopReason, Watchdog

__all__ = ["Attempt", "AttemptStopped"]

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

    What is stopped is the ``wire`` of a connection, a duplicate of its socket. It stays valid while
    TLS takes the socket's descriptor over and when urllib3 closes its own, so stopping never meets
    a number that the kernel has given to somebody else's socket.
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
        self._wire: socket.socket | None = None
        self._left: list[socket.socket] = []
        self._over = False

    @staticmethod
    def current() -> Attempt | None:
        """The attempt on whose behalf this thread works."""
        return _current.attempt

    def __enter__(self) -> Self:
        _current.attempt = self
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
            if self._wire is not None:
                # A connection that is already broken has nothing left to shut down.
                with contextlib.suppress(OSError):
                    self._wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                    self._wire.shutdown(socket.SHUT_RDWR)

    def cancel(self) -> None:
        """Stop because somebody cancelled the call."""
        self.stop(StopReason.CANCELLED)

    def connecting(self) -> None:
        """A connection has to be made first, for which there is a time limit of its own."""
        self.check()
        connecting_ends_first = self._connect_by < self._deadline
        self._watchdog.watch(
            self,
            min(self._connect_by, self._deadline),
            StopReason.CONNECT if connecting_ends_first else StopReason.DEADLINE,
        )

    def attach(self, wire: socket.socket) -> None:
        """Remember the wire in use; raises AttemptStopped if the attempt was stopped before."""
        with self._lock:
            self.check()
            self._wire = wire

    def begin_sending(self, wire: socket.socket) -> None:
        """The connection stands and the request goes out: from here on only the deadline counts.

        Raises AttemptStopped if the attempt was stopped before, when nothing has been sent yet.
        """
        with self._lock:
            self.check()
            self._wire = wire
            self.sent = True
        self._watchdog.watch(self, self._deadline, StopReason.DEADLINE)

    def answered(self, within_s: float) -> None:
        """The answer is there, and its end is waited for no longer than this.

        Where it comes in time, the connection can be used again.
        """
        if not self._over:
            by = min(time.monotonic() + within_s, self._deadline)
            self._watchdog.watch(self, by, StopReason.ANSWERED)

    def take_over(self, wire: socket.socket) -> bool:
        """Whether the attempt needs ``wire`` still, and closes it when it is over itself.

        urllib3 closes a connection whose answer ends with it before that answer is read.
        """
        if self._wire is not wire:
            return False
        self._left.append(wire)
        return True

    def finish(self) -> None:
        """Nothing can stop the attempt after this; what has stopped it before stays."""
        if self._over:
            return
        with self._lock:
            self._over = True
            self._wire = None
        for wire in self._left:
            wire.close()
        self._watchdog.forget(self)

    def check(self) -> None:
        """Raise AttemptStopped if the attempt was stopped."""
        if self.stopped is not None:
            raise AttemptStopped(self.stopped.value)
