"""TCP options that find out when the other side of a connection has gone without a word.

A host that loses its power, or a link that swallows packets, closes nothing. Who only listens would
wait for two hours until the kernel asks, and for what was sent the kernel tries for a quarter of an
hour.
"""

from __future__ import annotations

import socket

__all__ = ["tcp_options"]


def tcp_options(*, idle_s: int, every_s: int, dead_s: int) -> dict[int, int]:
    """Options of ``IPPROTO_TCP``, as far as this system knows them.

    After ``idle_s`` seconds without a byte the other side is asked each ``every_s`` seconds. If it
    says nothing for ``dead_s``, or takes as long to confirm what was sent, the connection fails. A
    process that is merely slow is not given up: its kernel answers.
    """
    wanted = {
        "TCP_KEEPIDLE": idle_s,
        "TCP_KEEPINTVL": every_s,
        "TCP_KEEPCNT": max(1, (dead_s - idle_s) // every_s),
        "TCP_USER_TIMEOUT": dead_s * 1000,
    }
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}
