"""What ``chatd up`` hands to the processes that it starts: file descriptors, and their numbers.

Each number is a variable of the process's environment, and absent when it runs alone.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from contextlib import suppress

__all__ = ["LISTEN_FD", "READY_FD", "listening_socket", "say_ready"]

#: The socket of the front end. It is open as long as `chatd up` runs, whichever process accepts.
LISTEN_FD = "CHATD_LISTEN_FD"
#: A pipe into which the process writes a byte when it is ready to work.
READY_FD = "CHATD_READY_FD"


def listening_socket(environ: MutableMapping[str, str]) -> int | None:
    """The descriptor of the socket to accept on; ``None`` for a process that opens its own."""
    number = environ.pop(LISTEN_FD, None)
    return None if number is None else int(number)


def say_ready(environ: MutableMapping[str, str] = os.environ) -> None:
    """Tell `chatd up` that this process works; nothing happens where nobody has asked."""
    number = environ.pop(READY_FD, None)
    if number is None:
        return
    # A process of the front end that dies is started again when nobody reads any more.
    with suppress(BrokenPipeError), os.fdopen(int(number), "wb", buffering=0) as pipe:
        pipe.write(b"\n")
