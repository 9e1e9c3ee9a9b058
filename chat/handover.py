"""What a process gets from whoever starts it: a socket to accept on, and where to say it is ready.

``chatd up`` hands over file descriptors and their numbers. systemd has a socket for the word
(sd_notify(3)) and hands its own over as the third descriptor (sd_listen_fds(3)). Each is a variable
of the process's environment, and absent when it runs alone.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress

from chat.addresses import host_and_port, is_loopback
from chat.errors import ConfigError

__all__ = [
    "LISTEN_FD",
    "NOTIFY_SOCKET",
    "READY_FD",
    "check_address",
    "listening_socket",
    "say_ready",
    "who_waits",
]

#: The socket of the front end. It is open as long as `chatd up` runs, whichever process accepts.
LISTEN_FD = "CHATD_LISTEN_FD"
#: A pipe into which the process writes a byte when it is ready to work.
READY_FD = "CHATD_READY_FD"
#: The datagram socket of systemd, which waits for a word of a unit with Type=notify.
NOTIFY_SOCKET = "NOTIFY_SOCKET"
#: How many sockets systemd hands over, to the process with this number, and the first of them.
_SYSTEMD_COUNT, _SYSTEMD_PID, _SYSTEMD_FD = "LISTEN_FDS", "LISTEN_PID", 3


def listening_socket(environ: MutableMapping[str, str]) -> int | None:
    """The descriptor of the socket to accept on; ``None`` for a process that opens its own.

    Raises ``ConfigError`` when systemd hands over several.
    """
    number = environ.pop(LISTEN_FD, None)
    if number is not None:
        return int(number)
    count, pid = environ.pop(_SYSTEMD_COUNT, ""), environ.pop(_SYSTEMD_PID, "")
    if not count or pid != str(os.getpid()):
        return None
    if count != "1":
        raise ConfigError(
            f"systemd hands over {count} sockets, and the front end accepts on one; write one "
            "ListenStream= in its socket unit"
        )
    return _SYSTEMD_FD


def check_address(descriptor: int, bind: str) -> None:
    """Raises ``ConfigError`` unless the socket is open at ``bind``, the address that was checked.

    Otherwise a unit could open the front end to places from which the configuration keeps it.
    """
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        name = listener.getsockname()
    # The name of a socket of the Internet is a tuple, that of any other one a path.
    place = name[:2] if isinstance(name, tuple) else None
    wanted = host_and_port(bind)
    if place is None or place[1] != wanted[1] or not _same_host(place[0], wanted[0]):
        there = f"{place[0]} port {place[1]}" if place else f'"{name}"'
        raise ConfigError(
            f'the socket that is handed over is open at {there}, and [chatd] bind is "{bind}"; '
            "write the same address in the ListenStream= of its unit and in bind"
        )


def _same_host(host: str, wanted: str) -> bool:
    try:
        return ipaddress.ip_address(host) == ipaddress.ip_address(wanted)
    except ValueError:
        return wanted == "localhost" and is_loopback(host)


def who_waits(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Take out of ``environ`` what ``say_ready`` needs.

    gunicorn would tell systemd as soon as its first process runs, before any of them accepts.
    """
    return {name: environ.pop(name) for name in (READY_FD, NOTIFY_SOCKET) if name in environ}


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
