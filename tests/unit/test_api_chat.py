"""POST /v1/chat and GET /v1/chat/providers, over fakes."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from gunicorn.http.errors import InvalidChunkSize

from api.contract import Answer, ErrorAnswer, Providers
from chat import errors
from chat.errors import ChatError
from chat.jobs import JobState, NewJob
from chat.settings import ChatdConfig
from chat.types import JSON, Lane
from tests.fakes import Gateway, gateway, registered_names, response_of

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


def test_an_answer_has_the_jobs_id_and_every_field(gate: Gateway) -> None:
    """200 with the model as asked, and what became of it upstream."""
    response = gate.client.post("/v1/chat", json=BODY)

    assert response.status_code == 200
    Answer.model_validate_json(response.data)
    job = gate.store.newest().new
    assert response.json == {"id": job.id, **response_of(job)}
    assert response.headers["X-Chatd-Job-Id"] == job.id


def test_an_answer_is_compact_utf8_with_the_id_first(gate: Gateway) -> None:
    """No escapes, no spaces, keys in the order of the contract."""
    gate.store.respond = lambda job: response_of(job, content="größer")
    raw = gate.client.post("/v1/chat", json=BODY).data

    assert raw.startswith(b'{"id":"job_')
    assert '"content":"größer"'.encode() in raw


def test_half_a_surrogate_pair_in_an_answer_is_escaped(gate: Gateway) -> None:
    """A model may answer one; the answer is JSON all the same."""
    gate.store.respond = lambda job: response_of(job, content="\ud800")
    response = gate.client.post("/v1/chat", json=BODY)

    assert response.status_code == 200
    assert b'"content":"\\ud800"' in response.data


def test_server_timing_splits_the_time(gate: Gateway) -> None:
    """Queue and upstream as the worker measured them, the rest is the gateway's."""
    gate.store.respond = lambda _: None

    def end(job_id: str) -> None:
        gate.clock.advance(0.26)
        gate.store.end(job_id, response_of(gate.store.newest().new))

    gate.replies.meanwhile = end
    response = gate.client.post("/v1/chat", json=BODY)

    assert response.headers["Server-Timing"] == "queue;dur=50, upstream;dur=200, gateway;dur=10.0"


def test_the_gateways_share_of_the_time_is_never_negative(gate: Gateway) -> None:
    """Two clocks measured it, and a joined job may have run before this call began."""
    response = gate.client.post("/v1/chat", json=BODY)

    assert response.headers["Server-Timing"].endswith("gateway;dur=0.0")


def test_the_job_is_what_the_caller_asked_for(gate: Gateway) -> None:
    """Interactive, with the default deadline, answered to this process, needing a worker."""
    gate.client.post("/v1/chat", json={**BODY, "metadata": {"user": "u1"}})
    job = gate.store.newest().new

    assert (job.provider, job.upstream_model) == ("ollama", "qwen3:8b")
    assert (job.lane, job.timeout_ms) == (Lane.INTERACTIVE, 180_000)
    assert (job.reply_to, job.waits) == ("fake:reply", True)
    assert (job.idempotency_key, job.metadata) == (None, {"user": "u1"})


@pytest.mark.parametrize(
    ("fields", "timeout_ms"),
    [
        pytest.param({"timeout_s": 0.0015}, 2, id="rounded up to a millisecond"),
        pytest.param({"timeout_s": 0}, 180_000, id="zero is the default"),
        pytest.param({"lane": "batch"}, 86_400_000, id="a batch job has a day"),
        pytest.param({"lane": "batch", "timeout_s": 5}, 5_000, id="a batch job with a timeout"),
    ],
)
def test_the_deadline_is_the_callers_or_that_of_the_lane(
    gate: Gateway, fields: JSON, timeout_ms: int
) -> None:
    """``timeout_s`` for interactive jobs, ``job_timeout_s`` for batch jobs."""
    gate.client.post("/v1/chat", json={**BODY, **fields})

    assert gate.store.newest().new.timeout_ms == timeout_ms


def test_a_prefix_chooses_the_provider(gate: Gateway) -> None:
    """The answer still has the model as asked."""
    response = gate.client.post("/v1/chat", json={**BODY, "model": "kimi/k3"})

    assert response.json is not None
    assert (response.json["model"], response.json["upstream_model"]) == ("kimi/k3", "k3")
    assert response.json["provider"] == "kimi"


def test_a_tier_is_used_like_a_model() -> None:
    """Names in [models] stand for model ids."""
    made = gateway(names=registered_names("ollama", models={"local_fast": "gemma4:e4b"}))
    made.store.respond = response_of
    response = made.client.post("/v1/chat", json={**BODY, "model": "local_fast"})

    assert response.json is not None
    assert response.json["upstream_model"] == "gemma4:e4b"


def test_a_provider_that_is_not_registered_is_404_with_the_way_to_register_it(
    gate: Gateway,
) -> None:
    """No silent fall-through to the default, and nothing is queued."""
    response = gate.client.post("/v1/chat", json={**BODY, "model": "openrouter/a/b"})
    error = _error(response)

    assert (response.status_code, error["code"]) == (404, "provider_not_registered")
    assert (error["param"], error["provider"]) == ("model", "openrouter")
    assert "set OPENROUTER_KEY" in error["message"]
    assert gate.store.asked == []


@pytest.mark.parametrize(
    ("data", "param"),
    [
        pytest.param(b"", None, id="empty body"),
        pytest.param(b"{", None, id="broken JSON"),
        pytest.param(json.dumps({**BODY, "modle": "x"}).encode(), "modle", id="unknown field"),
        pytest.param(json.dumps({**BODY, "model": "ollama/"}).encode(), "model", id="empty id"),
        pytest.param(json.dumps({**BODY, "stream": 1}).encode(), "stream", id="stream"),
    ],
)
def test_a_request_that_breaks_a_rule_is_400_and_reaches_nothing(
    gate: Gateway, data: bytes, param: str | None
) -> None:
    """Redis is not asked."""
    response = gate.client.post("/v1/chat", data=data)
    error = _error(response)

    assert (response.status_code, error["code"], error["param"]) == (400, "invalid_request", param)
    assert gate.store.asked == []


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_the_content_type_does_not_matter(gate: Gateway, content_type: str | None) -> None:
    """`curl -d` sends a form's type; the body is JSON all the same."""
    response = gate.client.post("/v1/chat", data=json.dumps(BODY), content_type=content_type)

    assert response.status_code == 200


def test_a_compressed_body_is_400(gate: Gateway) -> None:
    """Rather than a message about bytes that are not UTF-8."""
    response = gate.client.post("/v1/chat", json=BODY, headers={"Content-Encoding": "gzip"})

    assert (response.status_code, _error(response)["param"]) == (400, "Content-Encoding")


def test_a_body_above_the_limit_is_413() -> None:
    """The limit is in the message; the limit itself is still accepted."""
    data = json.dumps(BODY).encode()
    small, exact = gateway(ChatdConfig(body_limit=50)), gateway(ChatdConfig(body_limit=len(data)))
    exact.store.respond = response_of
    response = small.client.post("/v1/chat", data=data)

    assert (response.status_code, _error(response)["code"]) == (413, "too_large")
    assert "50 bytes" in _error(response)["message"]
    assert exact.client.post("/v1/chat", data=data).status_code == 200


def _chunked(gate: Gateway, data: bytes) -> Any:
    """Call with a body of no announced length, as gunicorn hands over a chunked one."""
    return gate.client.post(
        "/v1/chat",
        input_stream=io.BytesIO(data),
        environ_overrides={"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"},
    )


def test_a_chunked_body_above_the_limit_is_413_too() -> None:
    """Its length is known only once it has been read; it is not cut in silence."""
    data = json.dumps(BODY).encode()
    small, exact = (
        gateway(ChatdConfig(body_limit=len(data) - 1)),
        gateway(ChatdConfig(body_limit=len(data))),
    )
    exact.store.respond = response_of

    assert _chunked(exact, data).status_code == 200
    assert _chunked(small, data).status_code == 413
    # Cut at the limit, this one would be a valid body.
    assert _chunked(exact, data + b" ").status_code == 413


class _BrokenChunks(io.BytesIO):
    def readinto(self, _: Any) -> int:
        raise InvalidChunkSize(b"zz")


def test_malformed_chunks_are_400(gate: Gateway) -> None:
    """The server finds out while the body is read."""
    response = gate.client.post(
        "/v1/chat",
        input_stream=_BrokenChunks(),
        environ_overrides={"wsgi.input_terminated": True},
    )

    assert (response.status_code, _error(response)["code"]) == (400, "invalid_request")
    assert "chunks" in _error(response)["message"]


def test_a_body_that_breaks_off_is_400(gate: Gateway) -> None:
    """Even if what came is a body by itself."""
    data = json.dumps(BODY).encode()
    response = gate.client.post(
        "/v1/chat",
        input_stream=io.BytesIO(data),
        environ_overrides={
            "wsgi.input_terminated": True,
            "CONTENT_LENGTH": str(len(data) + 5),
        },
    )

    assert (response.status_code, _error(response)["code"]) == (400, "invalid_request")
    assert f"after {len(data)} of {len(data) + 5} bytes" in _error(response)["message"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param(errors.UpstreamRejected("no", provider="ollama"), 502, id="rejected"),
        pytest.param(errors.UpstreamTimeout("slow", upstream_status=504), 504, id="timeout"),
        pytest.param(errors.QuotaExhausted("spent", retry_after_s=90), 429, id="quota"),
        pytest.param(errors.OutcomeUnknown("lost"), 502, id="lost"),
        pytest.param(errors.JobCancelled("stopped"), 409, id="cancelled"),
        pytest.param(ChatError("a bug"), 500, id="internal"),
    ],
)
def test_a_jobs_own_error_is_answered_with_its_id(
    gate: Gateway, error: ChatError, status: int
) -> None:
    """Code, message and extras as the worker recorded them."""
    gate.store.respond = lambda _: error
    response = gate.client.post("/v1/chat", json=BODY)

    assert response.status_code == status
    assert _error(response)["code"] == error.code
    assert _error(response)["message"] == error.message
    assert _error(response)["job_id"] == gate.store.newest().new.id
    assert ("Retry-After" in response.headers) == (status == 429)


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        pytest.param(errors.QueueFull("full", retry_after_s=5), 429, id="full"),
        pytest.param(errors.NoWorker("nobody", retry_after_s=5), 503, id="no worker"),
        pytest.param(errors.Draining("drained", retry_after_s=5), 503, id="drained"),
        pytest.param(errors.QueueUnavailable("gone", retry_after_s=5), 503, id="no Redis"),
    ],
)
def test_a_refusal_of_the_queue_is_answered_with_retry_after(
    gate: Gateway, refusal: ChatError, status: int
) -> None:
    """And nobody goes on waiting."""
    gate.store.refusal = refusal
    response = gate.client.post("/v1/chat", json=BODY)

    assert (response.status_code, response.headers["Retry-After"]) == (status, "5")
    assert _error(response)["code"] == refusal.code
    assert gate.replies.expected == []


def _providers(gate: Gateway) -> JSON:
    """The answer to GET /v1/chat/providers, checked against the contract."""
    response = gate.client.get("/v1/chat/providers")
    assert response.status_code == 200
    Providers.model_validate_json(response.data)
    told: JSON = json.loads(response.data)
    return told


def test_the_registered_providers_are_listed_with_what_waits() -> None:
    """Exactly those, the default named, with their lanes, budgets and calls in flight."""
    gate = gateway()
    gate.client.post("/v1/jobs", json=BODY)
    gate.client.post("/v1/jobs", json={**BODY, "model": "kimi/k3", "lane": "interactive"})
    gate.store.newest().state = JobState.CALLING
    gate.clock.advance(4)
    told = _providers(gate)
    ollama, kimi = told["providers"]

    assert list(told) == ["default", "providers", "jobs"]
    assert told["default"] == "ollama"
    assert (ollama["name"], ollama["concurrency"]) == ("ollama", 4)
    assert ollama["lanes"]["batch"] == {
        "depth": 1,
        "oldest_age_s": 4.0,
        "parked": 0,
        "starts_per_s": 0.0,
    }
    assert (kimi["name"], kimi["in_use"]) == ("kimi", {"interactive": 1, "batch": 0})
    assert (told["jobs"]["accepted"], told["jobs"]["calling"]) == (2, 1)


def test_only_registered_providers_are_asked_about() -> None:
    """The list is that of the names, not of the configuration; the default may be missing."""
    gate = gateway(names=registered_names("openrouter"))
    told = _providers(gate)

    assert told["default"] == "ollama"
    assert [provider["name"] for provider in told["providers"]] == ["openrouter"]
    assert gate.store.asked == ["overview"]


def test_every_response_has_a_request_id(gate: Gateway) -> None:
    """The caller's own if it is sane, also on an error and on a path that does not exist."""
    headers = {"X-Request-Id": "trace-1"}
    mine = [
        gate.client.post("/v1/chat", json=BODY, headers=headers),
        gate.client.post("/v1/chat", data=b"{", headers=headers),
        gate.client.get("/nowhere", headers=headers),
    ]
    new = gate.client.get("/health")

    assert [response.headers["X-Request-Id"] for response in mine] == ["trace-1"] * 3
    assert re.fullmatch(r"req_[0-9a-f]{32}", new.headers["X-Request-Id"])


def test_an_unexpected_error_is_500_without_internals(
    gate: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """The traceback is in the log, under the id that the caller gets."""

    def bug(_: NewJob) -> JSON:
        raise ZeroDivisionError("secret detail")

    gate.store.respond = bug
    response = gate.client.post("/v1/chat", json=BODY, headers={"X-Request-Id": "trace-2"})

    assert (response.status_code, _error(response)["code"]) == (500, "internal_error")
    assert "secret detail" not in response.text
    assert "trace-2" in response.text
    assert "request trace-2: POST /v1/chat failed" in caplog.text
    assert "ZeroDivisionError: secret detail" in caplog.text
