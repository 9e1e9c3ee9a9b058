"""The request that is being answered, and what is known of it, as the objects themselves.

Flask's ``request`` and ``g`` stand for whatever is answered at the moment of each use, and look for
it then: some forty times for each request, which takes longer than most of those uses.
"""

from __future__ import annotations

from typing import cast

from flask import Request
from flask.globals import app_ctx, request_ctx

from chat.access import Caller

__all__ = ["Notes", "notes", "this_request"]


class Notes:
    """What the application notes of one request; Flask makes it, and calls it ``g``."""

    #: By the front end's clock.
    started = 0.0
    request_id = ""
    #: Who made the request, as far as that has been asked.
    caller: Caller | None = None
    #: Bytes of its body, once that has been read.
    size = 0
    #: The call as it counts against a limit of the caller's, if there is one.
    counted: str | None = None
    #: What its line of log says: the code of its error, and the job that it is about.
    error_code: str | None = None
    job_id: str | None = None


def this_request() -> Request:
    """The request that is being answered."""
    context = request_ctx._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - public, says werkzeug
    return cast("Request", context.request)


def notes() -> Notes:
    """What is known of it."""
    context = app_ctx._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - as above
    return cast("Notes", context.g)
