"""The calls for batches and evaluations, for the OpenAPI document; see ``api.operations``."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from api.batch_contract import BatchAnswer, Batches
from api.batches import BatchBody
from api.evaluation_contract import (
    CacheAnswer,
    ClearedCache,
    EvaluationAnswer,
    Evaluations,
    ReportPage,
    ReportTable,
    ReportTests,
    Row,
    SuiteSchema,
    Summary,
)
from api.evaluations import CONTENT_TYPES, EvaluationBody
from api.operation import Operation, Success
from api.parameters import (
    BATCH_ID,
    CONDITIONS,
    EVALUATION_ID,
    FORMAT,
    IDEMPOTENCY_KEY,
    REPORT,
    SIZE,
    page_of,
)
from chat import errors

__all__ = ["RUN_OPERATIONS"]

_BODY = (errors.InvalidRequest, errors.TooLarge)
_BATCH_BY_ID = (errors.BatchNotFound, errors.StorageUnavailable)
_EVALUATION_BY_ID = (errors.EvaluationNotFound, errors.StorageUnavailable)

_OTHER_REPORTS: Mapping[str, type[BaseModel]] = {
    CONTENT_TYPES["json"]: Summary,
    CONTENT_TYPES["jsonl"]: Row,
    CONTENT_TYPES["csv"]: ReportTable,
    CONTENT_TYPES["junit"]: ReportTests,
}

RUN_OPERATIONS = (
    Operation(
        path="/v1/batches",
        method="post",
        summary="Run a file of requests as a batch",
        body=BatchBody,
        parameters=(IDEMPOTENCY_KEY,),
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
        parameters=page_of(BATCH_ID),
        answers={200: Success("one page", Batches, {})},
        errors=(errors.InvalidRequest, errors.StorageUnavailable),
    ),
    Operation(
        path="/v1/batches/{batch_id}",
        method="get",
        summary="How far a batch is",
        parameters=(BATCH_ID,),
        answers={200: Success("the batch", BatchAnswer, {})},
        errors=_BATCH_BY_ID,
    ),
    Operation(
        path="/v1/batches/{batch_id}/cancel",
        method="post",
        summary="End a batch; what has been answered stays",
        parameters=(BATCH_ID,),
        answers={200: Success("the batch", BatchAnswer, {})},
        errors=_BATCH_BY_ID,
    ),
    Operation(
        path="/v1/evaluations",
        method="post",
        summary="Ask a dataset of several models and score the answers",
        body=EvaluationBody,
        parameters=(IDEMPOTENCY_KEY,),
        answers={200: Success("the evaluation", EvaluationAnswer, {})},
        errors=(
            *_BODY,
            errors.ProviderNotRegistered,
            errors.FileNotFound,
            errors.IdempotencyMismatch,
            errors.StorageUnavailable,
        ),
    ),
    Operation(
        path="/v1/evaluations",
        method="get",
        summary="The evaluations, newest first",
        parameters=page_of(EVALUATION_ID),
        answers={200: Success("one page", Evaluations, {})},
        errors=(errors.InvalidRequest, errors.StorageUnavailable),
    ),
    Operation(
        path="/v1/evaluations/schema",
        method="get",
        summary="The JSON Schema of a suite",
        answers={200: Success("the schema", SuiteSchema, {})},
    ),
    Operation(
        path="/v1/evaluations/cache",
        method="get",
        summary="How many answers at temperature 0 are known",
        answers={200: Success("how many", CacheAnswer, {})},
        errors=(errors.StorageUnavailable,),
    ),
    Operation(
        path="/v1/evaluations/cache",
        method="delete",
        summary="Forget the known answers",
        answers={200: Success("they are forgotten", ClearedCache, {})},
        errors=(errors.StorageUnavailable,),
    ),
    Operation(
        path="/v1/evaluations/{evaluation_id}",
        method="get",
        summary="How far an evaluation is, with its scores so far",
        parameters=(EVALUATION_ID,),
        answers={200: Success("the evaluation", EvaluationAnswer, {})},
        errors=_EVALUATION_BY_ID,
    ),
    Operation(
        path="/v1/evaluations/{evaluation_id}/cancel",
        method="post",
        summary="End an evaluation; what has been answered stays and is reported",
        parameters=(EVALUATION_ID,),
        answers={200: Success("the evaluation", EvaluationAnswer, {})},
        errors=_EVALUATION_BY_ID,
    ),
    Operation(
        path="/v1/evaluations/{evaluation_id}/retry",
        method="post",
        summary="Ask again what failed of an evaluation that is over",
        parameters=(EVALUATION_ID,),
        answers={200: Success("the evaluation", EvaluationAnswer, {})},
        errors=(errors.InvalidRequest, *_EVALUATION_BY_ID),
    ),
    Operation(
        path="/v1/evaluations/{evaluation_id}/report",
        method="get",
        summary="The results of an evaluation's last round",
        parameters=(EVALUATION_ID, FORMAT, *CONDITIONS),
        answers={
            200: Success("all of it", ReportPage, REPORT, CONTENT_TYPES["html"], _OTHER_REPORTS),
            206: Success(
                "the range",
                ReportPage,
                REPORT,
                CONTENT_TYPES["html"],
                _OTHER_REPORTS,
                partial=True,
            ),
            304: Success("as before", None, {}),
        },
        errors=(errors.InvalidRequest, *_EVALUATION_BY_ID),
        refusals={412: {}, 416: SIZE},
    ),
)
