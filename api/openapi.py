"""The OpenAPI document, made from the models that validate and the table of error statuses."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.contract import (
    Answer,
    Document,
    ErrorAnswer,
    Health,
    Metrics,
    Providers,
    Ready,
    Record,
)
from api.errors import STATUS
from api.schema import ChatBody
from chat import errors
from chat.errors import ChatError, error_classes
from chat.types import JSON

__all__ = ["OPERATIONS", "Operation", "document"]

_REF = "#/components/schemas/{model}"
_JSON = "application/json"

_BODY = (errors.InvalidRequest, errors.TooLarge)
_ADMISSION = (
    *_BODY,
    errors.ProviderNotRegistered,
    errors.IdempotencyMismatch,
    errors.QueueFull,
    errors.QueueUnavailable,
)
#: A call that waits can end in any error there is.
_ANY = error_classes()
_BY_ID = (errors.JobNotFound, errors.QueueUnavailable)

_TEXT: JSON = {"type": "string"}
_JOB_ID: JSON = {
    "name": "job_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^job_[0-9a-hjkmnp-tv-z]{26}$"},
}
_WAIT: JSON = {
    "name": "wait",
    "in": "query",
    "description": "long poll: answer once the job is over, or after so many seconds",
    "schema": {"type": "number", "minimum": 0, "maximum": 300, "default": 0},
}
_IDEMPOTENCY_KEY: JSON = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "1 to 255 visible ASCII characters; the same key with the same body on the same "
    "path is the same job",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}
_PREFER: JSON = {
    "name": "Prefer",
    "in": "header",
    "description": "wait=N: 202 after N seconds, the job goes on. respond-async: 202 at once. "
    "Without it the call waits until the job ends (RFC 7240)",
    "schema": _TEXT,
}
_LOCATION: JSON = {"Location": {"description": "the path of the job's record", "schema": _TEXT}}
_TIMING: JSON = {
    "Server-Timing": {"description": "queue, upstream and gateway in ms", "schema": _TEXT},
    "X-Chatd-Job-Id": {"description": "the job's id", "schema": _TEXT},
}
_APPLIED: JSON = {"Preference-Applied": {"description": "the preference kept", "schema": _TEXT}}
_RETRY_AFTER: JSON = {
    "Retry-After": {"description": "seconds to wait before another try", "schema": _TEXT}
}


@dataclass(frozen=True, slots=True)
class Success:
    """An answer that is not an error."""

    description: str
    model: type[BaseModel]
    headers: JSON
    media_type: str = _JSON


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    path: str
    method: str
    summary: str
    answers: dict[int, Success]
    errors: tuple[type[ChatError], ...] = ()
    body: type[BaseModel] | None = None
    parameters: tuple[JSON, ...] = ()


OPERATIONS = (
    Operation(
        path="/v1/chat",
        method="post",
        summary="Chat and wait for the answer",
        body=ChatBody,
        parameters=(_PREFER, _IDEMPOTENCY_KEY),
        answers={
            200: Success("the answer", Answer, {**_TIMING, **_APPLIED}),
            202: Success("the job goes on by itself", Record, {**_LOCATION, **_APPLIED}),
        },
        errors=_ANY,
    ),
    Operation(
        path="/v1/chat/providers",
        method="get",
        summary="The registered providers, their budgets, and what waits for each",
        answers={200: Success("the providers", Providers, {})},
        errors=(errors.QueueUnavailable,),
    ),
    Operation(
        path="/v1/jobs",
        method="post",
        summary="Queue a chat; its lane is batch unless the body says otherwise",
        body=ChatBody,
        parameters=(_IDEMPOTENCY_KEY,),
        answers={202: Success("the job", Record, _LOCATION)},
        errors=_ADMISSION,
    ),
    Operation(
        path="/v1/jobs/{job_id}",
        method="get",
        summary="The record of a job, whatever its state",
        parameters=(_JOB_ID, _WAIT),
        answers={200: Success("the record", Record, {})},
        errors=(errors.InvalidRequest, *_BY_ID),
    ),
    Operation(
        path="/v1/jobs/{job_id}/cancel",
        method="post",
        summary="Cancel a job",
        parameters=(_JOB_ID,),
        answers={200: Success("the record", Record, {})},
        errors=_BY_ID,
    ),
    Operation(
        path="/health",
        method="get",
        summary="Whether this process answers",
        answers={200: Success("it does", Health, {})},
    ),
    Operation(
        path="/ready",
        method="get",
        summary="Whether Redis and a worker of every registered provider answer",
        answers={
            200: Success("they do", Ready, {}),
            503: Success("not all of them", Ready, _RETRY_AFTER),
        },
    ),
    Operation(
        path="/metrics",
        method="get",
        summary="The numbers of GET /v1/chat/providers for Prometheus",
        answers={200: Success("the metrics", Metrics, {}, media_type="text/plain")},
        errors=(errors.QueueUnavailable,),
    ),
    Operation(
        path="/openapi.json",
        method="get",
        summary="This document",
        answers={200: Success("this document", Document, {})},
    ),
)


@cache
def document(version: str) -> JSON:
    """The OpenAPI 3.1 document of this version."""
    schemas, definitions = _schemas()
    paths: dict[str, JSON] = defaultdict(dict)
    for operation in OPERATIONS:
        paths[operation.path][operation.method] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "chatd",
            "version": version,
            "description": "Chat over one queue for local and remote models. "
            "Every response has an X-Request-Id.",
        },
        "paths": dict(paths),
        "components": {"schemas": definitions},
    }


def _schemas() -> tuple[dict[type[BaseModel], JSON], JSON]:
    """A reference for each model, and the definitions they refer to."""
    requests = {op.body for op in OPERATIONS if op.body is not None}
    answers = {success.model for op in OPERATIONS for success in op.answers.values()}
    models = sorted(requests | answers | {ErrorAnswer}, key=lambda model: model.__name__)
    references, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template=_REF
    )
    found = {model: reference for (model, _), reference in references.items()}
    return {model: found[model] for model in models}, definitions["$defs"]


def _operation(operation: Operation, schemas: dict[type[BaseModel], JSON]) -> JSON:
    responses: dict[str, JSON] = {
        str(status): _response(
            success.description, schemas[success.model], success.headers, success.media_type
        )
        for status, success in operation.answers.items()
    }
    codes: dict[int, list[str]] = defaultdict(list)
    everywhere: tuple[type[ChatError], ...] = (ChatError,)
    for error in operation.errors + everywhere:
        codes[STATUS[error]].append(error.code)
    for status, names in sorted(codes.items()):
        headers = _RETRY_AFTER if status in (429, 503) else {}
        responses[str(status)] = _response(", ".join(sorted(names)), schemas[ErrorAnswer], headers)
    wire: JSON = {"summary": operation.summary, "responses": responses}
    if operation.parameters:
        wire["parameters"] = list(operation.parameters)
    if operation.body is not None:
        wire["requestBody"] = {
            "required": True,
            "content": {_JSON: {"schema": schemas[operation.body]}},
        }
    return wire


def _response(description: str, schema: JSON, headers: JSON, media_type: str = _JSON) -> JSON:
    response: JSON = {"description": description, "content": {media_type: {"schema": schema}}}
    if headers:
        response["headers"] = headers
    return response
