"""Where hosts are: one look-up for all the calls that connect at the same time.

A thousand calls that begin together would ask a thousand times for the same name. Under gevent that
goes through ten threads, each of which waits for seconds while the name server is away.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

__all__ = ["addresses"]

#: Seconds for which an answer, or its failure, is good: name servers give minutes.
_KEPT_S = 1.0


class _Name:
    """What is known of one host and port."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0
        self._outcome: list[Any] | socket.gaierror = []

    def outcome(self, host: str, port: int | None) -> list[Any] | socket.gaierror:
        """What the last look-up brought, unless that was too long ago; else what the next does."""
        if time.monotonic() >= self._until:
            with self._lock:
                # Somebody else may have asked while this one waited for the lock.
                if time.monotonic() >= self._until:
                    self._outcome = _looked_up(host, port)
                    self._until = time.monotonic() + _KEPT_S
        return self._outcome


_names: dict[tuple[str, int | None], _Name] = {}


def addresses(host: str, port: int | None) -> list[Any]:
    """What ``getaddrinfo`` has for connecting to ``host``. Raises ``socket.gaierror``."""
    name = _names.get((host, port)) or _names.setdefault((host, port), _Name())
    outcome = name.outcome(host, port)
    if isinstance(outcome, socket.gaierror):
        # Each caller raises one of its own: a traceback belongs to one thread.
        raise socket.gaierror(*outcome.args)
    return outcome


def _looked_up(host: str, port: int | None) -> list[Any] | socket.gaierror:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return error.with_traceback(None)
    except UnicodeError as error:
        return socket.gaierror(str(error))
