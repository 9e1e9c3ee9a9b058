"""Errors on their way out: every error of a view becomes one of ours, in JSON."""

from __future__ import annotations

import logging
import math

from flask import Flask, Response, request
from werkzeug.exceptions import (
    HTTPException,
    MethodNotAllowed,
    NotFound,
    PreconditionFailed,
    RequestedRangeNotSatisfiable,
    RequestEntityTooLarge,
)

from api.current import notes
from api.output import json_response
from chat import errors
from chat.errors import ChatError, Draining, InvalidRequest, QueueUnavailable, TooLarge
from chat.formats.errors import STATUS, error_body
from chat.formats.strict_json import shown
from chat.types import JSON, Billed

__all__ = ["chat_error", "error_response", "install"]

_log = logging.getLogger(__name__)

#: Seconds for ``Retry-After`` where a caller should come back and nobody knows when.
_RETRY_AFTER_S = {429: 10, 503: 5}
_QUOTA_RETRY_AFTER_S = 60

#: OpenAI's clients repeat 408, 409, 429 and every 5xx on their own, unless this header says
#: ``false`` (openai/openai-python, _base_client.py).
_SHOULD_RETRY = "X-Should-Retry"


def error_response(error: ChatError, told: tuple[int, JSON] | None = None) -> Response:
    """The response for an error, with ``Retry-After`` where coming back makes sense.

    ``told`` is its status and body where they are not the usual ones.
    """
    status, body = told or (STATUS[type(error)], error_body(error))
    response = json_response(body, status)
    if not _may_be_repeated(error):
        response.headers[_SHOULD_RETRY] = "false"
    seconds = error.retry_after_s
    if seconds is None:
        seconds = _RETRY_AFTER_S.get(status)
        if isinstance(error, errors.QuotaExhausted):
            seconds = _QUOTA_RETRY_AFTER_S
    if seconds is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    return response


def install(app: Flask) -> None:
    """Make every error of ``app`` a JSON body, Flask's own and unexpected ones as well."""
    app.register_error_handler(ChatError, chat_error)
    app.register_error_handler(HTTPException, _http_exception)
    app.register_error_handler(Exception, _unexpected)


def chat_error(error: ChatError, told: tuple[int, JSON] | None = None) -> Response:
    """``error_response``, with what the request's line of log says about the error."""
    noted = notes()
    noted.error_code, noted.job_id = error.code, error.job_id
    return error_response(error, told)


def _may_be_repeated(error: ChatError) -> bool:
    """Whether the same request may succeed and cannot be billed twice.

    When Redis goes away after it was given a job, nobody knows whether it has it; when the front
    end stops, the job goes on. Then only the same Idempotency-Key leads to the same job.
    """
    if isinstance(error, (QueueUnavailable, Draining)) and error.job_id is not None:
        return "Idempotency-Key" in request.headers
    return error.retryable and error.billed is Billed.NO


def _http_exception(error: HTTPException) -> Response | HTTPException:
    """Flask's and werkzeug's own refusals, in our form."""
    if isinstance(error, RequestEntityTooLarge):
        limit = request.max_content_length
        return chat_error(
            TooLarge(f"the body is larger than {limit} bytes (body_limit); send a smaller one")
        )
    if error.code is None or error.code < 400:  # noqa: PLR2004 - see above
        return error
    code, param = InvalidRequest.code, None
    if isinstance(error, NotFound):
        code = "not_found"
        message = f"there is no {shown(request.path)}; /openapi.json lists every path"
    elif isinstance(error, MethodNotAllowed):
        code = "method_not_allowed"
        allowed = ", ".join(sorted(error.valid_methods or ()))
        message = f"{shown(request.path)} does not take {shown(request.method)}; use {allowed}"
    elif isinstance(error, PreconditionFailed):
        param = "If-Match"
        message = f"If-Match is {_header(param)}, but the ETag is another one now; ask without it"
    elif isinstance(error, RequestedRangeNotSatisfiable):
        param = "Range"
        message = (
            f"Range is {_header(param)}, but must be one range of the {error.length} bytes that "
            "there are, such as bytes=0-99; correct it or leave it out"
        )
    else:
        message = f"the request cannot be read: {error.description or error.name}"
    notes().error_code = code
    body: JSON = {
        "error": {
            "code": code,
            "message": message,
            "type": "invalid_request_error",
            "param": param,
        }
    }
    response = json_response(body, error.code, {_SHOULD_RETRY: "false"})
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    if isinstance(error, RequestedRangeNotSatisfiable):
        response.headers["Content-Range"] = f"bytes */{error.length}"
    return response


def _header(name: str) -> str:
    return shown(request.headers.get(name, ""))


def _unexpected(error: Exception) -> Response:
    known_as = notes().request_id
    _log.error(
        "request %s: %s %s failed",
        known_as,
        request.method,
        request.path,
        exc_info=error,
    )
    return chat_error(
        ChatError(f"chatd met an unexpected error; its log has it as request {known_as}")
    )
