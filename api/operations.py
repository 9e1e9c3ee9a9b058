"""Every call of the HTTP API: its parameters, answers and errors, for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from api.batch_contract import BatchAnswer, Batches
from api.batches import BatchBody
from api.completion_contract import Completion
from api.contract import (
    Answer,
    DeletedFile,
    Document,
    FileAnswer,
    FileContent,
    FileForm,
    Files,
    Health,
    Jobs,
    Metrics,
    ModelAnswer,
    Models,
    Providers,
    Ready,
    Record,
)
from chat import errors
from chat.errors import ChatError, error_classes
from chat.files import MOST_LISTED
from chat.formats.chat import ChatBody
from chat.formats.completion_answers import COMPLETION_STATUS
from chat.formats.completion_body import CompletionBody
from chat.formats.errors import STATUS
from chat.jobs import ID_CHARACTERS, JobState
from chat.routing import PROVIDERS
from chat.types import JSON, Lane

__all__ = ["OPERATIONS", "RETRY_AFTER", "Operation", "Success"]

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
_BY_ID = (errors.JobNotFound, errors.ResultExpired, errors.QueueUnavailable)
_FILE_BY_ID = (errors.FileNotFound, errors.StorageUnavailable)

_TEXT: JSON = {"type": "string"}
_JOB_ID: JSON = {
    "name": "job_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": f"^job_{ID_CHARACTERS}$"},
}
_MODEL: JSON = {
    "name": "model",
    "in": "path",
    "required": True,
    "description": "any name of a model; slashes in it may stand as they are",
    "schema": _TEXT,
}
_WAIT: JSON = {
    "name": "wait",
    "in": "query",
    "description": "long poll: answer once the job is over, or after so many seconds, or when the "
    "front end is told to stop",
    "schema": {"type": "number", "minimum": 0, "maximum": 300, "default": 0},
}
_FILTERS: tuple[JSON, ...] = (
    {
        "name": "state",
        "in": "query",
        "description": "one or several, with commas between them; without it jobs in every state",
        "schema": {"type": "array", "items": {"enum": [state.value for state in JobState]}},
        "style": "form",
        "explode": False,
    },
    {"name": "provider", "in": "query", "schema": {"enum": list(PROVIDERS)}},
    {"name": "lane", "in": "query", "schema": {"enum": [lane.value for lane in Lane]}},
    {
        "name": "limit",
        "in": "query",
        "description": "the most jobs on the page",
        "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    },
    {
        "name": "after",
        "in": "query",
        "description": "the `next` of the page before: jobs older than the one with this id, "
        "whether or not there still is a record of that",
        "schema": _JOB_ID["schema"],
    },
)
_FILE_ID: JSON = {
    "name": "file_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": f"^file-{ID_CHARACTERS}$"},
}
_FILE_FILTERS: tuple[JSON, ...] = (
    {"name": "purpose", "in": "query", "schema": {"enum": ["batch", "batch_output"]}},
    {"name": "order", "in": "query", "schema": {"enum": ["desc", "asc"], "default": "desc"}},
    {
        "name": "limit",
        "in": "query",
        "schema": {
            "type": "integer",
            "minimum": 1,
            "maximum": MOST_LISTED,
            "default": MOST_LISTED,
        },
    },
    {
        "name": "after",
        "in": "query",
        "description": "the `last_id` of the page before, whether or not there still is that file",
        "schema": _FILE_ID["schema"],
    },
)
_BATCH_ID: JSON = {
    "name": "batch_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": f"^batch_{ID_CHARACTERS}$"},
}
_BATCH_FILTERS: tuple[JSON, ...] = (
    {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    },
    {
        "name": "after",
        "in": "query",
        "description": "the `last_id` of the page before",
        "schema": _BATCH_ID["schema"],
    },
)
_RANGE: JSON = {
    "name": "Range",
    "in": "header",
    "description": "one range of bytes (RFC 9110)",
    "schema": _TEXT,
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
_ATTACHMENT: JSON = {
    "Content-Disposition": {"description": "the name of the file", "schema": _TEXT},
    "ETag": {"description": "the SHA-256 of the whole content", "schema": _TEXT},
}
_TIMING: JSON = {
    "Server-Timing": {"description": "queue, upstream and gateway in ms", "schema": _TEXT},
    "X-Chatd-Job-Id": {"description": "the job's id", "schema": _TEXT},
}
_APPLIED: JSON = {"Preference-Applied": {"description": "the preference kept", "schema": _TEXT}}
_IGNORED: JSON = {
    "X-Chatd-Ignored": {
        "description": "the fields that were accepted and not sent to the provider; absent if none",
        "schema": _TEXT,
    }
}
RETRY_AFTER: JSON = {
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
    body_type: str = _JSON
    parameters: tuple[JSON, ...] = ()
    statuses: Mapping[type[ChatError], int] = field(default_factory=lambda: STATUS)


OPERATIONS = (
    Operation(
        path="/v1/chat",
        method="post",
        summary="Chat and wait for the answer",
        body=ChatBody,
        parameters=(_PREFER, _IDEMPOTENCY_KEY),
        answers={
            200: Success("the answer", Answer, {**_TIMING, **_APPLIED}),
            202: Success(
                "the job goes on by itself; with Retry-After, since the front end is stopping",
                Record,
                {**_LOCATION, **_APPLIED, **RETRY_AFTER},
            ),
        },
        errors=_ANY,
    ),
    Operation(
        path="/v1/chat/completions",
        method="post",
        summary="Chat and wait for the answer, in OpenAI's format; where the provider refused the "
        "request, its own status of 4xx may stand for 400",
        body=CompletionBody,
        parameters=(_PREFER, _IDEMPOTENCY_KEY),
        answers={
            200: Success("the answer", Completion, {**_TIMING, **_APPLIED, **_IGNORED}),
            202: Success(
                "the job goes on by itself", Record, {**_LOCATION, **_APPLIED, **_IGNORED}
            ),
        },
        errors=_ANY,
        statuses=COMPLETION_STATUS,
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
        path="/v1/jobs",
        method="get",
        summary="The newest jobs, a page at a time, without their responses",
        parameters=_FILTERS,
        answers={200: Success("one page", Jobs, {})},
        errors=(errors.InvalidRequest, errors.QueueUnavailable),
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
        path="/v1/models",
        method="get",
        summary="The models that can be asked for: tiers, and what each provider lists",
        answers={200: Success("the models", Models, {})},
        errors=(errors.QueueUnavailable,),
    ),
    Operation(
        path="/v1/models/{model}",
        method="get",
        summary="One of these models, by any name that leads to it",
        parameters=(_MODEL,),
        answers={200: Success("the model", ModelAnswer, {})},
        errors=(
            errors.InvalidRequest,
            errors.ProviderNotRegistered,
            errors.ModelNotFound,
            errors.QueueUnavailable,
        ),
    ),
    Operation(
        path="/v1/files",
        method="post",
        summary="Upload a file, such as the input of a batch",
        body=FileForm,
        body_type="multipart/form-data",
        parameters=(_IDEMPOTENCY_KEY,),
        answers={200: Success("the file", FileAnswer, {})},
        errors=(*_BODY, errors.IdempotencyMismatch, errors.StorageUnavailable),
    ),
    Operation(
        path="/v1/files",
        method="get",
        summary="The files that are there, newest first",
        parameters=_FILE_FILTERS,
        answers={200: Success("one page", Files, {})},
        errors=(errors.InvalidRequest, errors.StorageUnavailable),
    ),
    Operation(
        path="/v1/files/{file_id}",
        method="get",
        summary="What is known about a file",
        parameters=(_FILE_ID,),
        answers={200: Success("the file", FileAnswer, {})},
        errors=_FILE_BY_ID,
    ),
    Operation(
        path="/v1/files/{file_id}/content",
        method="get",
        summary="What is in a file",
        parameters=(_FILE_ID, _RANGE),
        answers={
            200: Success("all of it", FileContent, _ATTACHMENT, media_type="application/jsonl"),
            206: Success("the range", FileContent, _ATTACHMENT, media_type="application/jsonl"),
        },
        errors=_FILE_BY_ID,
    ),
    Operation(
        path="/v1/files/{file_id}",
        method="delete",
        summary="Delete a file",
        parameters=(_FILE_ID,),
        answers={200: Success("it is deleted", DeletedFile, {})},
        errors=_FILE_BY_ID,
    ),
    Operation(
        path="/v1/batches",
        method="post",
        summary="Run a file of requests as a batch",
        body=BatchBody,
        parameters=(_IDEMPOTENCY_KEY,),
        answers={200: Success("the batch", BatchAnswer, {})},
        errors=(
            *_BODY,
            errors.FileNotFound,
            errors.IdempotencyMismatch,
            errors.StorageUnavailable,
        ),
    ),
    Operation(
        path="/v1/batches",
        method="get",
        summary="The batches, newest first",
        parameters=_BATCH_FILTERS,
        answers={200: Success("one page", Batches, {})},
        errors=(errors.InvalidRequest,),
    ),
    Operation(
        path="/v1/batches/{batch_id}",
        method="get",
        summary="How far a batch is",
        parameters=(_BATCH_ID,),
        answers={200: Success("the batch", BatchAnswer, {})},
        errors=(errors.BatchNotFound,),
    ),
    Operation(
        path="/v1/batches/{batch_id}/cancel",
        method="post",
        summary="End a batch; what has been answered stays",
        parameters=(_BATCH_ID,),
        answers={200: Success("the batch", BatchAnswer, {})},
        errors=(errors.BatchNotFound, errors.StorageUnavailable),
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
            503: Success("not all of them", Ready, RETRY_AFTER),
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
