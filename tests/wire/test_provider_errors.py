"""What each provider makes of an error answer: every example error, as class and hints."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from chat.errors import (
    ContentFiltered,
    QuotaExhausted,
    UpstreamAuth,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from chat.types import Billed, Provider
from tests.upstream import Answer, ScriptedUpstream
from tests.wire.providers import (
    PROVIDERS,
    SECRETS,
    call,
    common_files,
    error_files,
    load,
    plain_request,
)


@dataclass(frozen=True)
class Expected:
    """One error: class, whether a retry may help, the bill, and the hints about time."""

    kind: type[UpstreamError]
    retryable: bool = False
    billed: Billed = Billed.NO
    retry_after_s: float | None = None
    resets_at: str | None = None


def after(expected: Expected, seconds: float, resets_at: str | None = None) -> Expected:
    """``expected`` with a hint when to come back."""
    return Expected(expected.kind, expected.retryable, expected.billed, seconds, resets_at)


REJECTED = Expected(UpstreamRejected)
AUTH = Expected(UpstreamAuth)
NOT_FOUND = Expected(UpstreamNotFound)
FILTERED = Expected(ContentFiltered)
QUOTA = Expected(QuotaExhausted, retryable=True)
SPENT = Expected(QuotaExhausted)
RATE = Expected(UpstreamRateLimited, retryable=True)
BUSY = Expected(UpstreamUnavailable, retryable=True)
FAILED = Expected(UpstreamUnavailable, retryable=True, billed=Billed.MAYBE)
TIMEOUT = Expected(UpstreamTimeout, retryable=True, billed=Billed.MAYBE)

ERRORS = {
    "kimi/error.400.empty_text.json": REJECTED,
    "kimi/error.400.high_risk.json": FILTERED,
    "kimi/error.400.message_size.json": REJECTED,
    "kimi/error.400.reasoning_missing.json": REJECTED,
    "kimi/error.400.temperature.json": REJECTED,
    "kimi/error.400.temperature_06.json": REJECTED,
    "kimi/error.400.token_limit.json": REJECTED,
    "kimi/error.400.top_p.json": REJECTED,
    "kimi/error.401.expired.json": AUTH,
    "kimi/error.401.invalid.json": AUTH,
    "kimi/error.402.membership.json": SPENT,
    "kimi/error.403.not_coding_agent.json": AUTH,
    "kimi/error.403.quota_cycle.json": QUOTA,
    "kimi/error.403.quota_weekly.json": QUOTA,
    "kimi/error.404.model.json": NOT_FOUND,
    "kimi/error.429.overloaded.json": BUSY,
    "kimi/error.429.period.json": QUOTA,
    # Its Retry-After of five seconds is known to be wrong.
    "kimi/error.429.quota_exhausted.json": SPENT,
    "kimi/error.429.too_many.json": RATE,
    "kimi/error.500.json": FAILED,
    "ollama/error.400.bad_json.json": REJECTED,
    "ollama/error.400.context_length.json": REJECTED,
    "ollama/error.400.empty_body.json": REJECTED,
    "ollama/error.400.invalid_name.json": REJECTED,
    "ollama/error.400.model_required.json": REJECTED,
    "ollama/error.400.no_chat.json": REJECTED,
    "ollama/error.400.no_thinking.json": REJECTED,
    "ollama/error.400.no_tools.json": REJECTED,
    "ollama/error.400.source_suffix.json": REJECTED,
    "ollama/error.401.cloud_signin.json": AUTH,
    "ollama/error.403.cloud_disabled.json": AUTH,
    "ollama/error.403.host.json": AUTH,
    "ollama/error.404.model.json": NOT_FOUND,
    "ollama/error.404.not_pulled.json": NOT_FOUND,
    "ollama/error.499.canceled.json": BUSY,
    "ollama/error.500.bad_format.json": REJECTED,
    "ollama/error.500.bad_option.json": REJECTED,
    "ollama/error.500.load_timeout.json": BUSY,
    "ollama/error.500.runner_stopped.json": BUSY,
    "ollama/error.502.cloud_unreachable.json": BUSY,
    "ollama/error.503.busy.json": BUSY,
    "ollama_cloud/error.400.reasoning_effort.json": REJECTED,
    "ollama_cloud/error.401.json": AUTH,
    "ollama_cloud/error.403.subscription.json": AUTH,
    "ollama_cloud/error.404.json": NOT_FOUND,
    "ollama_cloud/error.429.concurrency_slot.json": RATE,
    "ollama_cloud/error.429.session.json": QUOTA,
    "ollama_cloud/error.429.weekly.json": QUOTA,
    "ollama_cloud/error.500.ref.json": FAILED,
    "ollama_cloud/error.500.text.json": FAILED,
    "ollama_cloud/error.502.json": FAILED,
    "ollama_cloud/error.503.overloaded.json": BUSY,
    "opencode/error.400.mapped_404.json": NOT_FOUND,
    "opencode/error.400.provider.json": REJECTED,
    "opencode/error.400.reasoning_content.json": REJECTED,
    "opencode/error.401.credits.json": SPENT,
    "opencode/error.401.invalid_key.json": AUTH,
    "opencode/error.401.missing_key.json": AUTH,
    "opencode/error.401.model.json": NOT_FOUND,
    "opencode/error.401.model_disabled.json": NOT_FOUND,
    "opencode/error.401.model_format.json": NOT_FOUND,
    "opencode/error.401.monthly_limit.json": SPENT,
    "opencode/error.401.no_payment_method.json": SPENT,
    "opencode/error.401.user_limit.json": SPENT,
    "opencode/error.403.bare.json": AUTH,
    "opencode/error.403.region.json": AUTH,
    "opencode/error.429.free_usage.json": after(QUOTA, 43200, "2026-09-22T02:13:20.000Z"),
    "opencode/error.429.go_usage.json": after(QUOTA, 7800, "2026-09-21T16:23:20.000Z"),
    "opencode/error.429.provider.json": BUSY,
    "opencode/error.429.rate.json": after(RATE, 60),
    "opencode/error.500.json": FAILED,
    "opencode/error.502.provider.json": FAILED,
    "opencode/error.529.provider.json": BUSY,
    "openrouter/error.400.context_length.json": REJECTED,
    "openrouter/error.400.invalid.json": REJECTED,
    "openrouter/error.400.min_tokens.json": REJECTED,
    "openrouter/error.400.model_not_found.json": NOT_FOUND,
    "openrouter/error.400.reasoning_mandatory.json": REJECTED,
    "openrouter/error.401.json": AUTH,
    "openrouter/error.401.user_not_found.json": AUTH,
    "openrouter/error.402.afford.json": SPENT,
    "openrouter/error.402.credits.json": SPENT,
    "openrouter/error.402.in_flight_budget.json": after(RATE, 8),
    "openrouter/error.403.budget.json": after(SPENT, 6_083_200, "2026-12-01T00:00:00.000Z"),
    "openrouter/error.403.guardrail.json": FILTERED,
    "openrouter/error.403.moderation.json": FILTERED,
    "openrouter/error.404.legacy.json": NOT_FOUND,
    "openrouter/error.404.no_endpoints.json": NOT_FOUND,
    "openrouter/error.408.json": TIMEOUT,
    "openrouter/error.413.json": REJECTED,
    "openrouter/error.422.json": REJECTED,
    "openrouter/error.429.capacity.json": after(RATE, 40),
    # X-RateLimit-Reset, as milliseconds since the epoch.
    "openrouter/error.429.free_per_day.json": after(QUOTA, 35200, "2026-09-22T00:00:00.000Z"),
    "openrouter/error.429.free_per_min.json": after(RATE, 60),
    "openrouter/error.429.json": after(RATE, 2),
    "openrouter/error.429.upstream.json": RATE,
    "openrouter/error.500.json": FAILED,
    "openrouter/error.502.json": FAILED,
    "openrouter/error.503.json": after(BUSY, 5),
    "openrouter/error.504.json": TIMEOUT,
    "openrouter/error.524.json": TIMEOUT,
    "openrouter/error.529.json": BUSY,
}

#: Errors that come from something in between, and so from any provider.
COMMON_ERRORS = {
    "common/error.429.retry_after_date.json": after(RATE, 5_168_860),
    "common/error.502.html.json": FAILED,
    "common/error.503.empty.json": BUSY,
}


def test_every_example_error_is_in_one_of_the_tables() -> None:
    """A payload that is added without an expectation fails here."""
    common = [file for file in common_files() if "/error." in file]

    assert list(ERRORS) == error_files()
    assert list(COMMON_ERRORS) == common


@pytest.mark.parametrize("file", ERRORS)
def test_an_error_answer_has_its_class(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], file: str
) -> None:
    """Status and body together tell what happened, and what may be done about it."""
    check(upstream, make_provider, file.partition("/")[0], file, ERRORS[file])


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("file", COMMON_ERRORS)
def test_an_error_answer_from_in_between_has_its_class(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], name: str, file: str
) -> None:
    """An edge proxy answers in HTML or not at all, and dates its hint."""
    check(upstream, make_provider, name, file, COMMON_ERRORS[file])


def check(
    upstream: ScriptedUpstream,
    make_provider: Callable[..., Provider],
    name: str,
    file: str,
    expected: Expected,
) -> None:
    """One call, one request, one error, which names the provider and shows no key."""
    payload = load(file)
    upstream.always(Answer.payload(payload))

    with pytest.raises(UpstreamError) as caught:
        call(make_provider(name, upstream), plain_request(name))

    error = caught.value
    hints = (error.retry_after_s, error.resets_at)
    assert Expected(type(error), error.retryable, error.billed, *hints) == expected
    assert error.upstream_status == payload["status"]
    assert error.message.startswith(f"{name} answered {payload['status']}")
    assert len(error.message) < 500
    assert not any(unicodedata.category(char) == "Cc" for char in error.message)
    secret = SECRETS[name]
    assert secret is None or secret.reveal() not in f"{error!r} {error} {error.to_wire()}"
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("file", "words"),
    [
        pytest.param("ollama/error.401.cloud_signin.json", "ollama signin", id="sign-in"),
        pytest.param("ollama/error.403.host.json", "localhost or 127.0.0.1", id="host header"),
        pytest.param(
            "kimi/error.403.not_coding_agent.json",
            "does not permit this client; use the Moonshot API",
            id="client not let in",
        ),
        pytest.param("openrouter/error.402.afford.json", "lower max_tokens", id="can only afford"),
        pytest.param(
            "openrouter/error.400.min_tokens.json",
            "Provider returned error: Azure: Invalid 'max_output_tokens'",
            id="reason of the provider behind",
        ),
        pytest.param(
            "openrouter/error.429.upstream.json",
            "BaseTen: moonshotai/kimi-k2.6 is temporarily rate-limited",
            id="reason in plain text",
        ),
        pytest.param("opencode/error.401.model_format.json", "/chat/completions", id="protocol"),
        pytest.param("opencode/error.403.bare.json", "without a reason", id="no words at all"),
        pytest.param("opencode/error.502.provider.json", '"an HTML page"', id="page, no title"),
    ],
)
def test_an_error_says_what_to_do(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], file: str, words: str
) -> None:
    """The upstream's own words, then the way out."""
    upstream.always(Answer.payload(load(file)))
    name = file.partition("/")[0]

    with pytest.raises(UpstreamError) as caught:
        call(make_provider(name, upstream), plain_request(name))

    assert words in caught.value.message


@pytest.mark.parametrize("name", [name for name in PROVIDERS if SECRETS[name] is not None])
@pytest.mark.parametrize("inside", [False, True], ids=["error status", "inside a 200"])
def test_a_key_that_the_upstream_repeats_is_masked(
    upstream: ScriptedUpstream,
    make_provider: Callable[..., Provider],
    name: str,
    *,
    inside: bool,
) -> None:
    """Some servers quote the key that they refuse."""
    secret = SECRETS[name]
    assert secret is not None
    key = secret.reveal()
    error = {"code": 401, "message": f"Incorrect API key provided: {key}."}
    upstream.always(Answer.json({"error": error}, 200 if inside else 401))

    with pytest.raises(UpstreamAuth) as caught:
        call(make_provider(name, upstream), plain_request(name))

    assert "Incorrect API key provided: ***." in caught.value.message
    assert key not in f"{caught.value!r} {caught.value.to_wire()}"
