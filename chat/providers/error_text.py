"""What an error answer says: one reading for the five shapes of error body that providers have.

Ollama sends ``{"error": "text"}``, OpenRouter ``{"error": {code, message, metadata}}``, OpenCode
``{"type": "error", "error": {type, message}}``, Kimi ``{"error": {type, message}}``, and a proxy in
between HTML, plain text or nothing.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from chat.providers.fields import parse_json
from chat.types import JSON

__all__ = ["SHORTEST_PIECE", "ErrorText", "printable", "read_error", "status_inside"]

#: What a caller gets to read of an upstream's own words, and how much is looked at for it.
_SHOWN = 300
_READ = 4096

_MASK = "***"

#: So many characters of a key in a row are masked, since a server may quote a part of it.
SHORTEST_PIECE = 12
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class ErrorText:
    """The words of an error answer.

    ``message`` is for people and still raw: show it through ``printable``. ``marks`` is everything
    an error can be told by, in lower case: its types and codes, then its message. The last three
    are hints about time as they stand in the body, of whatever type.
    """

    message: str
    marks: str
    retry_after: object = None
    ratelimit_reset: object = None
    resets_at: object = None


def read_error(body: object) -> ErrorText:
    """Read ``body``, a decoded JSON value or, where it was not JSON, the text itself."""
    if isinstance(body, str):
        return _plain(_page_title(body))
    if not isinstance(body, dict):
        return _plain("")
    error = body.get("error")
    if isinstance(error, dict):
        return _structured(error, _object(body, "metadata"))
    if isinstance(error, str):
        return _plain(error)
    return _plain(_string(body, "message") or _string(body, "detail"))


def status_inside(error: object) -> int:
    """The HTTP status that an error inside a 200 answer stands for; 500 where it does not tell.

    OpenRouter has it in ``code``, as a number or a string, or in ``http_status``.
    """
    if isinstance(error, dict):
        for value in (error.get("code"), error.get("http_status")):
            if isinstance(value, int | str) and re.fullmatch(r"[45][0-9]{2}", str(value)):
                return int(value)
    return 500


def printable(text: str, secret: str | None) -> str:
    """``text`` for an error message: one line, at most 300 characters, and without the key.

    The key is looked for before and after control characters go, so that neither cutting nor
    joining can bring part of it to light.
    """
    head = _masked(text, secret)[:_READ]
    visible = "".join(" " if unicodedata.category(char)[0] == "C" else char for char in head)
    line = _without_pieces(_masked(" ".join(visible.split()), secret), secret)
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN].rstrip()}…"


def _masked(text: str, secret: str | None) -> str:
    return text.replace(secret, _MASK) if secret else text


def _without_pieces(text: str, secret: str | None) -> str:
    """``text`` with a mask for whatever else is made of pieces of ``secret``."""
    hidden = bytearray(len(text))
    for first in range(len(secret or "") - SHORTEST_PIECE + 1):
        piece = (secret or "")[first : first + SHORTEST_PIECE]
        at = text.find(piece)
        while at >= 0:
            hidden[at : at + SHORTEST_PIECE] = b"1" * SHORTEST_PIECE
            at = text.find(piece, at + 1)
    runs = groupby(zip(text, hidden, strict=True), key=itemgetter(1))
    return "".join(_MASK if hide else "".join(char for char, _ in run) for hide, run in runs)


def _plain(message: str) -> ErrorText:
    return ErrorText(message, marks=message[:_READ].lower())


def _structured(error: JSON, outer: JSON) -> ErrorText:
    metadata = _object(error, "metadata")
    availability = _object(error, "availability")
    message = _full_message(error, metadata)
    marks = (
        _string(error, "type"),
        _string(error, "error_type"),
        _string(error, "code"),
        _string(metadata, "error_type"),
        _string(metadata, "limit_source"),
        _string(availability, "code"),
        # OpenRouter's moderation and guardrail errors are told by the details they bring.
        *(f"metadata.{key}" for key in metadata),
        message,
    )
    headers = {key.lower(): value for key, value in _object(metadata, "headers").items()}
    return ErrorText(
        message,
        marks=" ".join(filter(None, marks))[:_READ].lower(),
        retry_after=availability.get("retry_after"),
        ratelimit_reset=headers.get("x-ratelimit-reset"),
        resets_at=metadata.get("resets_at", outer.get("resets_at")),
    )


def _full_message(error: JSON, metadata: JSON) -> str:
    """The message, with the provider behind OpenRouter and its own words where there are any.

    Source: OpenRouter docs, errors-and-debugging: "Provider returned error" has its reason in
    ``metadata.raw``, which is often the JSON text of that provider's error.
    """
    message = _string(error, "message")
    raw = _string(metadata, "raw")
    if raw:
        name = _string(metadata, "provider_name")
        reason = _reason_in(raw)
        message = f"{message}: {name}: {reason}" if name else f"{message}: {reason}"
    return message


def _reason_in(raw: str) -> str:
    try:
        decoded = parse_json(raw)
    except ValueError:
        return raw
    error = decoded.get("error") if isinstance(decoded, dict) else None
    if isinstance(error, str):
        return error
    return (_string(error, "message") if isinstance(error, dict) else "") or raw


def _page_title(text: str) -> str:
    """The title of an HTML page, since its markup tells a reader nothing; other text as it is."""
    if text.lstrip()[:1] != "<":
        return text
    title = _TITLE.search(text[:_READ])
    return title.group(1) if title else "an HTML page"


def _object(parent: JSON, key: str) -> JSON:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def _string(parent: JSON, key: str) -> str:
    value = parent.get(key)
    return value if isinstance(value, str) else ""
