"""What is left of a body whose request was refused before all of it was read."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import IO

from flask import Flask, Response, request
from gunicorn.http.errors import ParseException

__all__ = ["install"]

_log = logging.getLogger(__name__)

_PIECE = 2**20


def install(app: Flask) -> None:
    """Read the rest of every refused request once it is answered.

    Most clients send all of a body before they look at the answer. gunicorn reads the rest for them
    as well, but 1 KiB at a time out of a buffer that it copies each time (27.0, ``finish_body`` of
    its parser): 100 MB of that hold up every other request for seconds.
    """
    app.after_request(_discard_later)


def _discard_later(response: Response) -> Response:
    refused = response.status_code >= 400  # noqa: PLR2004 - a status reads best as its number
    if refused and request.environ.get("wsgi.input_terminated"):
        response.call_on_close(partial(_discard, request.environ["wsgi.input"]))
    return response


def _discard(stream: IO[bytes]) -> None:
    try:
        while stream.read(_PIECE):
            # A client that is quick enough would not let the other greenlets have their turn.
            time.sleep(0)
    except (OSError, ParseException) as error:
        _log.debug("the rest of a refused body cannot be read: %s", error)
