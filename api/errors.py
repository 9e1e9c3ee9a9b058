"""Errors on their way out: each ``ChatError`` class has its HTTP status here, and nowhere else."""

from __future__ import annotations

import logging
import math

from flask import Flask, Response, g, request
from werkzeug.exceptions import (
    HTTPException,
    MethodNotAllowed,
    NotFound,
    RequestEntityTooLarge,
)

from api.body import shown
from api.output import json_response
from chat import errors
from chat.errors import ChatError, InvalidRequest, TooLarge
from chat.types import JSON

__all__ = ["STATUS", "error_body", "error_response", "install"]

_log = logging.getLogger(__name__)

#: The HTTP status of every error; a test holds that no class is missing.
STATUS: dict[type[ChatError], int] = {
    errors.InvalidRequest: 400,
    errors.ProviderNotRegistered: 404,
    errors.JobNotFound: 404,
    errors.JobCancelled: 409,
    errors.ResultExpired: 410,
    errors.TooLarge: 413,
    errors.IdempotencyMismatch: 422,
    errors.QueueFull: 429,
    errors.UpstreamRateLimited: 429,
    errors.QuotaExhausted: 429,
    errors.ChatError: 500,
    errors.UpstreamError: 502,
    errors.UpstreamRejected: 502,
    errors.UpstreamAuth: 502,
    errors.UpstreamNotFound: 502,
    errors.UpstreamUnavailable: 502,
    errors.UpstreamProtocolError: 502,
    errors.ContentFiltered: 502,
    errors.OutcomeUnknown: 502,
    errors.QueueUnavailable: 503,
    errors.NoWorker: 503,
    errors.Draining: 503,
    errors.DeadlineExceeded: 504,
    errors.UpstreamTimeout: 504,
}

#: Seconds for ``Retry-After`` where a caller should come back and nobody knows when.
_RETRY_AFTER_S = {429: 10, 503: 5}
_QUOTA_RETRY_AFTER_S = 60


def error_body(error: ChatError) -> JSON:
    """``{"error": {"code", "message", "type", "param", …}}`` with the extras that are known."""
    wire = error.to_wire()
    return {
        "error": {
            "code": wire.pop("code"),
            "message": wire.pop("message"),
            "type": _type_of(error),
            "param": wire.pop("param", None),
            **wire,
        }
    }


def error_response(error: ChatError) -> Response:
    """The response for an error, with ``Retry-After`` where coming back makes sense."""
    status = STATUS[type(error)]
    response = json_response(error_body(error), status)
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
    app.register_error_handler(ChatError, _chat_error)
    app.register_error_handler(HTTPException, _http_exception)
    app.register_error_handler(Exception, _unexpected)


def _type_of(error: ChatError) -> str:
    status = STATUS[type(error)]
    if status == 429:  # noqa: PLR2004 - a status reads best as its number
        return "rate_limit_error"
    if isinstance(error, errors.UpstreamError):
        return "upstream_error"
    return "server_error" if status >= 500 else "invalid_request_error"  # noqa: PLR2004 - see above


def _chat_error(error: ChatError) -> Response:
    # For the request's line of log.
    g.error_code, g.job_id = error.code, error.job_id
    return error_response(error)


def _http_exception(error: HTTPException) -> Response | HTTPException:
    """Flask's and werkzeug's own refusals, in our form."""
    if isinstance(error, RequestEntityTooLarge):
        limit = request.max_content_length
        return _chat_error(
            TooLarge(f"the body is larger than {limit} bytes (body_limit); send a smaller one")
        )
    if error.code is None or error.code < 400:  # noqa: PLR2004 - see above
        return error
    if isinstance(error, NotFound):
        code = "not_found"
        message = f"there is no {shown(request.path)}; /openapi.json lists every path"
    elif isinstance(error, MethodNotAllowed):
        code = "method_not_allowed"
        allowed = ", ".join(sorted(error.valid_methods or ()))
        message = f"{shown(request.path)} does not take {shown(request.method)}; use {allowed}"
    else:
        code = InvalidRequest.code
        message = f"the request cannot be read: {error.description or error.name}"
    g.error_code = code
    body: JSON = {
        "error": {
            "code": code,
            "message": message,
            "type": "invalid_request_error",
            "param": None,
        }
    }
    response = json_response(body, error.code)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _unexpected(error: Exception) -> Response:
    _log.error(
        "request %s: %s %s failed",
        g.request_id,
        request.method,
        request.path,
        exc_info=error,
    )
    return _chat_error(
        ChatError(f"chatd met an unexpected error; its log has it as request {g.request_id}")
    )
