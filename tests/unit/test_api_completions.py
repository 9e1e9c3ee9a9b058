"""POST /v1/chat/completions, over fakes."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from api.completion_contract import Completion
from api.contract import ErrorAnswer, Record
from api.hangup import HangupMonitor
from api.openapi import document
from chat import errors
from chat.errors import ChatError, error_classes
from chat.formats.completion_body import CompletionBody
from chat.jobs import JobState, NewJob
from chat.settings import ChatdConfig
from chat.types import JSON, Billed, Lane
from tests.fakes import Gateway, gateway, response_of

PATH = "/v1/chat/completions"
BODY: JSON = {"model": "qwen3:8b", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def gate() -> Gateway:
    """A gateway whose jobs are answered at once."""
    made = gateway()
    made.store.respond = response_of
    return made


def _error(response: Any) -> JSON:
    """The error of a response, checked against the contract."""
    ErrorAnswer.model_validate_json(response.data)
    error: JSON = response.json["error"]
    return error


def test_an_answer_is_a_completion_of_the_job(gate: Gateway) -> None:
    """200, with the headers of every chat; the id is the job's with OpenAI's prefix."""
    before = int(time.time())
    response = gate.client.post(PATH, json=BODY)
    job = gate.store.newest().new

    assert response.status_code == 200
    answer = Completion.model_validate_json(response.data)
    assert answer.id == f"chatcmpl-{job.id.removeprefix('job_')}"
    assert before <= answer.created <= int(time.time())
    assert (answer.model, answer.choices[0].message.content) == ("qwen3:8b", "hello")
    assert answer.usage is not None
    assert answer.usage.total_tokens == 4
    assert (answer.chatd.job_id, answer.chatd.provider) == (job.id, "ollama")
    assert response.headers["X-Chatd-Job-Id"] == job.id
    assert response.headers["Server-Timing"].startswith("queue;dur=50, upstream;dur=200, ")
    assert "X-Chatd-Ignored" not in response.headers


def test_the_job_is_what_the_caller_asked_for(gate: Gateway) -> None:
    """Interactive, with the default deadline, answered to this process, needing a worker."""
    gate.client.post(PATH, json={**BODY, "max_completion_tokens": 7, "metadata": {"run": "r1"}})
    job = gate.store.newest().new

    assert (job.provider, job.upstream_model, job.request.max_tokens) == ("ollama", "qwen3:8b", 7)
    assert (job.lane, job.timeout_ms) == (Lane.INTERACTIVE, 180_000)
    assert (job.reply_to, job.waits) == ("fake:reply", True)
    assert (job.idempotency_key, job.metadata) == (None, {"run": "r1"})


def test_chatds_own_fields_are_taken(gate: Gateway) -> None:
    """OpenAI's client sends them by extra_body."""
    gate.client.post(PATH, json={**BODY, "lane": "batch", "timeout_s": 5, "think": True})
    job = gate.store.newest().new

    assert (job.lane, job.timeout_ms, job.request.think) == (Lane.BATCH, 5000, True)


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        pytest.param({"user": "u1", "prompt_cache_key": "p"}, "user, prompt_cache_key", id="by us"),
        pytest.param({"model": "kimi/k3", "temperature": 0}, "temperature", id="by the provider"),
        pytest.param(
            {"model": "kimi/k3", "temperature": 0, "user": "u1"}, "user, temperature", id="by both"
        ),
    ],
)
def test_what_is_not_passed_on_is_named(gate: Gateway, fields: JSON, ignored: str) -> None:
    """In a header, whether chatd or the provider has no use for it."""
    response = gate.client.post(PATH, json={**BODY, **fields})

    assert response.status_code == 200
    assert response.headers["X-Chatd-Ignored"] == ignored


@pytest.mark.parametrize(
    ("data", "status", "code", "param"),
    [
        pytest.param(b"", 400, "invalid_request", None, id="empty body"),
        pytest.param(b"{", 400, "invalid_request", None, id="broken JSON"),
        pytest.param(
            json.dumps({**BODY, "stream_options": {}}).encode(),
            400,
            "invalid_request",
            "stream_options",
            id="stream options",
        ),
        pytest.param(
            json.dumps({**BODY, "model": "openrouter/a/b"}).encode(),
            404,
            "provider_not_registered",
            "model",
            id="no such provider",
        ),
        pytest.param(
            json.dumps({**BODY, "model": "ollama/"}).encode(),
            400,
            "invalid_request",
            "model",
            id="no model",
        ),
    ],
)
def test_a_request_that_cannot_be_done_reaches_nothing(
    gate: Gateway, data: bytes, status: int, code: str, param: str | None
) -> None:
    """OpenAI's shape of an error, and a client that would try again is told not to."""
    response = gate.client.post(PATH, data=data)
    error = _error(response)

    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == "invalid_request_error"
    assert response.headers["X-Should-Retry"] == "false"
    assert gate.store.asked == []


def _refused_by(name: str, status: int) -> ChatError:
    error: ChatError = getattr(errors, name)("no", provider="ollama", upstream_status=status)
    return error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param(_refused_by("UpstreamRejected", 422), 422, id="rejected"),
        pytest.param(_refused_by("UpstreamAuth", 401), 403, id="auth"),
        pytest.param(_refused_by("UpstreamNotFound", 404), 404, id="not found"),
        pytest.param(_refused_by("ContentFiltered", 403), 400, id="filtered"),
        pytest.param(_refused_by("QuotaExhausted", 402), 429, id="quota"),
        pytest.param(_refused_by("UpstreamUnavailable", 503), 502, id="unavailable"),
        pytest.param(_refused_by("UpstreamTimeout", 504), 504, id="timeout"),
        pytest.param(errors.OutcomeUnknown("lost"), 502, id="lost"),
        pytest.param(errors.JobCancelled("stopped"), 409, id="cancelled"),
        pytest.param(errors.InvalidRequest("no", param="tool_choice"), 400, id="by the worker"),
    ],
)
def test_a_jobs_own_error_is_answered_so_that_no_client_pays_twice(
    gate: Gateway, error: ChatError, status: int
) -> None:
    """A refusal is a 4xx, and none of these is repeated by a client on its own."""
    gate.store.respond = lambda _: error
    response = gate.client.post(PATH, json=BODY)

    assert response.status_code == status
    assert response.headers["X-Should-Retry"] == "false"
    assert _error(response)["code"] == error.code
    assert _error(response)["job_id"] == gate.store.newest().new.id


@pytest.mark.parametrize(
    ("refusal", "status", "should_retry"),
    [
        pytest.param(errors.QueueFull("full", retry_after_s=5), 429, None, id="full"),
        pytest.param(errors.NoWorker("nobody", retry_after_s=5), 503, None, id="no worker"),
        pytest.param(errors.QueueUnavailable("gone"), 503, None, id="no Redis"),
        pytest.param(
            errors.QueueUnavailable("gone", job_id="job_1"), 503, "false", id="no Redis any more"
        ),
        pytest.param(
            errors.UpstreamUnavailable("closed", billed=Billed.NO), 502, None, id="closed budget"
        ),
        pytest.param(errors.UpstreamUnavailable("cut"), 502, "false", id="billed, maybe"),
        pytest.param(ChatError("a bug"), 500, "false", id="internal"),
    ],
)
def test_a_client_may_repeat_what_cannot_be_billed_twice(
    gate: Gateway, refusal: ChatError, status: int, should_retry: str | None
) -> None:
    """Without the header OpenAI's clients repeat 429 and 5xx."""
    gate.store.refusal = refusal
    response = gate.client.post(PATH, json=BODY)

    assert response.status_code == status
    assert response.headers.get("X-Should-Retry") == should_retry


def test_a_bug_is_500_in_the_same_shape(gate: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """And in the log."""

    def bug(_: NewJob) -> JSON:
        raise ZeroDivisionError("secret detail")

    gate.store.respond = bug
    response = gate.client.post(PATH, json=BODY)

    assert (response.status_code, _error(response)["code"]) == (500, "internal_error")
    assert response.headers["X-Should-Retry"] == "false"
    assert "secret detail" not in response.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        pytest.param("GET", PATH, 405, "method_not_allowed", id="wrong method"),
        pytest.param("POST", f"{PATH}/x", 404, "not_found", id="no such path"),
        pytest.param("GET", f"{PATH}/chatcmpl-1/messages", 404, "not_found", id="stored ones"),
        pytest.param("POST", f"{PATH}/", 404, "not_found", id="slash at the end"),
    ],
)
def test_what_flask_refuses_has_the_same_shape(
    gate: Gateway, method: str, path: str, status: int, code: str
) -> None:
    """Never an HTML page."""
    response = gate.client.open(path, method=method)

    assert (response.status_code, _error(response)["code"]) == (status, code)
    assert response.headers["X-Should-Retry"] == "false"


def test_a_body_above_the_limit_is_413() -> None:
    """In the same shape as everything else."""
    response = gateway(ChatdConfig(body_limit=20)).client.post(PATH, json=BODY)

    assert (response.status_code, _error(response)["code"]) == (413, "too_large")


def test_prefer_lets_the_job_go_on() -> None:
    """202 with chatd's record, as for every chat; what is ignored is named as well."""
    gate = gateway()
    response = gate.client.post(
        PATH, json={**BODY, "user": "u1"}, headers={"Prefer": "respond-async"}
    )
    job = gate.store.newest().new

    assert (response.status_code, response.headers["Location"]) == (202, f"/v1/jobs/{job.id}")
    assert response.headers["X-Chatd-Ignored"] == "user"
    assert Record.model_validate_json(response.data).state is JobState.QUEUED


def test_the_same_key_and_body_is_the_same_completion(gate: Gateway) -> None:
    """To the byte; the key belongs to the path, and another body is another call."""
    headers = {"Idempotency-Key": "k1"}
    first = gate.client.post(PATH, json=BODY, headers=headers)
    again = gate.client.post(PATH, json={**BODY, "user": "u1"}, headers=headers)
    other = gate.client.post(PATH, json={**BODY, "seed": 1}, headers=headers)

    assert (again.status_code, again.data) == (200, first.data)
    assert (other.status_code, _error(other)["code"]) == (422, "idempotency_mismatch")
    assert set(gate.store.keys) == {f"POST {PATH} k1"}


def test_hanging_up_cancels_the_job() -> None:
    """As for POST /v1/chat: OpenAI's client does so when its own time-out passes."""
    gate = gateway()
    ours, theirs = socket.socketpair()

    def hang_up(_: str) -> None:
        if theirs.fileno() >= 0:
            theirs.close()
            # Two looks at the closed connection, as the monitor's thread would have them.
            monitor: HangupMonitor = (
                gate.client.application.extensions["chatd"].connections().hangups
            )
            monitor.sweep()
            monitor.sweep()

    gate.replies.meanwhile = hang_up
    with ours:
        response = gate.client.post(PATH, json=BODY, environ_overrides={"gunicorn.socket": ours})

    assert (response.status_code, _error(response)["code"]) == (409, "job_cancelled")
    assert gate.store.newest().state is JobState.CANCELLED


def test_the_document_tells_the_statuses_of_this_format() -> None:
    """Every error there is, each under the status it has here."""
    paths = document("1")["paths"]
    responses: JSON = paths[PATH]["post"]["responses"]
    codes = {
        code: int(status)
        for status, response in responses.items()
        for code in response["description"].split(", ")
    }

    assert {cls.code for cls in error_classes()} | {"internal_error"} <= set(codes)
    assert (codes["upstream_auth"], codes["upstream_not_found"]) == (403, 404)
    assert (codes["upstream_rejected"], codes["content_filtered"]) == (400, 400)
    assert "upstream_auth" in paths["/v1/chat"]["post"]["responses"]["502"]["description"]


def test_the_document_has_the_body_that_validates() -> None:
    """With the names that callers write."""
    schemas = document("1")["components"]["schemas"]

    assert set(schemas["CompletionBody"]["properties"]) == set(CompletionBody.model_fields)
    assert "schema" in schemas["JsonSchemaBody"]["properties"]
