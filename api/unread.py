"""Bodies that stop coming, and what is left of one whose request was refused before its end."""

from __future__ import annotations

import logging
import socket
import time
from contextlib import suppress
from functools import partial
from typing import IO

from flask import Request, Response
from gunicorn.http.errors import ParseException

from api.hangup import client_socket

__all__ = ["STALL_S", "begin", "end"]

_log = logging.getLogger(__name__)

_PIECE = 2**20
#: Seconds in which some byte of a body has to come: nobody keeps a connection for nothing.
STALL_S = 30.0


def begin(request: Request) -> None:
    """Wait for no part of the body in vain."""
    connection = client_socket(request.environ)
    if connection is not None:
        connection.settimeout(STALL_S)


def end(request: Request, response: Response) -> None:
    """Let the answer take its time, and read the rest of a refused body once it is answered.

    Most clients send all of a body before they look at the answer. gunicorn reads the rest for them
    as well, but 1 KiB at a time out of a buffer that it copies each time (27.0, ``finish_body`` of
    its parser): 100 MB of that hold up every other request for seconds.
    """
    connection = client_socket(request.environ)
    if connection is not None:
        connection.settimeout(None)
    refused = response.status_code >= 400  # noqa: PLR2004 - a status reads best as its number
    if refused and request.environ.get("wsgi.input_terminated"):
        response.call_on_close(partial(_discard, request.environ["wsgi.input"], connection))


def _discard(stream: IO[bytes], connection: socket.socket | None) -> None:
    try:
        if connection is not None:
            connection.settimeout(STALL_S)
        while stream.read(_PIECE):
            # A client that is quick enough would not let the other greenlets have their turn.
            time.sleep(0)
        if connection is not None:
            connection.settimeout(None)
    except (OSError, ParseException) as error:
        _log.debug("the rest of a refused body cannot be read: %s", error)
        if connection is not None:
            with suppress(OSError):  # The client has closed it.
                connection.shutdown(socket.SHUT_RDWR)
