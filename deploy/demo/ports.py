"""Free loopback ports for the demo's servers."""

from __future__ import annotations

import random
import socket

__all__ = ["HOST", "free_port"]

HOST = "127.0.0.1"

#: Above the registered services that people run, below the ports that systems hand to outgoing
#: connections (Linux: 32768 and up), which could take a port between our look and our bind.
_RANGE = range(20_000, 32_768)
_TRIES = 50


def free_port() -> int:
    """A loopback port that nothing listens on now; raises ``OSError`` when none can be found."""
    for port in random.sample(_RANGE, _TRIES):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    msg = f"no free port on {HOST} among {_TRIES} tried in {_RANGE.start}-{_RANGE.stop - 1}"
    raise OSError(msg)
