"""Errors as HTTP has them: each ``ChatError`` class has its status here, and nowhere else."""

from __future__ import annotations

from chat import errors
from chat.errors import ChatError
from chat.types import JSON

__all__ = ["STATUS", "error_body"]

#: The HTTP status of every error; a test holds that no class is missing.
STATUS: dict[type[ChatError], int] = {
    errors.InvalidRequest: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.ProviderNotRegistered: 404,
    errors.JobNotFound: 404,
    errors.FileNotFound: 404,
    errors.BatchNotFound: 404,
    errors.EvaluationNotFound: 404,
    errors.ModelNotFound: 404,
    errors.JobCancelled: 409,
    errors.ResultExpired: 410,
    errors.TooLarge: 413,
    errors.IdempotencyMismatch: 422,
    errors.ClientLimited: 429,
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
    errors.StorageUnavailable: 503,
    errors.NoWorker: 503,
    errors.Draining: 503,
    errors.DeadlineExceeded: 504,
    errors.UpstreamTimeout: 504,
}


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


def _type_of(error: ChatError) -> str:
    status = STATUS[type(error)]
    if status == 429:  # noqa: PLR2004 - a status reads best as its number
        return "rate_limit_error"
    if isinstance(error, errors.UpstreamError):
        return "upstream_error"
    return "server_error" if status >= 500 else "invalid_request_error"  # noqa: PLR2004 - see above
