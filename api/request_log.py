"""One line of log for each request, and the request's id on every line logged meanwhile."""

from __future__ import annotations

import logging

from flask import Flask, Response, g, request

from api.admission import job_path
from api.frontend import front_end
from chat.errors import JobNotFound
from chat.logs import begin_log_context, end_log_context

__all__ = ["install"]

_log = logging.getLogger(__name__)

#: Where a request keeps what ends its log context.
_CONTEXT = "chatd.log_context"
#: What is asked every few seconds, by whoever watches over chatd.
_POLLED = frozenset({"/health", "/ready", "/metrics"})
#: Characters of a path that a line shows; ours are shorter.
_PATH_CHARACTERS = 200


def install(app: Flask) -> None:
    """Log every request to ``app`` when it is answered, at debug if it is one that is polled.

    The line has ``method``, ``path`` without the query, ``status``, ``duration_ms``, ``code`` when
    the answer is an error, ``job_id`` when it is about a job, and ``caller``, the name of the key
    it came with. To be installed after what sets
    ``g.request_id`` and ``g.started``.
    """
    app.before_request(_begin)
    app.after_request(_answered)
    app.teardown_request(_end)


def _begin() -> None:
    # Not in `g`, which a request that is made within another one shares with that.
    request.environ[_CONTEXT] = begin_log_context(request_id=g.request_id)


def _answered(response: Response) -> Response:
    method, path = request.method, request.path
    if len(path) > _PATH_CHARACTERS:
        path = f"{path[:_PATH_CHARACTERS]}…"
    milliseconds = (front_end().clock() - g.started) * 1000
    status, code = response.status_code, g.get("error_code")
    _log.log(
        logging.DEBUG if path in _POLLED else logging.INFO,
        "%s %s: %s in %.0f ms",
        method,
        path,
        status if code is None else f"{status} {code}",
        milliseconds,
        extra={
            "method": method,
            "path": path,
            "status": status,
            "duration_ms": round(milliseconds, 1),
            "code": code,
            "job_id": _job_id(response),
            "caller": _caller(),
        },
    )
    return response


def _job_id(response: Response) -> str | None:
    """The job that the request is about: its error's, its answer's, or the one that it names."""
    location = response.headers.get("Location", "")
    if location.startswith(job_path("")):
        return location.removeprefix(job_path(""))
    found: str | None = g.get("job_id") or response.headers.get("X-Chatd-Job-Id")
    if found is None and g.get("error_code") != JobNotFound.code:
        return (request.view_args or {}).get("job_id")
    return found


def _caller() -> str | None:
    caller = g.get("caller")
    return caller.name or None if caller else None


def _end(_: BaseException | None) -> None:
    begun = request.environ.pop(_CONTEXT, None)
    if begun is not None:
        end_log_context(begun)
