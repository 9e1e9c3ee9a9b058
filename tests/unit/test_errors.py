"""Errors: each class has a status, a body, and crosses the queue whole."""

from __future__ import annotations

import pytest

from api.errors import error_response
from chat import errors
from chat.errors import ChatError, error_classes, error_from_wire
from chat.formats.errors import STATUS, error_body
from chat.types import Billed

_CLASSES = [pytest.param(cls, id=cls.__name__) for cls in error_classes()]


@pytest.mark.parametrize("cls", _CLASSES)
def test_every_error_has_a_status_of_its_own(cls: type[ChatError]) -> None:
    """Nothing falls back to its base class unseen."""
    assert cls in STATUS
    assert 400 <= STATUS[cls] <= 504


def test_every_code_belongs_to_one_class() -> None:
    """A code rebuilds exactly one class."""
    codes = [cls.code for cls in error_classes()]

    assert len(codes) == len(set(codes))


@pytest.mark.parametrize(
    ("cls", "status", "code"),
    [
        (errors.InvalidRequest, 400, "invalid_request"),
        (errors.ProviderNotRegistered, 404, "provider_not_registered"),
        (errors.JobNotFound, 404, "job_not_found"),
        (errors.JobCancelled, 409, "job_cancelled"),
        (errors.ResultExpired, 410, "result_expired"),
        (errors.TooLarge, 413, "too_large"),
        (errors.IdempotencyMismatch, 422, "idempotency_mismatch"),
        (errors.QueueFull, 429, "queue_full"),
        (errors.UpstreamRateLimited, 429, "rate_limited"),
        (errors.QuotaExhausted, 429, "quota_exhausted"),
        (errors.UpstreamRejected, 502, "upstream_rejected"),
        (errors.UpstreamAuth, 502, "upstream_auth"),
        (errors.UpstreamNotFound, 502, "upstream_not_found"),
        (errors.UpstreamUnavailable, 502, "upstream_unavailable"),
        (errors.UpstreamProtocolError, 502, "upstream_protocol"),
        (errors.ContentFiltered, 502, "content_filtered"),
        (errors.OutcomeUnknown, 502, "outcome_unknown"),
        (errors.QueueUnavailable, 503, "redis_unavailable"),
        (errors.NoWorker, 503, "no_worker"),
        (errors.Draining, 503, "draining"),
        (errors.DeadlineExceeded, 504, "deadline_exceeded"),
        (errors.UpstreamTimeout, 504, "upstream_timeout"),
        (errors.ChatError, 500, "internal_error"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_status_and_code_are_those_of_the_contract(
    cls: type[ChatError], status: int, code: str
) -> None:
    """The table that callers program against."""
    assert (STATUS[cls], cls.code) == (status, code)


@pytest.mark.parametrize("cls", _CLASSES)
def test_an_error_crosses_the_queue_whole(cls: type[ChatError]) -> None:
    """Class, message and extras come back from the wire form."""
    error = cls(
        "what happened",
        param="model",
        job_id="job_1",
        provider="kimi",
        upstream_model="k3",
        upstream_status=418,
        retry_after_s=1.5,
        resets_at="2026-11-23T00:00:00Z",
        latency_ms=7,
    )
    rebuilt = error_from_wire(error.to_wire())

    assert type(rebuilt) is cls
    assert rebuilt.to_wire() == error.to_wire()


@pytest.mark.parametrize("cls", _CLASSES)
@pytest.mark.parametrize("billed", Billed)
@pytest.mark.parametrize("retryable", [True, False])
def test_what_is_known_of_its_bill_crosses_the_queue(
    cls: type[ChatError],
    billed: Billed,
    retryable: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """A caller who is told that it may ask again must not pay twice for that."""
    rebuilt = error_from_wire(cls("m", billed=billed, retryable=retryable).to_wire())

    assert (rebuilt.billed, rebuilt.retryable) == (billed, retryable)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        pytest.param(errors.InvalidRequest("m"), "invalid_request_error", id="400"),
        pytest.param(errors.JobCancelled("m"), "invalid_request_error", id="409"),
        pytest.param(errors.UpstreamRateLimited("m"), "rate_limit_error", id="429 upstream"),
        pytest.param(errors.QueueFull("m"), "rate_limit_error", id="429"),
        pytest.param(errors.UpstreamAuth("m"), "upstream_error", id="502"),
        pytest.param(errors.UpstreamTimeout("m"), "upstream_error", id="504 upstream"),
        pytest.param(errors.DeadlineExceeded("m"), "server_error", id="504"),
        pytest.param(errors.NoWorker("m"), "server_error", id="503"),
        pytest.param(ChatError("m"), "server_error", id="500"),
    ],
)
def test_the_type_says_whose_fault_it_is(error: ChatError, kind: str) -> None:
    """The coarse kind that OpenAI's clients know."""
    assert error_body(error)["error"]["type"] == kind


def test_the_body_has_what_is_known_and_param_always() -> None:
    """Absent extras are left out; ``param`` is null, as in OpenAI's errors."""
    error = errors.UpstreamRejected("no", provider="kimi", upstream_status=400, billed=Billed.NO)

    assert error_body(error) == {
        "error": {
            "code": "upstream_rejected",
            "message": "no",
            "type": "upstream_error",
            "param": None,
            "provider": "kimi",
            "upstream_status": 400,
        }
    }


@pytest.mark.parametrize(
    ("error", "header"),
    [
        pytest.param(errors.QueueFull("m", retry_after_s=1.2), "2", id="rounded up"),
        pytest.param(errors.QueueFull("m", retry_after_s=0.0), "1", id="at least one"),
        pytest.param(errors.QueueUnavailable("m"), "5", id="503 without a time"),
        pytest.param(errors.UpstreamRateLimited("m"), "10", id="429 without a time"),
        pytest.param(errors.QuotaExhausted("m"), "60", id="quota without a time"),
        pytest.param(errors.UpstreamUnavailable("m", retry_after_s=3), "3", id="502 with a time"),
        pytest.param(errors.UpstreamUnavailable("m"), None, id="502 without a time"),
        pytest.param(errors.InvalidRequest("m"), None, id="400"),
    ],
)
def test_retry_after_is_there_when_coming_back_makes_sense(
    error: ChatError, header: str | None
) -> None:
    """Whole seconds, at least one; always with 429 and 503."""
    assert error_response(error).headers.get("Retry-After") == header
