"""Answers and errors as OpenAI's clients know them."""

from __future__ import annotations

import pytest

from api.completion_contract import Completion
from chat import errors
from chat.errors import ChatError, error_classes
from chat.formats.completion_answers import COMPLETION_STATUS, completion, completion_error
from chat.formats.errors import STATUS
from chat.types import JSON

JOB_ID = "job_01m8227xyar66hq8dy5xzxkdnc"
CALL: JSON = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ANSWER: JSON = {
    "model": "local_fast",
    "provider": "ollama",
    "upstream_model": "smollm2:135m",
    "content": "hello",
    "reasoning": None,
    "tool_calls": [],
    "finish_reason": "stop",
    "input_tokens": 35,
    "output_tokens": 24,
    "latency_ms": 644,
    "queue_ms": 3,
    "attempt_count": 1,
}


def _completion(**fields: object) -> JSON:
    """The completion of the answer with ``fields`` put over it, checked against the contract."""
    made = completion(JOB_ID, 1_795_000_000, {**ANSWER, **fields})
    Completion.model_validate(made)
    return made


def test_an_answer_is_a_chat_completion() -> None:
    """OpenAI's fields, and ours apart from them."""
    assert _completion() == {
        "id": "chatcmpl-01m8227xyar66hq8dy5xzxkdnc",
        "object": "chat.completion",
        "created": 1_795_000_000,
        "model": "local_fast",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hello", "refusal": None},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 35, "completion_tokens": 24, "total_tokens": 59},
        "chatd": {
            "job_id": JOB_ID,
            "provider": "ollama",
            "upstream_model": "smollm2:135m",
            "latency_ms": 644,
            "queue_ms": 3,
            "attempt_count": 1,
        },
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({"content": ""}, {"content": ""}, id="empty, which finish_reason explains"),
        pytest.param(
            {"content": "", "tool_calls": [CALL], "finish_reason": "tool_calls"},
            {"content": None, "tool_calls": [CALL]},
            id="tool calls alone",
        ),
        pytest.param(
            {"content": "Let me see.", "tool_calls": [CALL], "finish_reason": "tool_calls"},
            {"content": "Let me see.", "tool_calls": [CALL]},
            id="tool calls beside a text",
        ),
        pytest.param(
            {"reasoning": "so"}, {"content": "hello", "reasoning_content": "so"}, id="reasoning"
        ),
    ],
)
def test_a_message_has_what_the_model_gave(fields: JSON, message: JSON) -> None:
    """And no empty list or null for what it did not."""
    told = _completion(**fields)["choices"][0]["message"]

    assert told == {"role": "assistant", "refusal": None, **message}


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])
def test_the_reason_to_stop_is_openais_word(reason: str) -> None:
    """Ours are the same."""
    assert _completion(finish_reason=reason)["choices"][0]["finish_reason"] == reason


@pytest.mark.parametrize(
    "fields",
    [
        {"input_tokens": None},
        {"output_tokens": None},
        {"input_tokens": None, "output_tokens": None},
    ],
    ids=["no input", "no output", "neither"],
)
def test_usage_is_null_rather_than_made_up(fields: JSON) -> None:
    """Clients add these numbers up."""
    assert _completion(**fields)["usage"] is None


def test_a_price_that_is_known_is_told() -> None:
    """Zero is a price."""
    assert "cost_usd" not in _completion()["chatd"]
    assert _completion(cost_usd=0.0)["chatd"]["cost_usd"] == 0.0


def test_every_error_has_a_status() -> None:
    """Those of the other format, but for the refusals that no retry mends."""
    changed = {cls for cls, status in COMPLETION_STATUS.items() if status != STATUS[cls]}

    assert set(COMPLETION_STATUS) == set(STATUS) >= set(error_classes())
    assert changed == {
        errors.UpstreamRejected,
        errors.UpstreamAuth,
        errors.UpstreamNotFound,
        errors.ContentFiltered,
    }


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param(errors.UpstreamRejected("m", upstream_status=400), 400, id="rejected, 400"),
        pytest.param(errors.UpstreamRejected("m", upstream_status=422), 422, id="rejected, 422"),
        pytest.param(errors.UpstreamRejected("m", upstream_status=413), 413, id="rejected, 413"),
        pytest.param(errors.UpstreamRejected("m"), 400, id="rejected, no status"),
        pytest.param(errors.UpstreamRejected("m", upstream_status=500), 400, id="rejected, 500"),
        pytest.param(errors.UpstreamRejected("m", upstream_status=409), 400, id="no conflict"),
        pytest.param(errors.UpstreamRejected("m", upstream_status=429), 400, id="no rate limit"),
        pytest.param(errors.UpstreamAuth("m", upstream_status=401), 403, id="not the caller's key"),
        pytest.param(errors.UpstreamAuth("m", upstream_status=403), 403, id="not permitted"),
        pytest.param(errors.UpstreamNotFound("m", upstream_status=404), 404, id="no model"),
        pytest.param(errors.UpstreamNotFound("m", upstream_status=401), 404, id="no model, as 401"),
        pytest.param(errors.ContentFiltered("m", upstream_status=403), 400, id="filtered"),
        pytest.param(errors.InvalidRequest("m"), 400, id="invalid"),
        pytest.param(errors.QuotaExhausted("m", upstream_status=402), 429, id="quota"),
        pytest.param(errors.UpstreamUnavailable("m", upstream_status=500), 502, id="unavailable"),
        pytest.param(errors.OutcomeUnknown("m"), 502, id="lost"),
        pytest.param(errors.NoWorker("m"), 503, id="no worker"),
        pytest.param(errors.DeadlineExceeded("m"), 504, id="too late"),
        pytest.param(ChatError("m"), 500, id="internal"),
    ],
)
def test_a_refusal_that_no_retry_mends_is_a_4xx(error: ChatError, status: int) -> None:
    """With the provider's own status where clients take it as it is meant."""
    told, body = completion_error(error)

    assert told == status
    assert body["error"]["code"] == error.code
    assert body["error"].get("upstream_status") == error.upstream_status


def test_an_error_has_openais_fields_and_ours() -> None:
    """``param`` is null where no field is at fault."""
    error = errors.UpstreamAuth("no", provider="kimi", upstream_status=401, job_id=JOB_ID)

    assert completion_error(error)[1] == {
        "error": {
            "code": "upstream_auth",
            "message": "no",
            "type": "upstream_error",
            "param": None,
            "job_id": JOB_ID,
            "provider": "kimi",
            "upstream_status": 401,
        }
    }
