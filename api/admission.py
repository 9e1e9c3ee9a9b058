"""From a request to a job: body, headers and route become a ``NewJob``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from flask import Response
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from api.access import caller
from api.current import notes, this_request
from api.frontend import FrontEnd, front_end
from api.headers import idempotency_key
from api.output import json_response
from api.unread import STALL_S
from chat.errors import InvalidRequest, QueueUnavailable
from chat.formats.chat import ChatCall, parse_chat
from chat.jobs import JobRecord, NewJob, new_job_id
from chat.types import Lane

__all__ = ["accepted", "job_path", "key_of_call", "naming", "new_job", "read_body", "read_job"]


def read_job(front: FrontEnd, default_lane: Lane) -> NewJob:
    """The job that the current request asks for in chatd's own format; see ``new_job``."""
    call = parse_chat(read_body(), max_timeout_s=front.config.max_timeout_s)
    return new_job(front, call, default_lane)


def new_job(front: FrontEnd, call: ChatCall, default_lane: Lane) -> NewJob:
    """The job for a call and the current request's headers, not admitted, nobody waiting for it.

    Raises ``InvalidRequest`` and ``ProviderNotRegistered``.
    """
    config = front.config
    request = this_request()
    key = key_of_call(f"{request.method} {request.path}")
    route = front.names.route(call.request.model)
    lane = call.lane or default_lane
    usual_s = config.timeout_s if lane is Lane.INTERACTIVE else config.job_timeout_s
    return NewJob(
        id=new_job_id(),
        request=call.request,
        provider=route.provider,
        upstream_model=route.model,
        lane=lane,
        timeout_ms=math.ceil((call.timeout_s or usual_s) * 1000),
        metadata=call.metadata,
        idempotency_key=key,
        body_hash=None if key is None else call.body_hash,
        request_id=notes().request_id,
        owner=caller().name,
    )


def key_of_call(call: str) -> str | None:
    """The caller's Idempotency-Key with what it is for, if there is one.

    The same key of another caller, or for another ``call`` (method and path), is another one.
    Raises ``InvalidRequest``.
    """
    key = idempotency_key(this_request().headers)
    if key is None:
        return None
    return " ".join(part for part in (caller().name, call, key) if part)


def accepted(
    front: FrontEnd, job_id: str, applied: str | None = None, record: JobRecord | None = None
) -> Response:
    """202 with the record of a job that goes on by itself; ``applied`` is the preference kept.

    ``record`` is read where it is not given.
    """
    notes().job_id = job_id
    headers = {"Location": job_path(job_id)}
    if applied is not None:
        headers["Preference-Applied"] = applied
    if record is None:
        with naming(job_id):
            record = front.connections().store.record(job_id)
    return json_response(record.to_wire(), 202, headers)


@contextmanager
def naming(job_id: str) -> Iterator[None]:
    """Put the id of a job that was admitted into an error of Redis' that comes after that.

    Without it the caller would ask again, and pay twice.
    """
    try:
        yield
    except QueueUnavailable as error:
        error.job_id = error.job_id or job_id
        raise


def job_path(job_id: str) -> str:
    """Where the record of a job can be read."""
    return f"/v1/jobs/{job_id}"


def read_body() -> bytes:
    """The whole body of the current request. Raises ``InvalidRequest`` and werkzeug's 413."""
    request = this_request()
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise InvalidRequest(
            "a body with Content-Encoding is not accepted; send it uncompressed",
            param="Content-Encoding",
        )
    length, limit = request.content_length, front_end().config.body_limit
    try:
        if length and length <= limit:
            # What werkzeug reads it with would see to nothing more.
            raw: bytes = request.environ["wsgi.input"].read(length)
        else:
            raw = request.get_data(cache=False)
            # werkzeug cuts a chunked body at the limit without a word.
            if length is None and len(raw) == limit:
                _check_ended(request.environ["wsgi.input"])
    except ParseException as error:
        # gunicorn reads the body when it is asked for, so that a broken one shows up here.
        raise InvalidRequest(
            f"the chunks of the body are malformed ({type(error).__name__}); send it whole"
        ) from error
    except (ClientDisconnected, OSError) as error:
        raise InvalidRequest(
            f"the body broke off, or nothing of it came for {STALL_S:g} s; send it whole"
        ) from error
    if length is not None and len(raw) < length:
        raise InvalidRequest(
            f"the body broke off after {len(raw)} of {length} bytes; send it whole"
        )
    notes().size = len(raw)
    return raw


def _check_ended(stream: IO[bytes]) -> None:
    if stream.read(1):
        raise RequestEntityTooLarge
