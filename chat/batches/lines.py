"""The lines of a batch: requests on their way in, answers and errors on their way out.

Both are OpenAI's Batch format (platform docs, guides/batch): a request is ``{"custom_id", "method",
"url", "body"}``, a result ``{"id", "custom_id", "response": {"status_code", "request_id", "body"},
"error"}``. A result has chatd's own ``chatd`` beside them: the line's number, what it cost and the
ledger of its upstream calls.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from chat.errors import InvalidRequest, ResultExpired, error_from_wire
from chat.formats.chat import ChatCall, read_chat
from chat.formats.completion_answers import completion, completion_error
from chat.formats.completions import CompletionCall, read_completion
from chat.formats.errors import STATUS, error_body
from chat.formats.strict_json import parse_object, shown
from chat.formats.support import dropped
from chat.jobs import JobRecord, new_id
from chat.types import JSON

__all__ = ["ENDPOINTS", "Line", "custom_id_in", "job_id_of", "parse_line", "result_of", "unsent"]

#: What a line may ask for, and what reads its body.
_READERS: Mapping[str, Callable[..., ChatCall]] = {
    "/v1/chat/completions": read_completion,
    "/v1/chat": read_chat,
}
ENDPOINTS = tuple(_READERS)

_FIELDS = ("custom_id", "method", "url", "body")
_LONGEST_CUSTOM_ID = 512


@dataclass(frozen=True, slots=True)
class Line:
    """One request of a batch; ``number`` counts from 1."""

    number: int
    custom_id: str
    url: str
    call: ChatCall


def parse_line(number: int, raw: bytes, *, max_timeout_s: float) -> Line:
    """A line of an input file.

    Raises ``InvalidRequest``: ``param`` is the field's path within the line.
    """
    try:
        value = parse_object(raw)
    except InvalidRequest as error:
        # The reader speaks of a body; here that is one field of the line.
        raise InvalidRequest(
            error.message.replace("the body", "the line", 1), param=error.param
        ) from error
    for name in value:
        if name not in _FIELDS:
            raise InvalidRequest(
                f"{shown(name)} is not a known field of a line; there are {', '.join(_FIELDS)}",
                param=name,
            )
    custom_id = value.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= _LONGEST_CUSTOM_ID:
        raise _wrong("custom_id", value, f"a string of 1 to {_LONGEST_CUSTOM_ID} characters")
    if value.get("method") != "POST":
        raise _wrong("method", value, '"POST"')
    url = value.get("url")
    if not isinstance(url, str) or url not in _READERS:
        raise _wrong("url", value, " or ".join(f'"{known}"' for known in ENDPOINTS))
    body = value.get("body")
    if not isinstance(body, dict):
        raise _wrong("body", value, f"the JSON object that POST {url} takes")
    try:
        call = _READERS[url](body, max_timeout_s=max_timeout_s)
    except InvalidRequest as error:
        where = f"body.{error.param}" if error.param else "body"
        raise InvalidRequest(f"body: {error.message}", param=where) from error
    _check_fit(call)
    return Line(number, custom_id, url, call)


def _check_fit(call: ChatCall) -> None:
    """A batch decides for itself how its calls wait and how they are answered."""
    if call.lane is not None and call.lane.value != "batch":
        raise InvalidRequest(
            f"body.lane is {shown(call.lane.value)}, but a batch runs in the batch lane; "
            "leave it out",
            param="body.lane",
        )
    if call.request.stream:
        raise InvalidRequest(
            "body.stream is true, but a batch writes whole answers; leave it out",
            param="body.stream",
        )


def _wrong(name: str, value: JSON, rule: str) -> InvalidRequest:
    found = f"is {shown(value[name])}, but" if name in value else "is missing; it"
    return InvalidRequest(f"{name} {found} must be {rule}", param=name)


def job_id_of(batch_id: str, created_ms: int, number: int) -> str:
    """The id of the job that a line becomes: the same whenever it is asked.

    So a line that is fed twice, by two keepers or by one that was killed, is one job. Like every
    job id it begins with a time, here the batch's.
    """
    digest = hashlib.sha256(f"{batch_id}:{number}".encode()).digest()
    return new_id("job_", created_ms, digest)


def result_of(batch_id: str, line: Line, record: JobRecord) -> JSON:
    """The result of a line whose job is over: an answer or an error, as the URL would have it."""
    chat = line.url == "/v1/chat"
    answer = record.response
    if answer is not None:
        created_s = record.created_at // 1000
        body = {"id": record.id, **answer} if chat else completion(record.id, created_s, answer)
        result = _result(batch_id, line.number, line.custom_id, record, (200, body))
        result["chatd"]["ignored"] = _ignored(line, record)
        return result
    error = error_from_wire({**_told(record), "job_id": record.id})
    failed = (STATUS[type(error)], error_body(error)) if chat else completion_error(error)
    return _result(batch_id, line.number, line.custom_id, record, failed)


def unsent(
    batch_id: str,
    number: int,
    custom_id: str,
    error: JSON,
    record: JobRecord | None = None,
) -> JSON:
    """The result of a line that has no answer; ``error`` has the code and the message."""
    wire = _result(batch_id, number, custom_id, record, None)
    return {**wire, "error": error, "chatd": {**wire["chatd"], "code": error["code"]}}


def custom_id_in(raw: bytes) -> str:
    """The ``custom_id`` of a line that was found good before."""
    custom_id: str = json.loads(raw)["custom_id"]
    return custom_id


def _ignored(line: Line, record: JobRecord) -> list[str]:
    """Fields of the body that were accepted and did not reach the provider."""
    call = line.call
    ignored = call.ignored if isinstance(call, CompletionCall) else ()
    dropped_by_provider = dropped(record.provider, record.upstream_model, call.request)
    return [*ignored, *(name for name in dropped_by_provider if name not in ignored)]


def _told(record: JobRecord) -> JSON:
    """The error of a job that has no answer."""
    if record.error is not None:
        return record.error
    return {
        "code": ResultExpired.code,
        "message": f"job {record.id} is over, but its answer is no longer kept",
    }


def _result(
    batch_id: str,
    number: int,
    custom_id: str,
    record: JobRecord | None,
    answer: tuple[int, JSON] | None,
) -> JSON:
    response = None
    if answer is not None and record is not None:
        status, body = answer
        response = {"status_code": status, "request_id": record.id, "body": body}
    return {
        "id": f"batch_req_{batch_id.removeprefix('batch_')}_{number}",
        "custom_id": custom_id,
        "response": response,
        "error": None,
        "chatd": _account(number, record),
    }


def _account(number: int, record: JobRecord | None) -> JSON:
    """What became of a line, for whoever checks the bill."""
    if record is None:
        return {"line": number, "job_id": None, "state": None, "code": None, "attempts": []}
    answer = record.response or {}
    return {
        "line": number,
        "job_id": record.id,
        "state": record.state.value,
        "code": _told(record)["code"] if record.response is None else None,
        "provider": record.provider,
        "upstream_model": record.upstream_model,
        "input_tokens": answer.get("input_tokens"),
        "output_tokens": answer.get("output_tokens"),
        "cost_usd": answer.get("cost_usd"),
        "attempts": [attempt.to_wire() for attempt in record.attempts],
    }
