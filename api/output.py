"""JSON on its way out: compact, in UTF-8, with keys in the order they were put in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from json import JSONEncoder
from typing import TYPE_CHECKING, Any

from flask import Response
from werkzeug.datastructures import Headers

from chat.types import JSON, compact_json, json_writer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

__all__ = ["GUARDS", "JsonResponse", "encoded", "json_response", "page_response"]

#: What holds browsers back, in every answer.
GUARDS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)

_ascii_json = json_writer(JSONEncoder(separators=(",", ":")))


class JsonResponse(Response):
    """One whose body is there, and whose headers are right as they are but for the ``GUARDS``.

    werkzeug looks through those of any other for what could be missing or wrong, and copies them.
    """

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer as a WSGI application."""
        if environ["REQUEST_METHOD"] == "HEAD" or self.status_code >= 400:  # noqa: PLR2004
            # Without its body, or with something to be done once it is sent.
            self.headers.extend(GUARDS)
            return super().__call__(environ, start_response)
        start_response(self.status, [*self.headers, *GUARDS])
        return self.response  # type: ignore[return-value]  # a list of bytes: see json_response


def json_response(
    payload: JSON, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A response with ``payload`` as its body."""
    body = encoded(payload)
    pairs = [] if headers is None else [*headers.items()]
    pairs += ("Content-Type", "application/json"), ("Content-Length", str(len(body)))
    return JsonResponse([body], status, Headers(pairs))


def page_response(data: list[JSON], *, more: bool) -> Response:
    """One page of objects that have an ``id``, in the shape of OpenAI's lists."""
    return json_response(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": more,
        }
    )


def encoded(payload: JSON) -> bytes:
    """JSON on one line."""
    try:
        return compact_json(payload).encode()
    except UnicodeEncodeError:
        # A model may answer with half of a surrogate pair, which only an escape can carry.
        return _ascii_json(payload).encode()
