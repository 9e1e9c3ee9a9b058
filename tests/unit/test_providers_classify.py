"""The table of error answers: every row decides a case, and no body makes it stumble."""

from __future__ import annotations

import json
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
from chat.types import Billed

NOW = 1_790_000_000.0
PROVIDERS = ("ollama", "ollama_cloud", "openrouter", "opencode", "kimi")
PAYLOADS = Path(__file__).parent.parent / "wire" / "payloads"


def error(message: str = "", **fields: object) -> dict[str, object]:
    """An error body in the OpenAI-compatible shape."""
    return {"error": {"message": message, **fields}}


#: Cases beside the example payloads: provider, status, body, class, retryable, billed.
CASES: dict[str, tuple[str, int, object, type[UpstreamError], bool, Billed]] = {
    "an option of a wrong type": (
        "ollama",
        500,
        {"error": 'option "stop" must be of type array'},
        UpstreamRejected,
        False,
        Billed.NO,
    ),
    "the daemon reached its cloud and lost it": (
        "ollama",
        502,
        {"error": "unexpected EOF"},
        UpstreamUnavailable,
        True,
        Billed.MAYBE,
    ),
    "a forbidden model of a local daemon": (
        "ollama",
        403,
        {"error": "forbidden"},
        UpstreamAuth,
        False,
        Billed.NO,
    ),
    "no slot in the cloud, whatever the status": (
        "ollama_cloud",
        503,
        {"error": "timed out waiting for a concurrent request slot"},
        UpstreamRateLimited,
        True,
        Billed.NO,
    ),
    "an hourly limit in the cloud, whatever the status": (
        "ollama_cloud",
        403,
        {"error": "you (x) have reached your hourly usage limit"},
        QuotaExhausted,
        False,
        Billed.NO,
    ),
    "the policy of a provider behind OpenRouter": (
        "openrouter",
        400,
        error("no", metadata={"error_type": "content_policy_violation"}),
        ContentFiltered,
        False,
        Billed.NO,
    ),
    "OpenRouter refuses a region": (
        "openrouter",
        403,
        error("not available in your country", code=403),
        UpstreamAuth,
        False,
        Billed.NO,
    ),
    "filtered, told by its type alone": (
        "openrouter",
        500,
        error("no", metadata={"error_type": "content_policy_violation"}),
        ContentFiltered,
        False,
        Billed.NO,
    ),
    "limited, told by its type alone": (
        "openrouter",
        500,
        error("slow", code="rate_limit_exceeded"),
        UpstreamRateLimited,
        True,
        Billed.NO,
    ),
    "out of money, told by its type alone": (
        "openrouter",
        500,
        error("pay", metadata={"error_type": "payment_required"}),
        QuotaExhausted,
        False,
        Billed.NO,
    ),
    "overloaded, told by its type alone": (
        "openrouter",
        500,
        error("full", metadata={"error_type": "provider_overloaded"}),
        UpstreamUnavailable,
        True,
        Billed.NO,
    ),
    "Kimi's conflict, which its own client repeats": (
        "kimi",
        409,
        error("conflict"),
        UpstreamUnavailable,
        True,
        Billed.NO,
    ),
    "Kimi refuses for another reason": (
        "kimi",
        403,
        error("no", type="access_terminated_error"),
        UpstreamAuth,
        False,
        Billed.NO,
    ),
    "a proxy wants a password": ("kimi", 407, "", UpstreamAuth, False, Billed.NO),
    "an empty account elsewhere": ("opencode", 402, {}, QuotaExhausted, False, Billed.NO),
    "a model that is gone": ("opencode", 404, "", UpstreamNotFound, False, Billed.NO),
    "the edge gave up waiting": ("kimi", 524, "", UpstreamTimeout, True, Billed.MAYBE),
    "a limit without a word": ("ollama_cloud", 429, "", UpstreamRateLimited, True, Billed.NO),
    "the wrong method": ("opencode", 405, "", UpstreamRejected, False, Billed.NO),
    "overloaded": ("kimi", 529, "", UpstreamUnavailable, True, Billed.NO),
    "an unknown failure": ("kimi", 599, "", UpstreamUnavailable, True, Billed.MAYBE),
    "a redirect": ("kimi", 302, "", UpstreamProtocolError, False, Billed.NO),
    "an informational answer": ("kimi", 101, "", UpstreamProtocolError, False, Billed.MAYBE),
    "a status beyond all": ("kimi", 700, "", UpstreamProtocolError, False, Billed.MAYBE),
}


@pytest.mark.parametrize("case", CASES)
def test_a_case_beside_the_examples_has_its_class(case: str) -> None:
    """What the example payloads do not show."""
    provider, status, body, kind, retryable, billed = CASES[case]

    found = classify(provider, status, {}, body, now=NOW)

    assert type(found) is kind
    assert (found.retryable, found.billed) == (retryable, billed)
    assert found.provider == provider
    assert found.upstream_status == status


def test_every_row_decides_a_case() -> None:
    """No row is dead: each is the first match of an example payload or of a case above."""
    seen = [(provider, status, body) for provider, status, body, *_ in CASES.values()]
    for path in PAYLOADS.glob("*/error.*.json"):
        payload = json.loads(path.read_text("utf-8"))
        body = payload.get("body", payload.get("body_text"))
        seen.append((path.parent.name, payload["status"], body))

    decided = {
        next(
            index
            for index, row in enumerate(table._ROWS)
            if row.covers(provider, status, read_error(body))
        )
        for provider, status, body in seen
    }

    dead = [row for index, row in enumerate(table._ROWS) if index not in decided]
    assert dead == []


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
    st.sampled_from(["retry-after", "x-ratelimit-reset"]),
    st.text(max_size=20) | st.integers().map(str) | st.floats().map(str),
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
