"""``/v1/files``: OpenAI's Files API, as far as batches need it (API reference, Files)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

from flask import Blueprint, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from api.access import caller
from api.admission import key_of_call
from api.downloads import attachment, download
from api.frontend import front_end
from api.multipart import Part, read_parts
from api.output import json_response, page_response
from api.threads import in_thread
from chat.errors import InvalidRequest, TooLarge
from chat.files import LIFETIMES_S, MOST_LISTED, Incoming, Purpose, is_file_id
from chat.formats.strict_json import shown

__all__ = ["blueprint"]

blueprint = Blueprint("files", __name__)

#: What a body may have beside the content of the file: its other fields, and headers.
_FORM_BYTES = 64 * 2**10
_LONGEST_NAME = 255
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"


def _is_lifetime(text: str) -> bool:
    return re.fullmatch("[0-9]{1,9}", text) is not None and (
        LIFETIMES_S[0] <= int(text) <= LIFETIMES_S[1]
    )


#: The texts of the form: which are accepted, and the rule in words.
_TEXTS: dict[str, tuple[Callable[[str], bool], str]] = {
    "purpose": (lambda text: text == "batch", '"batch", the one purpose of files here'),
    _ANCHOR: (lambda text: text == "created_at", '"created_at"'),
    _SECONDS: (_is_lifetime, f"a whole number from {LIFETIMES_S[0]} to {LIFETIMES_S[1]}"),
}


@blueprint.post("/v1/files")
def upload() -> Response:
    """Store the file of the form; with an Idempotency-Key once, however often it is sent."""
    front = front_end()
    key = key_of_call("POST /v1/files")
    with front.files.incoming() as incoming:
        fields = _receive(incoming, front.config.file_limit)
        lifetime_s = int(fields.get(_SECONDS, front.config.file_retention_s)) or None
        stored = in_thread(
            incoming.commit,
            fields["file"],
            "batch",
            lifetime_s,
            key,
            caller().name,
        )
    return json_response(stored.to_wire())


@blueprint.get("/v1/files")
def listed() -> Response:
    """The files that are there, newest first unless ``order`` is ``asc``."""
    found, more = in_thread(
        front_end().files.page,
        after=_after(),
        limit=_limit(),
        purpose=cast("Purpose | None", _choice("purpose", "batch", "batch_output")),
        newest_first=_choice("order", "asc", "desc") != "asc",
        owner=caller().sees,
    )
    return page_response([stored.to_wire() for stored in found], more=more)


@blueprint.get("/v1/files/<file_id>")
def show(file_id: str) -> Response:
    """What is known about a file."""
    return json_response(front_end().files.get(file_id, caller().sees).to_wire())


@blueprint.get("/v1/files/<file_id>/content")
def content(file_id: str) -> Response:
    """What is in a file, or the part of it that a ``Range`` asks for."""
    files = front_end().files
    stored = files.get(file_id, caller().sees)
    response = download(files.open(file_id), stored.bytes, stored.sha256, "application/jsonl")
    response.headers["Content-Disposition"] = attachment(stored.filename)
    return response


@blueprint.delete("/v1/files/<file_id>")
def delete(file_id: str) -> Response:
    """Remove a file; a batch that began with it goes on."""
    in_thread(front_end().files.delete, file_id, caller().sees)
    return json_response({"id": file_id, "object": "file", "deleted": True})


def _receive(incoming: Incoming, limit: int) -> dict[str, str]:
    """Write the file of the form to ``incoming``; the texts by their names, with the file's name.

    A part is refused as soon as it begins, so that nobody uploads for an hour to be told that
    ``purpose`` is wrong.
    """
    request.max_content_length = limit + _FORM_BYTES
    fields: dict[str, str] = {}
    try:
        for part in read_parts(request.stream, request.content_type):
            if part.name in fields:
                raise InvalidRequest(
                    f"{part.name} is in the form twice; send it once", param=part.name
                )
            if part.name == "file":
                fields[part.name] = _filename(part)
                _save(part, incoming, limit)
            else:
                fields[part.name] = _text(part)
    except RequestEntityTooLarge as error:
        raise TooLarge(
            f"the file is larger than {limit} bytes (file_limit); send it in several files",
            param="file",
        ) from error
    _check_whole(fields)
    return fields


def _filename(part: Part) -> str:
    name = part.filename
    if name is None:
        raise InvalidRequest(
            "file is a text, but must be a file: give the part a filename, as curl -F file=@FILE "
            "does",
            param="file",
        )
    if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable():
        raise InvalidRequest(
            f"file has the name {shown(name)}, but must have one of 1 to {_LONGEST_NAME} printable "
            "characters; give it another",
            param="file",
        )
    return name


def _save(part: Part, incoming: Incoming, limit: int) -> None:
    for piece in part.pieces:
        if incoming.bytes + len(piece) > limit:
            raise RequestEntityTooLarge
        in_thread(incoming.write, piece)
    if incoming.bytes == 0:
        raise InvalidRequest("file is empty; send one with content", param="file")


def _text(part: Part) -> str:
    if part.name not in _TEXTS:
        raise InvalidRequest(
            f"{shown(part.name)} is not a field of this form; those are file, {', '.join(_TEXTS)}",
            param=part.name or None,
        )
    accepts, rule = _TEXTS[part.name]
    text = part.text()
    if not accepts(text):
        raise InvalidRequest(
            f"{part.name} is {shown(text)}, but must be {rule}; correct it", param=part.name
        )
    return text


def _check_whole(fields: dict[str, str]) -> None:
    needed = ["file", "purpose"]
    if _ANCHOR in fields or _SECONDS in fields:
        needed += [_ANCHOR, _SECONDS]
    for name in needed:
        if name not in fields:
            rule = _TEXTS[name][1] if name in _TEXTS else "a file with a name"
            raise InvalidRequest(f"{name} is missing; it must be {rule}", param=name)


def _after() -> str | None:
    after = request.args.get("after")
    if after is not None and not is_file_id(after):
        raise InvalidRequest(
            f"after is {shown(after)}, but must be the id of a file, such as last_id of the page "
            "before; correct it or leave it out",
            param="after",
        )
    return after


def _limit() -> int:
    text = request.args.get("limit", str(MOST_LISTED))
    if re.fullmatch("[0-9]{1,9}", text) is None or not 1 <= int(text) <= MOST_LISTED:
        raise InvalidRequest(
            f"limit is {shown(text)}, but must be a whole number from 1 to {MOST_LISTED}; correct "
            "it or leave it out",
            param="limit",
        )
    return int(text)


def _choice(name: str, *choices: str) -> str | None:
    """One of ``choices`` out of the query, ``None`` if it is left out."""
    given = request.args.get(name)
    if given is not None and given not in choices:
        allowed = " or ".join(map(shown, choices))
        raise InvalidRequest(
            f"{name} is {shown(given)}, but must be {allowed}; correct it or leave it out",
            param=name,
        )
    return given
