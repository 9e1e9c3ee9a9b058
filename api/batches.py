"""OpenAI's Batch API: a file of requests in, files of results out. The keeper does the work."""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import replace
from typing import Annotated, Literal

from flask import Blueprint, Response, request
from pydantic import Field

from api.admission import read_body
from api.frontend import FrontEnd, front_end
from api.headers import idempotency_key
from api.output import json_response, page_response
from api.threads import in_thread
from chat.batches.batch import Batch
from chat.batches.folder import is_batch_id
from chat.disk import disk_errors
from chat.errors import InvalidRequest
from chat.formats.chat import Body, MetadataKey, MetadataValue
from chat.formats.strict_json import parse_object, shown
from chat.formats.validation import validated
from chat.jobs import new_id

__all__ = ["BatchBody", "blueprint"]

blueprint = Blueprint("batches", __name__)

_WINDOW = re.compile(r"([1-9][0-9]{0,2})([hd])")
_UNIT_S = {"h": 3600, "d": 86400}
_LONGEST_S = 30 * 86400
#: The most batches on one page, as in OpenAI's API reference (List batches).
_MOST_LISTED = 100


class BatchBody(Body):
    """The body of ``POST /v1/batches``."""

    input_file_id: str = Field(description="the id of a file of purpose batch")
    endpoint: Literal["/v1/chat/completions", "/v1/chat"] = Field(
        description='"/v1/chat/completions" or "/v1/chat"'
    )
    completion_window: str = Field(
        description='a number of hours or days up to 30 days, such as "24h" or "7d"'
    )
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] | None = Field(
        None,
        description="an object of at most 16 strings; keys of 1 to 64 characters, "
        "values of at most 512",
    )


@blueprint.post("/v1/batches")
def create() -> Response:
    """Make a batch; the keeper validates its file before anything of it is queued."""
    front = front_end()
    key = idempotency_key(request.headers)
    # The same key on another path is another call.
    key = None if key is None else f"POST /v1/batches {key}"
    value = parse_object(read_body())
    body = validated(BatchBody, value)
    seconds = _window_s(body.completion_window)
    body_hash = _hash(body)
    if key is not None and (earlier := front.batches.of_key(key, body_hash)) is not None:
        return _shown(front, earlier)
    file = front.files.get(body.input_file_id)
    if file.purpose != "batch":
        raise InvalidRequest(
            f"input_file_id is {shown(file.id)}, a file of purpose {file.purpose}, but must be one "
            "of purpose batch; upload the requests with purpose=batch",
            param="input_file_id",
        )
    now = time.time()
    batch = Batch(
        id=new_id("batch_"),
        input_file_id=file.id,
        endpoint=body.endpoint,
        completion_window=body.completion_window,
        created_ms=int(now * 1000),
        expires_at=int(now) + seconds,
        output_file_id=new_id("file-"),
        error_file_id=new_id("file-"),
        metadata=body.metadata,
    )
    with disk_errors("the batch cannot be stored"):
        batch_id = in_thread(_create, front, batch, key, body_hash)
    return _shown(front, batch_id)


@blueprint.get("/v1/batches")
def listed() -> Response:
    """Batches, newest first."""
    after = request.args.get("after")
    if after is not None and not is_batch_id(after):
        raise InvalidRequest(
            f"after is {shown(after)}, but must be a batch id; take the last_id of the page before",
            param="after",
        )
    limit = _limit()
    with disk_errors("batches cannot be read"):
        found, more = in_thread(front_end().batches.page, after, limit)
    return page_response([batch.shown(progress) for batch, progress in found], more=more)


@blueprint.get("/v1/batches/<batch_id>")
def show(batch_id: str) -> Response:
    """How far a batch is."""
    return _shown(front_end(), batch_id)


@blueprint.post("/v1/batches/<batch_id>/cancel")
def cancel(batch_id: str) -> Response:
    """Ask for the end of a batch; what has been answered by then stays."""
    front = front_end()
    with disk_errors("the batch cannot be cancelled"):
        front.batches.cancel(batch_id)
    return _shown(front, batch_id)


def _create(front: FrontEnd, batch: Batch, key: str | None, body_hash: str) -> str:
    """Make the batch, or find the one that an earlier call with this key has made; its id."""
    if key is not None:
        # The id comes first: who finds it taken, and no batch behind it, goes on for a process that
        # died in between.
        batch = replace(batch, id=front.batches.claim(key, body_hash, batch.id))
    front.batches.create(batch, front.files.path(batch.input_file_id))
    return batch.id


def _limit() -> int:
    text = request.args.get("limit", "20")
    if re.fullmatch("[0-9]{1,4}", text) is None or not 1 <= int(text) <= _MOST_LISTED:
        raise InvalidRequest(
            f"limit is {shown(text)}, but must be a whole number from 1 to {_MOST_LISTED}; ask for "
            "more with after, which takes the last_id of this page",
            param="limit",
        )
    return int(text)


def _shown(front: FrontEnd, batch_id: str) -> Response:
    with disk_errors("the batch cannot be read"):
        batch, progress = front.batches.get(batch_id)
    return json_response(batch.shown(progress))


def _window_s(text: str) -> int:
    found = _WINDOW.fullmatch(text)
    seconds = int(found[1]) * _UNIT_S[found[2]] if found else 0
    if not 0 < seconds <= _LONGEST_S:
        raise InvalidRequest(
            f"completion_window is {shown(text)}, but must be a number of hours or days up to 30 "
            'days, such as "24h" or "7d"',
            param="completion_window",
        )
    return seconds


def _hash(body: BatchBody) -> str:
    canonical = json.dumps(body.model_dump(), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
