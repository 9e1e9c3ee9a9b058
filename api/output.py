"""JSON on its way out: compact, in UTF-8, with keys in the order they were put in."""

from __future__ import annotations

from collections.abc import Mapping
from json import JSONEncoder

from flask import Response

from chat.types import JSON, compact_json

__all__ = ["json_response", "page_response"]

_ascii_json = JSONEncoder(separators=(",", ":")).encode


def json_response(
    payload: JSON, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A response with ``payload`` as its body."""
    return Response(
        _encode(payload), status=status, headers=headers, content_type="application/json"
    )


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


def _encode(payload: JSON) -> bytes:
    try:
        return compact_json(payload).encode()
    except UnicodeEncodeError:
        # A model may answer with half of a surrogate pair, which only an escape can carry.
        return _ascii_json(payload).encode()
