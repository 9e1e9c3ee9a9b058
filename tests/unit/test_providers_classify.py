"""The table of error answers: every row decides a case, and no body makes it stumble."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import (
    ContentFiltered,
    QuotaExhausted,
    UpstreamAuth,
    UpstreamError,
    UpstreamNotFound,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    error_from_wire,
)
from chat.providers import classify as table
from chat.providers.classify import classify
from chat.providers.error_text import read_error
from chat.retry import Signal, signal
from chat.types import Billed

#: 2026-09-21T14:13:20Z.
NOW = 1_790_000_000.0
UNTIL_MIDNIGHT = 35_200.0
PROVIDERS = ("ollama", "ollama_cloud", "openrouter", "opencode", "kimi")
PAYLOADS = Path(__file__).parent.parent / "wire" / "payloads"


@dataclass(frozen=True)
class Answer:
    """An error answer of one provider."""

    provider: str
    status: int
    body: object = ""


@dataclass(frozen=True)
class Expected:
    """What an answer is: class, what its budget learns, whether waiting helps, bill, and hint."""

    kind: type[UpstreamError]
    signal: Signal = Signal.NONE
    retryable: bool = False
    billed: Billed = Billed.NO
    seconds: float | None = None


def error(message: str = "", **fields: object) -> dict[str, object]:
    """An error body in the OpenAI-compatible shape."""
    return {"error": {"message": message, **fields}}


def example(name: str) -> Answer:
    """One of the example payloads, without its headers."""
    payload = json.loads((PAYLOADS / f"{name}.json").read_text("utf-8"))
    body = payload.get("body", payload.get("body_text"))
    return Answer(name.partition("/")[0], payload["status"], body)


REJECTED = Expected(UpstreamRejected)
AUTH = Expected(UpstreamAuth)
NOT_FOUND = Expected(UpstreamNotFound)
FILTERED = Expected(ContentFiltered)
QUOTA = Expected(QuotaExhausted, Signal.QUOTA, retryable=True)
DAILY = replace(QUOTA, seconds=UNTIL_MIDNIGHT)
SPENT = Expected(QuotaExhausted)
RATE = Expected(UpstreamRateLimited, Signal.REFUSED, retryable=True)
OVERLOADED = Expected(UpstreamUnavailable, Signal.OVERLOADED, retryable=True)
UNABLE = replace(OVERLOADED, signal=Signal.NONE)
FAILED = replace(UNABLE, billed=Billed.MAYBE)
TIMEOUT = Expected(UpstreamTimeout, retryable=True, billed=Billed.MAYBE)
PROTOCOL = Expected(UpstreamProtocolError, billed=Billed.MAYBE)

USED_UP = {"error": "you (x) have reached your weekly usage limit, upgrade for higher limits"}
NO_SLOT = {"error": "timed out waiting for a concurrent request slot"}

#: At least one case for each row of the table, and neighbours that are told apart.
CASES: dict[str, tuple[Answer, Expected]] = {
    # Ollama's cloud.
    "session quota": (example("ollama_cloud/error.429.session"), QUOTA),
    "weekly quota": (example("ollama_cloud/error.429.weekly"), QUOTA),
    "hourly quota, whatever the status": (
        Answer("ollama_cloud", 403, {"error": "you've reached your hourly usage limit"}),
        QUOTA,
    ),
    "weekly quota, through a local daemon": (Answer("ollama", 429, USED_UP), QUOTA),
    "no slot": (example("ollama_cloud/error.429.concurrency_slot"), RATE),
    "no slot, whatever the status": (Answer("ollama_cloud", 503, NO_SLOT), RATE),
    "another limit of the cloud": (Answer("ollama_cloud", 429), RATE),
    "not in the plan": (example("ollama_cloud/error.403.subscription"), AUTH),
    "the cloud failed": (example("ollama_cloud/error.500.ref"), FAILED),
    "the cloud failed, through a local daemon": (
        Answer("ollama", 500, {"error": "Internal Server Error (ref: 0000)"}),
        FAILED,
    ),
    # Local Ollama.
    "an option of a wrong type": (example("ollama/error.500.bad_option"), REJECTED),
    "not signed in": (example("ollama/error.401.cloud_signin"), AUTH),
    "cloud disabled": (example("ollama/error.403.cloud_disabled"), AUTH),
    "unknown Host header": (example("ollama/error.403.host"), AUTH),
    "another refusal of a daemon": (Answer("ollama", 403, {"error": "forbidden"}), AUTH),
    "request let go": (example("ollama/error.499.canceled"), UNABLE),
    "model runner crashed": (example("ollama/error.500.runner_stopped"), UNABLE),
    "cloud out of reach": (example("ollama/error.502.cloud_unreachable"), UNABLE),
    "cloud reached and lost": (Answer("ollama", 502, {"error": "unexpected EOF"}), FAILED),
    "daemon's queue is full": (example("ollama/error.503.busy"), OVERLOADED),
    # OpenRouter.
    "in-flight budget": (example("openrouter/error.402.in_flight_budget"), RATE),
    "can only afford less": (example("openrouter/error.402.afford"), SPENT),
    "credits spent": (example("openrouter/error.402.credits"), SPENT),
    "budget of a key, renewed": (
        example("openrouter/error.403.budget"),
        replace(SPENT, signal=Signal.QUOTA, seconds=6_083_200.0),
    ),
    "budget of a key, not renewed": (
        Answer("openrouter", 403, error("Key limit exceeded (total limit)")),
        SPENT,
    ),
    "moderation": (example("openrouter/error.403.moderation"), FILTERED),
    "guardrail": (example("openrouter/error.403.guardrail"), FILTERED),
    "a region that is refused": (
        Answer("openrouter", 403, error("not available in your country", code=403)),
        AUTH,
    ),
    "no such model id": (example("openrouter/error.400.model_not_found"), NOT_FOUND),
    "policy of a provider behind": (
        Answer("openrouter", 400, error("no", metadata={"error_type": "content_policy_violation"})),
        FILTERED,
    ),
    "free requests of a day": (example("openrouter/error.429.free_per_day"), DAILY),
    "free requests of a day, without a word on the reset": (
        Answer("openrouter", 429, error("Rate limit exceeded: free-models-per-day")),
        DAILY,
    ),
    "free requests of a minute": (
        example("openrouter/error.429.free_per_min"),
        replace(RATE, seconds=60.0),
    ),
    "shared pool of a provider": (example("openrouter/error.429.upstream"), RATE),
    "filtered, told by its type alone": (
        Answer("openrouter", 500, error(metadata={"error_type": "content_policy_violation"})),
        FILTERED,
    ),
    "limited, told by its type alone": (
        Answer("openrouter", 500, error("slow", code="rate_limit_exceeded")),
        RATE,
    ),
    "out of money, told by its type alone": (
        Answer("openrouter", 500, error("pay", metadata={"error_type": "payment_required"})),
        SPENT,
    ),
    "overloaded, told by its type": (example("openrouter/error.503"), OVERLOADED),
    "overloaded, told by its type alone": (
        Answer("openrouter", 500, error(metadata={"error_type": "provider_overloaded"})),
        UNABLE,
    ),
    # OpenCode.
    "balance spent": (example("opencode/error.401.credits"), SPENT),
    "workspace's monthly limit": (example("opencode/error.401.monthly_limit"), SPENT),
    "user's monthly limit": (example("opencode/error.401.user_limit"), SPENT),
    "wrong key": (example("opencode/error.401.invalid_key"), AUTH),
    "model on another protocol": (example("opencode/error.401.model_format"), NOT_FOUND),
    "not offered to this caller": (example("opencode/error.403.bare"), AUTH),
    "free requests of a day at OpenCode": (example("opencode/error.429.free_usage"), DAILY),
    "quota of Go": (
        example("opencode/error.429.go_usage"),
        replace(QUOTA, seconds=7800.0),
    ),
    "quota of Black": (
        Answer("opencode", 429, error("Retry in 3 days", type="BlackUsageLimitError")),
        replace(QUOTA, seconds=259_200.0),
    ),
    "rate limit of a key": (example("opencode/error.429.rate"), RATE),
    "404 rewritten to 400": (example("opencode/error.400.mapped_404"), NOT_FOUND),
    # Kimi For Coding.
    "quota of a week": (example("kimi/error.403.quota_weekly"), QUOTA),
    "quota of a billing cycle": (example("kimi/error.403.quota_cycle"), QUOTA),
    "client not let in": (example("kimi/error.403.not_coding_agent"), AUTH),
    "refused without a known reason": (
        Answer("kimi", 403, error("no", type="access_terminated_error")),
        AUTH,
    ),
    "membership not verified": (example("kimi/error.402.membership"), SPENT),
    "quota of five hours": (example("kimi/error.429.period"), QUOTA),
    "filtered": (example("kimi/error.400.high_risk"), FILTERED),
    "a conflict, which Kimi's own client repeats": (Answer("kimi", 409, error()), UNABLE),
    "too many requests": (example("kimi/error.429.too_many"), RATE),
    # Whoever it is.
    "engine overloaded": (example("kimi/error.429.overloaded"), OVERLOADED),
    "engine behind overloaded": (example("opencode/error.429.provider"), OVERLOADED),
    "Moonshot's balance spent": (example("kimi/error.429.quota_exhausted"), SPENT),
    "OpenAI's balance spent": (
        Answer("opencode", 429, error("You exceeded it", type="insufficient_quota")),
        SPENT,
    ),
    "larger than a minute's tokens": (
        Answer(
            "openrouter",
            429,
            error("Request too large for gpt-4o on tokens per min", code="rate_limit_exceeded"),
        ),
        REJECTED,
    ),
    "a proxy wants a password": (Answer("kimi", 407), AUTH),
    "an empty account elsewhere": (Answer("opencode", 402, {}), SPENT),
    "a model that is gone": (Answer("opencode", 404), NOT_FOUND),
    "the upstream gave up waiting": (example("openrouter/error.408"), TIMEOUT),
    "the edge gave up waiting": (Answer("kimi", 524), TIMEOUT),
    "a limit without a word": (Answer("kimi", 429), RATE),
    "the wrong method": (Answer("opencode", 405), REJECTED),
    "overloaded": (Answer("kimi", 529), OVERLOADED),
    "an unknown failure": (Answer("kimi", 599), FAILED),
    "a redirect": (Answer("kimi", 302), replace(PROTOCOL, billed=Billed.NO)),
    "an informational answer": (Answer("kimi", 101), PROTOCOL),
    "a status beyond all": (Answer("kimi", 700), PROTOCOL),
}


@pytest.mark.parametrize("case", CASES)
def test_a_case_is_what_it_is(case: str) -> None:
    """Class, signal to the budget, whether waiting helps, bill and hint."""
    answer, expected = CASES[case]

    found = classify(answer.provider, answer.status, {}, answer.body, now=NOW)

    assert (
        Expected(type(found), signal(found), found.retryable, found.billed, found.retry_after_s)
        == expected
    )
    assert found.provider == answer.provider
    assert found.upstream_status == answer.status
    assert (found.resets_at is None) == (
        expected.seconds is None or expected.kind is not QuotaExhausted
    )


def test_every_row_decides_a_case() -> None:
    """No row is dead, and none is without an expectation: each is the first match of a case."""
    decided = {
        next(
            index
            for index, row in enumerate(table._ROWS)
            if row.covers(answer.provider, answer.status, read_error(answer.body))
        )
        for answer, _ in CASES.values()
    }

    untested = [row for index, row in enumerate(table._ROWS) if index not in decided]
    assert untested == []


def test_every_row_is_for_providers_that_exist() -> None:
    """A name that is misspelt would never match."""
    named = {name for row in table._ROWS for name in row.providers.split()}

    assert named == set(PROVIDERS)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, UpstreamRejected),
        (401, UpstreamAuth),
        (402, QuotaExhausted),
        (403, UpstreamAuth),
        (404, UpstreamNotFound),
        (408, UpstreamTimeout),
        (413, UpstreamRejected),
        (422, UpstreamRejected),
        (429, UpstreamRateLimited),
        (500, UpstreamUnavailable),
        (502, UpstreamUnavailable),
        (503, UpstreamUnavailable),
        (504, UpstreamTimeout),
        (524, UpstreamTimeout),
        (529, UpstreamUnavailable),
    ],
)
def test_a_status_without_words_has_its_class_at_every_provider(
    provider: str, status: int, kind: type[UpstreamError]
) -> None:
    """A new wording is no worse than none."""
    assert type(classify(provider, status, {}, "", now=NOW)) is kind


@pytest.mark.parametrize(
    ("retryable_kind", "status", "hint"),
    [
        pytest.param(UpstreamRateLimited, 429, 7.0, id="rate limit"),
        pytest.param(UpstreamUnavailable, 503, 7.0, id="unavailable"),
        pytest.param(UpstreamTimeout, 504, 7.0, id="timeout"),
        pytest.param(UpstreamAuth, 401, None, id="refused key"),
        pytest.param(UpstreamRejected, 400, None, id="refused request"),
    ],
)
def test_a_hint_counts_where_a_retry_makes_sense(
    retryable_kind: type[UpstreamError], status: int, hint: float | None
) -> None:
    """A Retry-After on an error that will not pass is not handed on."""
    found = classify("openrouter", status, {"retry-after": "7"}, "", now=NOW)

    assert type(found) is retryable_kind
    assert found.retry_after_s == hint
    assert found.resets_at is None


@pytest.mark.parametrize(
    ("answer", "headers", "seconds"),
    [
        pytest.param(
            example("openrouter/error.429.free_per_day"), {"retry-after": "9"}, 9.0, id="its own"
        ),
        pytest.param(example("opencode/error.429.go_usage"), {"retry-after": "9"}, 9.0, id="Go's"),
        pytest.param(
            Answer("opencode", 429, error(type="FreeUsageLimitError")),
            {"retry-after": "0"},
            None,
            id="renewed already, so it says",
        ),
        pytest.param(example("kimi/error.429.period"), {"retry-after": "5"}, None, id="wrong"),
        pytest.param(
            example("kimi/error.429.quota_exhausted"), {"retry-after": "5"}, None, id="a balance"
        ),
        pytest.param(
            example("openrouter/error.402.afford"), {"retry-after": "5"}, None, id="too dear"
        ),
        pytest.param(
            example("openrouter/error.402.credits"),
            {"retry-after": "5"},
            5.0,
            id="a 402 that passes",
        ),
        pytest.param(
            example("openrouter/error.402.credits"),
            {"x-ratelimit-reset": "1790000005"},
            None,
            id="the window of a limit is not the balance's",
        ),
        pytest.param(
            Answer("kimi", 503),
            {"x-ratelimit-reset": "1790000005"},
            None,
            id="nor the time of a server",
        ),
    ],
)
def test_a_hint_counts_where_it_is_about_the_refusal(
    answer: Answer, headers: dict[str, str], seconds: float | None
) -> None:
    """A quota waits for its own reset, and for no other time that happens to be in the answer."""
    found = classify(answer.provider, answer.status, headers, answer.body, now=NOW)

    assert found.retry_after_s == seconds
    assert (found.resets_at is None) == (seconds is None)


def test_a_quota_without_a_word_on_its_reset_is_renewed_at_midnight() -> None:
    """In UTC, where the quota is one of a day."""
    answer, _ = CASES["free requests of a day, without a word on the reset"]

    found = classify(answer.provider, answer.status, {}, answer.body, now=NOW)

    assert found.resets_at == "2026-09-22T00:00:00.000Z"


def test_the_message_quotes_the_upstream_and_ends_with_the_way_out() -> None:
    """Provider, status, the upstream's words, then advice."""
    found = classify("kimi", 404, {}, error("Not found the model x"), now=NOW)

    assert found.message == ('kimi answered 404: "Not found the model x"; check the model name')


def test_an_error_survives_the_queue() -> None:
    """Its wire form rebuilds class, message and hints."""
    found = classify("opencode", 429, {"retry-after": "9"}, error("x", type="y"), now=NOW)

    rebuilt = error_from_wire(found.to_wire())

    assert type(rebuilt) is type(found)
    assert rebuilt.to_wire() == found.to_wire()


_KEYS = st.text(max_size=5) | st.sampled_from(
    [
        *("error", "message", "detail", "type", "error_type", "code", "http_status"),
        *("metadata", "availability", "raw", "headers", "provider_name", "limit_source"),
        *("retry_after", "resets_at", "X-RateLimit-Reset"),
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)
_HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("retry-after", "retry-after-ms", "x-ratelimit-reset"),
            *("x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"),
            "x-ratelimit-remaining-requests",
        ]
    ),
    st.text(max_size=20)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.from_regex(r"([0-9]{1,12}(ms|s|m|h|d)){1,3}", fullmatch=True),
)


@given(
    provider=st.sampled_from(PROVIDERS),
    status=st.integers(0, 999),
    headers=_HEADERS,
    body=_JSON,
    secret=st.none() | st.text("abc", min_size=8),
)
def test_no_answer_makes_the_table_stumble(
    provider: str, status: int, headers: dict[str, str], body: Any, secret: str | None
) -> None:
    """Whatever comes is one of our errors, fit for the wire, and without the key."""
    found = classify(provider, status, headers, body, now=NOW, secret=secret)

    json.dumps(found.to_wire(), allow_nan=False, ensure_ascii=False).encode("utf-8")
    assert secret is None or secret not in found.message
    assert found.retry_after_s is None or 0 <= found.retry_after_s <= 366 * 86400
