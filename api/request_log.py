"""One line of log for each request, and the request's id on every line logged meanwhile."""

from __future__ import annotations

import logging

from flask import Request

from api.current import Notes
from chat.errors import JobNotFound
from chat.logs import begin_log_context, end_log_context, log_event

__all__ = ["answered", "begin", "end"]

_log = logging.getLogger(__name__)

#: Where a request keeps what ends its log context.
_CONTEXT = "chatd.log_context"
#: What is asked every few seconds, by whoever watches over chatd.
_POLLED = frozenset({"/health", "/ready", "/metrics"})
#: Characters of a path that a line shows; ours are shorter.
_PATH_CHARACTERS = 200


def begin(request: Request, noted: Notes) -> None:
    """From now on, lines of log have the id of the request."""
    # Not in the notes, which a request that is made within another one shares with that.
    request.environ[_CONTEXT] = begin_log_context(request_id=noted.request_id)


def answered(request: Request, noted: Notes, status: int, milliseconds: float) -> None:
    """Log the request, at debug if it is one that is polled.

    The line has ``method``, ``path`` without the query, ``status``, ``duration_ms``, ``code`` when
    the answer is an error, ``job_id`` when it is about a job, and ``caller``, the name of the key
    it came with.
    """
    method, path, code = request.method, request.path, noted.error_code
    level = logging.DEBUG if path in _POLLED else logging.INFO
    if len(path) > _PATH_CHARACTERS:
        path = f"{path[:_PATH_CHARACTERS]}…"
    log_event(
        _log,
        level,
        "%s %s: %s in %.0f ms",
        method,
        path,
        status if code is None else f"{status} {code}",
        milliseconds,
        method=method,
        path=path,
        status=status,
        duration_ms=round(milliseconds, 1),
        code=code,
        job_id=_job_id(request, noted),
        caller=(noted.caller and noted.caller.name) or None,
    )


def _job_id(request: Request, noted: Notes) -> str | None:
    """The job that the request is about: its error's, its answer's, or the one that it names."""
    if noted.job_id is None and noted.error_code != JobNotFound.code:
        return (request.view_args or {}).get("job_id")
    return noted.job_id


def end(request: Request) -> None:
    """The request has been answered; lines of log are about something else."""
    begun = request.environ.pop(_CONTEXT, None)
    if begun is not None:
        end_log_context(begun)
