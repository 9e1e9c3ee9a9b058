"""OpenAI's Batch API: a file of requests in, files of results out. The keeper does the work."""

from __future__ import annotations

import time
from typing import Literal

from flask import Blueprint, Response
from pydantic import Field

from api.access import caller
from api.admission import key_of_call, read_body
from api.frontend import front_end
from api.runs import (
    METADATA,
    Metadata,
    Once,
    cancelled,
    input_file,
    listed,
    run_response,
    window_s,
)
from chat.batches.batch import Batch
from chat.formats.chat import Body
from chat.formats.shapes import WINDOW
from chat.formats.strict_json import parse_object
from chat.formats.validation import validated
from chat.jobs import new_id

__all__ = ["BatchBody", "blueprint"]

blueprint = Blueprint("batches", __name__)


class BatchBody(Body):
    """The body of ``POST /v1/batches``."""

    input_file_id: str = Field(description="the id of a file of purpose batch")
    endpoint: Literal["/v1/chat/completions", "/v1/chat"] = Field(
        description='"/v1/chat/completions" or "/v1/chat"'
    )
    completion_window: str = Field(
        description='a number of hours or days up to 30 days, such as "24h" or "7d"',
        json_schema_extra={"pattern": WINDOW},
    )
    metadata: Metadata | None = Field(None, description=METADATA)


@blueprint.post("/v1/batches")
def create() -> Response:
    """Make a batch; the keeper validates its file before anything of it is queued."""
    front = front_end()
    key = key_of_call(f"POST {front.batches.path}")
    body = validated(BatchBody, parse_object(read_body()))
    seconds = window_s(body.completion_window)
    once = Once(front.batches, key, body)
    if (earlier := once.earlier()) is not None:
        return run_response(front.batches, earlier)
    file = input_file(front, body.input_file_id, "the requests")
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
        owner=caller().name,
    )
    return run_response(front.batches, once.make(batch, front.files))


@blueprint.get("/v1/batches")
def show_all() -> Response:
    """Batches, newest first."""
    return listed(front_end().batches, "a batch id", "batches")


@blueprint.get("/v1/batches/<batch_id>")
def show(batch_id: str) -> Response:
    """How far a batch is."""
    return run_response(front_end().batches, batch_id)


@blueprint.post("/v1/batches/<batch_id>/cancel")
def cancel(batch_id: str) -> Response:
    """Ask for the end of a batch; what has been answered by then stays."""
    return cancelled(front_end().batches, batch_id)
