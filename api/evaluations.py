"""``/v1/evaluations``: a dataset asked of several models and scored. The keeper does the work."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from typing import BinaryIO

from flask import Blueprint, Response, request
from pydantic import Field

from api.access import caller, only_admin
from api.admission import key_of_call, read_body
from api.downloads import attachment, download
from api.frontend import FrontEnd, front_end
from api.output import json_response
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
from api.threads import in_thread
from chat.batches.batch import Status
from chat.disk import disk_errors
from chat.errors import InvalidRequest, ProviderNotRegistered
from chat.evaluations.evaluation import Evaluation
from chat.evaluations.folder import FORMATS, EvaluationStore
from chat.evaluations.suite import Suite, read_suite, suite_schema
from chat.formats.chat import Body
from chat.formats.strict_json import parse_object, shown
from chat.formats.validation import inside, validated
from chat.jobs import new_id

__all__ = ["CONTENT_TYPES", "EvaluationBody", "blueprint"]

blueprint = Blueprint("evaluations", __name__)

#: The Content-Type of a report in each format.
CONTENT_TYPES = {
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "csv": "text/csv; charset=utf-8",
    "junit": "application/xml",
}
#: What a browser may do with the page: run it, and nothing with the network or with chatd. That it
#: is only the page's own script and style is said in the page, whose version knows their hashes; a
#: browser holds a page to both.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; sandbox allow-scripts"
)


class EvaluationBody(Body):
    """The body of ``POST /v1/evaluations``."""

    suite: Suite = Field(
        description="an object: what is asked, of whom, and how the answers are scored"
    )
    input_file_id: str = Field(description="the id of a file of purpose batch: the dataset")
    metadata: Metadata | None = Field(None, description=METADATA)


@blueprint.post("/v1/evaluations")
def create() -> Response:
    """Make an evaluation; the keeper checks its dataset before anything of it is asked."""
    front = front_end()
    key = key_of_call(f"POST {front.evaluations.path}")
    # The suite may be long, and its schemas and regular expressions take a while.
    body = in_thread(_read, read_body())
    seconds = window_s(body.suite.completion_window, "suite.completion_window")
    once = Once(front.evaluations, key, body)
    if (earlier := once.earlier()) is not None:
        return run_response(front.evaluations, earlier)
    _check_models(front, body.suite)
    evaluation = Evaluation(
        id=new_id("eval_"),
        input_file_id=input_file(front, body.input_file_id, "the dataset").id,
        suite=body.suite,
        window_s=seconds,
        created_ms=int(time.time() * 1000),
        metadata=body.metadata,
        owner=caller().name,
    )
    return run_response(front.evaluations, once.make(evaluation, front.files))


@blueprint.get("/v1/evaluations")
def show_all() -> Response:
    """Evaluations, newest first."""
    return listed(front_end().evaluations, "an evaluation id", "evaluations")


@blueprint.get("/v1/evaluations/schema")
def schema() -> Response:
    """The JSON Schema of a suite."""
    return json_response(suite_schema())


@blueprint.get("/v1/evaluations/cache")
def show_cache() -> Response:
    """How many answers are known."""
    with disk_errors("the cache of answers cannot be read"):
        kept = in_thread(front_end().evaluations.cache.kept)
    return json_response(asdict(kept))


@blueprint.delete("/v1/evaluations/cache")
def clear_cache() -> Response:
    """Forget every known answer, whosever it is."""
    only_admin()
    with disk_errors("the cache of answers cannot be cleared"):
        deleted = in_thread(front_end().evaluations.cache.clear)
    return json_response({"deleted": deleted})


@blueprint.get("/v1/evaluations/<evaluation_id>")
def show(evaluation_id: str) -> Response:
    """How far an evaluation is, and its scores so far."""
    return run_response(front_end().evaluations, evaluation_id)


@blueprint.post("/v1/evaluations/<evaluation_id>/cancel")
def cancel(evaluation_id: str) -> Response:
    """Ask for the end of an evaluation; what has been answered by then stays."""
    return cancelled(front_end().evaluations, evaluation_id)


@blueprint.post("/v1/evaluations/<evaluation_id>/retry")
def retry(evaluation_id: str) -> Response:
    """Have what failed of an evaluation that is over asked again."""
    store = front_end().evaluations
    with disk_errors("the evaluation cannot be retried"):
        in_thread(_retry, store, evaluation_id, caller().sees)
    return run_response(store, evaluation_id)


@blueprint.get("/v1/evaluations/<evaluation_id>/report")
def report(evaluation_id: str) -> Response:
    """What the last round has led to, in the format that is asked for."""
    store = front_end().evaluations
    kind = _format()
    with disk_errors("the report cannot be read"):
        content, status = in_thread(_report, store, evaluation_id, kind, caller().sees)
    response = download(
        content, status.st_size, f"{status.st_mtime_ns:x}-{status.st_size:x}", CONTENT_TYPES[kind]
    )
    # What models have answered is in it.
    response.headers["X-Content-Type-Options"] = "nosniff"
    if kind == "html":
        response.headers["Content-Security-Policy"] = _POLICY
    elif kind != "json":
        response.headers["Content-Disposition"] = attachment(f"{evaluation_id}-{FORMATS[kind]}")
    return response


def _read(raw: bytes) -> EvaluationBody:
    """The body of the call. A fault of its suite is told by the rules of its own kind."""
    value = parse_object(raw)
    suite = value.get("suite")
    if isinstance(suite, dict):
        try:
            read_suite(suite)
        except InvalidRequest as error:
            raise inside("suite", error) from error
    return validated(EvaluationBody, value)


def _check_models(front: FrontEnd, suite: Suite) -> None:
    """Refuse models that lead nowhere, before anything is asked of the others."""
    named = [
        (f"suite.models[{place}]" + ("" if isinstance(model, str) else ".model"), candidate.model)
        for place, (model, candidate) in enumerate(zip(suite.models, suite.candidates, strict=True))
    ]
    named += [(f"suite.scorers[{place}].model", judge.model) for place, judge in suite.judges]
    for where, model in named:
        try:
            front.names.route(model)
        except (InvalidRequest, ProviderNotRegistered) as error:
            message = f"{where}: {error.message}"
            raise type(error)(message, param=where, provider=error.provider) from error


def _retry(store: EvaluationStore, evaluation_id: str, owner: str | None) -> None:
    _, progress = store.get(evaluation_id, owner)
    if store.retry_asked(evaluation_id):
        return  # It was asked for before, and has not begun.
    if not progress.status.terminal:
        raise InvalidRequest(
            f"evaluation {evaluation_id} is {progress.status.value}; it can be retried when it is "
            "over, and asks everything until then"
        )
    if not progress.errored:
        raise InvalidRequest(_nothing_to_retry(evaluation_id, progress.samples))
    store.retry(evaluation_id)


def _nothing_to_retry(evaluation_id: str, samples: int) -> str:
    if not samples:
        return (
            f"evaluation {evaluation_id} ended before anything was asked, so that there is nothing "
            "to ask again; make another one"
        )
    return (
        f"evaluation {evaluation_id} has an answer to everything it asked, and every verdict; "
        "there is nothing to ask again"
    )


def _format() -> str:
    text = request.args.get("format", "html")
    if text not in FORMATS:
        known = ", ".join(FORMATS)
        raise InvalidRequest(
            f"format is {shown(text)}, but must be one of {known}; correct it or leave it out",
            param="format",
        )
    return text


def _report(
    store: EvaluationStore, evaluation_id: str, kind: str, owner: str | None
) -> tuple[BinaryIO, os.stat_result]:
    """The file of a report, which can be read to its end even if the next round replaces it."""
    _, progress = store.get(evaluation_id, owner)
    try:
        content = (store.folder(evaluation_id) / FORMATS[kind]).open("rb")
    except FileNotFoundError:
        raise InvalidRequest(_no_report(evaluation_id, progress.status)) from None
    return content, os.fstat(content.fileno())


def _no_report(evaluation_id: str, status: Status) -> str:
    told = f"evaluation {evaluation_id} is {status.value} and has no report"
    if status.terminal:
        return f"{told}, since nothing was asked; its errors say what is wrong with the dataset"
    return f"{told} yet; there is one when it is over"
