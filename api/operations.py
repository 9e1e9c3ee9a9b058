"""Every call of the HTTP API: its parameters, answers and errors, for the OpenAPI document."""

from __future__ import annotations

from api.completion_contract import Completion
from api.contract import (
    Answer,
    DeletedFile,
    Document,
    Event,
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
from api.operation import Operation, Success
from api.parameters import (
    APPLIED,
    ATTACHMENT,
    CONDITIONS,
    EVENT_FORMAT,
    FILE_FILTERS,
    FILE_ID,
    FILTERS,
    GOING_ON,
    IDEMPOTENCY_KEY,
    IGNORED,
    JOB_HEADER,
    JOB_ID,
    LAST_EVENT_ID,
    LOCATION,
    MODEL,
    PREFER,
    RETRY_AFTER,
    SIZE,
    TIMING,
    WAIT,
)
from api.run_operations import RUN_OPERATIONS
from chat import errors
from chat.errors import error_classes
from chat.formats.chat import ChatBody
from chat.formats.completion_answers import COMPLETION_STATUS
from chat.formats.completion_body import CompletionBody

__all__ = ["OPERATIONS"]

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
_STREAM = "text/event-stream"
_EVENTS = {_STREAM: Event}
_FILE_BY_ID = (errors.FileNotFound, errors.StorageUnavailable)


OPERATIONS = (
    Operation(
        path="/v1/chat",
        method="post",
        summary="Chat and wait for the answer, or have it as it comes",
        body=ChatBody,
        parameters=(PREFER, IDEMPOTENCY_KEY, GOING_ON),
        answers={
            200: Success(
                "the answer; with stream its events", Answer, {**TIMING, **APPLIED}, others=_EVENTS
            ),
            202: Success(
                "the job goes on by itself; with Retry-After, since the front end is stopping",
                Record,
                {**LOCATION, **APPLIED, **RETRY_AFTER},
            ),
        },
        errors=_ANY,
    ),
    Operation(
        path="/v1/chat/completions",
        method="post",
        summary="Chat and wait for the answer, or have it as it comes, in OpenAI's format; where "
        "the provider refused the request, its own status of 4xx may stand for 400",
        body=CompletionBody,
        parameters=(PREFER, IDEMPOTENCY_KEY, GOING_ON),
        answers={
            200: Success(
                "the answer; with stream its chunks",
                Completion,
                {**TIMING, **APPLIED, **IGNORED},
                others=_EVENTS,
            ),
            202: Success("the job goes on by itself", Record, {**LOCATION, **APPLIED, **IGNORED}),
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
        parameters=(IDEMPOTENCY_KEY,),
        answers={202: Success("the job", Record, LOCATION)},
        errors=_ADMISSION,
    ),
    Operation(
        path="/v1/jobs",
        method="get",
        summary="The newest jobs, a page at a time, without their responses",
        parameters=FILTERS,
        answers={200: Success("one page", Jobs, {})},
        errors=(errors.InvalidRequest, errors.QueueUnavailable),
    ),
    Operation(
        path="/v1/jobs/{job_id}",
        method="get",
        summary="The record of a job, whatever its state",
        parameters=(JOB_ID, WAIT),
        answers={200: Success("the record", Record, {})},
        errors=(errors.InvalidRequest, *_BY_ID),
    ),
    Operation(
        path="/v1/jobs/{job_id}/events",
        method="get",
        summary="The pieces of a job's answer as they come, then the answer; also when it is over, "
        "and of a job without stream in one piece",
        parameters=(JOB_ID, EVENT_FORMAT, LAST_EVENT_ID),
        answers={200: Success("the events", Event, JOB_HEADER, media_type=_STREAM)},
        errors=_ANY,
    ),
    Operation(
        path="/v1/jobs/{job_id}/cancel",
        method="post",
        summary="Cancel a job",
        parameters=(JOB_ID,),
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
        parameters=(MODEL,),
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
        parameters=(IDEMPOTENCY_KEY,),
        answers={200: Success("the file", FileAnswer, {})},
        errors=(*_BODY, errors.IdempotencyMismatch, errors.StorageUnavailable),
    ),
    Operation(
        path="/v1/files",
        method="get",
        summary="The files that are there, newest first",
        parameters=FILE_FILTERS,
        answers={200: Success("one page", Files, {})},
        errors=(errors.InvalidRequest, errors.StorageUnavailable),
    ),
    Operation(
        path="/v1/files/{file_id}",
        method="get",
        summary="What is known about a file",
        parameters=(FILE_ID,),
        answers={200: Success("the file", FileAnswer, {})},
        errors=_FILE_BY_ID,
    ),
    Operation(
        path="/v1/files/{file_id}/content",
        method="get",
        summary="What is in a file",
        parameters=(FILE_ID, *CONDITIONS),
        answers={
            200: Success("all of it", FileContent, ATTACHMENT, media_type="application/jsonl"),
            206: Success(
                "the range", FileContent, ATTACHMENT, media_type="application/jsonl", partial=True
            ),
            304: Success("as before", None, {}),
        },
        errors=_FILE_BY_ID,
        refusals={412: {}, 416: SIZE},
    ),
    Operation(
        path="/v1/files/{file_id}",
        method="delete",
        summary="Delete a file",
        parameters=(FILE_ID,),
        answers={200: Success("it is deleted", DeletedFile, {})},
        errors=_FILE_BY_ID,
    ),
    *RUN_OPERATIONS,
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
