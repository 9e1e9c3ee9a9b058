"""What people are told of a provider, and why a job was not let in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chat.config import ChatdConfig
from chat.errors import (
    Draining,
    IdempotencyMismatch,
    NoWorker,
    QueueFull,
    QueueUnavailable,
    QuotaExhausted,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from chat.overview import provider_view
from chat.refusals import Caps, caps_of, refusal
from chat.types import JSON, Billed, Lane
from tests.store_base import a_job, ms_of

#: Noon of some day, in ms since the epoch.
NOON = 1_795_348_800_000
MIDNIGHT = NOON + 12 * 3_600_000
CONFIG = ChatdConfig()


def raw(**changes: Any) -> JSON:
    """What `overview.lua` returns for a provider that has nothing to do."""
    lane = {"depth": 0, "parked": 0, "starts_per_s": 0}
    idle = {"interactive": dict(lane), "batch": dict(lane)}
    # Lua has one empty table: it may come as an object or as an array.
    return {
        "now": NOON,
        "day_ends": MIDNIGHT,
        "in_use": [],
        "lanes": idle,
        "budgets": {},
        "stats": [],
        "latencies": [[50, 0], ["+Inf", 0]],
    } | changes


def a_budget(**changes: Any) -> JSON:
    """A budget of OpenRouter's free models, as the script has it."""
    return {
        "name": "openrouter:*:free",
        "match": "*:free",
        "limit": {"rpm": 20, "learn": True},
        "rate": 1 / 3,
        "learned": False,
        "used": 0,
        "in_use": 0,
        "interactive": 0,
        "batch": 0,
    } | changes


def view(last_seen_s: float | None = None, **changes: Any) -> JSON:
    return provider_view("openrouter", raw(**changes), concurrency=16, last_seen_s=last_seen_s)


def budget_view(**changes: Any) -> JSON:
    """One budget of the view."""
    (budget,) = view(budgets=[a_budget(**changes)])["budgets"]
    assert isinstance(budget, dict)
    return budget


# -- the overview


def test_a_provider_that_has_nothing_to_do():
    """Every number is there, and is 0."""
    seen = view()

    assert (seen["name"], seen["concurrency"], seen["last_seen_s"]) == ("openrouter", 16, None)
    assert seen["in_use"] == {"interactive": 0, "batch": 0}
    assert seen["lanes"]["batch"] == {
        "depth": 0,
        "oldest_age_s": None,
        "parked": 0,
        "starts_per_s": 0,
    }
    assert (seen["budgets"], seen["drained_since"]) == ([], None)
    totals = seen["totals"]
    assert {value for name, value in totals.items() if name != "upstream_ms"} == {0}
    assert totals["upstream_ms"]["sum"] == 0
    assert {count for _, count in totals["upstream_ms"]["buckets"]} == {0}


def test_ages_are_counted_by_the_clock_of_redis():
    """Rounded to what a person reads, and never below nothing when that clock stepped back."""
    lane = {"depth": 2, "parked": 1, "starts_per_s": 1.23456, "oldest": NOON - 4210_500}
    seen = view(12.34567, lanes={"interactive": lane, "batch": {**lane, "oldest": NOON + 5}})

    assert seen["last_seen_s"] == 12.346
    assert seen["lanes"]["interactive"]["oldest_age_s"] == 4210.5
    assert seen["lanes"]["interactive"]["starts_per_s"] == 1.235
    assert seen["lanes"]["batch"]["oldest_age_s"] == 0


def test_a_drained_provider_says_since_when():
    """By the clock of Redis."""
    assert ms_of(view(drained=NOON)["drained_since"]) == NOON


def test_permits_are_counted_by_lane():
    """The same hash counts them by budget: that is told with each budget."""
    counts = {"interactive": 1, "batch": 7, "budget openrouter:*:free": 8}

    assert view(in_use=counts)["in_use"] == {"interactive": 1, "batch": 7}


def test_rates_are_told_by_the_minute():
    """The one that holds now, and the configured one beside it."""
    budget = budget_view(rate=0.30333, learned=True)

    assert (budget["rate_per_minute"], budget["rate_cap_per_minute"]) == (18.2, 20)
    assert budget["learned"] is True


@pytest.mark.parametrize("limit", [pytest.param([], id="array"), pytest.param({}, id="object")])
def test_a_budget_without_limits(limit):
    """No rate, no tokens, no day, and it is open."""
    budget = budget_view(limit=limit, rate=None)
    unknown = ("rate_per_minute", "rate_cap_per_minute", "tokens_per_minute", "closed", "day")

    assert [budget[name] for name in unknown] == [None] * 5


@pytest.mark.parametrize(
    ("name", "match", "model"),
    [
        pytest.param("openrouter:*:free", "*:free", None, id="shared"),
        pytest.param("openrouter:openai/gpt-5", "*", "openai/gpt-5", id="one-models-own"),
        pytest.param("openrouter:a:b:c", "*", "a:b:c", id="a-name-with-colons"),
    ],
)
def test_a_budget_names_its_model_if_it_has_one(name, match, model):
    """What `per_model` separates can be told apart."""
    budget = budget_view(name=name, match=match)

    assert (budget["match"], budget["model"]) == (match, model)


def test_a_cool_down_says_until_when():
    """And the reason, and the seconds."""
    budget = budget_view(closed_until=NOON + 2_940, why="rate_limited")

    assert ms_of(budget["closed"].pop("until")) == NOON + 2_940
    assert budget["closed"] == {"reason": "rate_limited", "seconds": 2.9}


def test_a_day_has_its_count_and_its_end():
    """UTC's midnight, where the day of Redis' clock ends."""
    day = budget_view(limit={"rpd": 50}, used=49)["day"]

    assert ms_of(day.pop("resets_at")) == MIDNIGHT
    assert day == {"used": 49, "limit": 50}


def test_latencies_are_cumulative():
    """As Prometheus wants them: each bucket has those below it too."""
    stats = {"calls": 6, "ms": 999_999, "quota": 4}
    latencies = [[50, 1], [500, 0], [1000, 3], ["+Inf", 2]]
    totals = view(stats=stats, latencies=latencies)["totals"]
    buckets = totals["upstream_ms"]["buckets"]

    assert buckets == [[50, 1], [500, 1], [1000, 4], ["+Inf", 6]]
    assert (totals["upstream_ms"]["sum"], totals["quota_exhausted"]) == (999_999, 4)


# -- refusals


def test_people_have_the_last_twentieth_of_the_queue():
    """The caps of a lane are the provider's own."""
    own = replace(
        CONFIG.providers["ollama"],
        max_interactive=1,
        max_interactive_bytes=2,
        max_batch=3,
        max_batch_bytes=4,
    )
    config = replace(
        CONFIG,
        max_queued=100,
        max_queued_bytes=9,
        providers={**CONFIG.providers, "ollama": own},
    )

    assert caps_of(config, "ollama", Lane.INTERACTIVE) == Caps(100, 9, 1, 2)
    assert caps_of(config, "ollama", Lane.BATCH) == Caps(95, 9, 3, 4)


def test_a_small_queue_has_no_twentieth():
    """Half a job is none."""
    config = replace(CONFIG, max_queued=19)

    assert caps_of(config, "ollama", Lane.BATCH).jobs == 19


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        pytest.param(["mismatch", "job_1"], IdempotencyMismatch, "belongs to job job_1", id="key"),
        pytest.param(["no_worker", ""], NoWorker, "since this Redis was started", id="never-seen"),
        pytest.param(["no_worker", "31"], NoWorker, "seen for 31 s", id="not-seen-lately"),
        pytest.param(
            ["drained", str(NOON)],
            Draining,
            "ollama is drained since 2026-11-22T12:00:00.000Z: .* `chatd resume ollama`",
            id="drained",
        ),
        pytest.param(["full", "memory", "5"], QueueUnavailable, "maxmemory", id="memory"),
        pytest.param(["full", "jobs", "7"], QueueFull, "max_queued = 100000 jobs", id="jobs"),
        pytest.param(["full", "bytes", "7"], QueueFull, "max_queued_bytes = 268435456", id="bytes"),
        pytest.param(
            ["full", "lane jobs", "7"],
            QueueFull,
            "max_interactive = 2000 jobs are waiting in the interactive lane of ollama",
            id="jobs-of-the-lane",
        ),
        pytest.param(
            ["full", "lane bytes", "7"],
            QueueFull,
            "interactive lane of ollama reached max_interactive_bytes = 67108864",
            id="bytes-of-the-lane",
        ),
        pytest.param(
            ["closed", "rate_limited", "60001", str(MIDNIGHT)],
            UpstreamRateLimited,
            "models \\*: the rate limit keeps them closed for another 61 s",
            id="rate-limit",
        ),
        pytest.param(
            ["closed", "overloaded", "60001", str(MIDNIGHT)],
            UpstreamUnavailable,
            "overloaded, and left alone for another 61 s, which is past timeout_s = 60",
            id="overload",
        ),
        pytest.param(
            ["closed", "quota_exhausted", "60001", str(MIDNIGHT)],
            QuotaExhausted,
            "the quota is used",
            id="quota",
        ),
        pytest.param(
            ["closed", "day_quota", "60001", str(MIDNIGHT)],
            QuotaExhausted,
            "requests_per_day are used",
            id="day",
        ),
    ],
)
def test_each_refusal_has_its_error(reply, error, words):
    """Its message names the rule that was broken."""
    with pytest.raises(error, match=words):
        raise refusal(reply, a_job(), CONFIG)


@pytest.mark.parametrize("what", ["jobs", "bytes", "lane jobs", "lane bytes", "memory"])
def test_a_full_queue_says_when_to_come_back(what):
    """As the script has worked it out."""
    assert refusal(["full", what, "7"], a_job(), CONFIG).retry_after_s == 7


@pytest.mark.parametrize(
    ("why", "resets"),
    [
        ("rate_limited", False),
        ("overloaded", False),
        ("quota_exhausted", True),
        ("day_quota", True),
    ],
)
def test_a_closed_budget_refuses_with_all_that_is_known(why, resets):
    """Nothing was sent, so nothing was billed, and the same request may succeed later."""
    error = refusal(["closed", why, "60001", str(MIDNIGHT)], a_job(), CONFIG)

    assert error.retry_after_s == 61
    assert (error.provider, error.upstream_model) == ("ollama", "qwen3:8b")
    assert (error.retryable, error.billed) == (True, Billed.NO)
    assert (error.resets_at and ms_of(error.resets_at)) == (MIDNIGHT if resets else None)
