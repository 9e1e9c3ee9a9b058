"""What a process gets from whoever starts it: file descriptors, and where to say that it is ready.

``chatd up`` hands over descriptors and their numbers; systemd has a socket for the message. Each is
a variable of the process's environment, and absent when it runs alone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress

__all__ = ["LISTEN_FD", "NOTIFY_SOCKET", "READY_FD", "listening_socket", "say_ready"]

#: The socket of the front end. It is open as long as `chatd up` runs, whichever process accepts.
LISTEN_FD = "CHATD_LISTEN_FD"
#: A pipe into which the process writes a byte when it is ready to work.
READY_FD = "CHATD_READY_FD"
#: The datagram socket of systemd, which waits for a word of a unit with Type=notify (sd_notify(3)).
NOTIFY_SOCKET = "NOTIFY_SOCKET"


def listening_socket(environ: MutableMapping[str, str]) -> int | None:
    """The descriptor of the socket to accept on; ``None`` for a process that opens its own."""
    number = environ.pop(LISTEN_FD, None)
    return None if number is None else int(number)


def say_ready(environ: MutableMapping[str, str] = os.environ) -> None:
    """Tell whoever started it that this process works; nothing happens where nobody has asked."""
    number = environ.pop(READY_FD, None)
    if number is not None:
        # A process of the front end that dies is started again when nobody reads any more.
        with suppress(BrokenPipeError), os.fdopen(int(number), "wb", buffering=0) as pipe:
            pipe.write(b"\n")
    address = environ.pop(NOTIFY_SOCKET, None)
    if address is not None:
        _notify(address)


def _notify(address: str) -> None:
    # A name that begins with "@" is one of the kernel's, not of a file.
    where = f"\0{address[1:]}" if address.startswith("@") else address
    # Nobody listens when the variable is what a service has left to a process of its own.
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notes:
        notes.sendto(b"READY=1", where)
