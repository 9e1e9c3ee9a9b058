"""GET /metrics: every number of the overview, in a form that Prometheus reads."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path

import fakeredis
import pytest
import yaml
from flask.testing import FlaskClient
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from api import create_app
from api.contract import ErrorAnswer, ProviderAnswer, Providers
from api.metrics import exposition
from chat.catalogue import Catalogue
from chat.errors import QueueUnavailable
from chat.jobs import JobState, queue_name
from chat.replies import Replies
from chat.settings import ChatdConfig
from chat.store import JobStore
from chat.types import JSON, Lane
from tests.fakes import gateway, registered_names
from tests.servers import ROOT

#: Three providers: a busy local one, one that cools down, and one that nobody has called yet.
OVERVIEW: JSON = json.loads((Path(__file__).parent / "overview.json").read_text("utf-8"))

Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str | bytes) -> dict[str, Metric]:
    """The families by name, as a scraper understands them."""
    decoded = text if isinstance(text, str) else text.decode()
    families = list(text_string_to_metric_families(decoded))
    found = {family.name: family for family in families}
    assert len(found) == len(families)
    return found


def series(text: str | bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample's value by its name and labels; none may come twice."""
    samples = [sample for family in read(text).values() for sample in family.samples]
    found = {(s.name, frozenset(s.labels.items())): s.value for s in samples}
    assert len(found) == len(samples)
    return found


def value(found: Series, name: str, **labels: str) -> float | None:
    """One sample's value, ``None`` if there is no such sample."""
    return found.get((name, frozenset(labels.items())))


def changed(provider: int, budget: int, **fields: object) -> JSON:
    """The overview with some fields of one budget changed."""
    overview = copy.deepcopy(OVERVIEW)
    overview["providers"][provider]["budgets"][budget].update(fields)
    return overview


def test_the_example_is_what_the_contract_promises() -> None:
    """Else the tests below would prove something about another shape."""
    Providers.model_validate(OVERVIEW)


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("chatd_jobs", {"state": "waiting"}, 49980),
        ("chatd_jobs", {"state": "expired"}, 0),
        ("chatd_request_bytes", {}, 20_480_000),
        ("chatd_jobs_accepted_total", {}, 50200),
        ("chatd_jobs_retired_total", {}, 48),
        ("chatd_parks_total", {}, 50010),
        ("chatd_wake_ups_republished_total", {}, 2),
        ("chatd_calls_reclaimed_total", {}, 1),
        ("chatd_permits_overrun_total", {}, 0),
        ("chatd_calls_recalled_total", {}, 3),
        ("chatd_jobs_recreated_total", {}, 1),
        ("chatd_worker_last_seen_age_seconds", {"provider": "openrouter"}, 1.2),
        ("chatd_permits", {"provider": "openrouter"}, 16),
        ("chatd_provider_drained", {"provider": "openrouter"}, 0),
        ("chatd_calls_in_flight", {"provider": "openrouter", "lane": "batch"}, 7),
        ("chatd_queue_depth", {"provider": "openrouter", "lane": "interactive"}, 3),
        ("chatd_queue_oldest_age_seconds", {"provider": "openrouter", "lane": "batch"}, 4210.5),
        ("chatd_calls_total", {"provider": "openrouter", "state": "succeeded"}, 90),
        ("chatd_calls_total", {"provider": "openrouter", "state": "failed"}, 8),
        ("chatd_calls_total", {"provider": "openrouter", "state": "cancelled"}, 2),
        ("chatd_calls_refused_total", {"provider": "openrouter"}, 4),
        ("chatd_calls_overloaded_total", {"provider": "openrouter"}, 1),
        ("chatd_calls_quota_exhausted_total", {"provider": "openrouter"}, 0),
        ("chatd_cool_downs_total", {"provider": "openrouter"}, 3),
        ("chatd_tokens_total", {"provider": "openrouter", "direction": "input"}, 52000),
        ("chatd_tokens_total", {"provider": "openrouter", "direction": "output"}, 18000),
    ],
    ids=lambda given: "-".join(given.values()) or "all" if isinstance(given, dict) else str(given),
)
def test_each_number_has_its_series(name: str, labels: dict[str, str], expected: float) -> None:
    """Jobs, lanes, permits, calls and tokens."""
    assert value(series(exposition(OVERVIEW)), name, **labels) == expected


def test_a_budget_is_named_by_its_pattern_or_by_its_model() -> None:
    """With all that it allows, and what it has."""
    found = series(exposition(OVERVIEW))
    free = {"provider": "openrouter", "budget": "*:free"}
    paid = {"provider": "openrouter", "budget": "moonshotai/kimi-k2"}

    assert value(found, "chatd_parked_jobs", **free, lane="batch") == 49980
    assert value(found, "chatd_budget_requests_per_minute", **free) == 18.2
    assert value(found, "chatd_budget_requests_per_minute_cap", **free) == 20
    assert value(found, "chatd_budget_day_requests", **free) == 12
    assert value(found, "chatd_budget_day_requests_limit", **free) == 50
    assert value(found, "chatd_budget_cool_down_seconds", **free, reason="rate_limited") == 2.9
    assert value(found, "chatd_budget_calls_in_flight", **paid) == 8
    assert value(found, "chatd_budget_tokens_per_minute_cap", **paid) == 100_000


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("chatd_worker_last_seen_age_seconds", {"provider": "opencode"}),
        ("chatd_queue_oldest_age_seconds", {"provider": "ollama", "lane": "batch"}),
        ("chatd_budget_requests_per_minute", {"provider": "ollama", "budget": "*"}),
        ("chatd_budget_requests_per_minute_cap", {"provider": "ollama", "budget": "*"}),
        ("chatd_budget_tokens_per_minute_cap", {"provider": "ollama", "budget": "*"}),
        ("chatd_budget_day_requests", {"provider": "ollama", "budget": "*"}),
    ],
    ids=["never seen", "nothing waits", "no rate", "no cap", "no tokens", "no day"],
)
def test_what_is_not_there_has_no_sample(name: str, labels: dict[str, str]) -> None:
    """A zero would read as "nothing is allowed", or as "seen just now"."""
    found = series(exposition(OVERVIEW))

    assert value(found, name, **labels) is None
    assert any(known == name for known, _ in found)


def test_a_drained_provider_is_one_that_is_1() -> None:
    """The others are 0: a missing series would raise no alarm."""
    overview = copy.deepcopy(OVERVIEW)
    overview["providers"][2]["drained_since"] = "2026-11-22T17:32:10.118Z"
    found = series(exposition(overview))
    told = {
        p["name"]: value(found, "chatd_provider_drained", provider=p["name"])
        for p in overview["providers"]
    }

    assert told == {"ollama": 0, "openrouter": 0, "opencode": 1}


def test_an_open_budget_has_no_cool_down() -> None:
    """So that the reasons of the past leave no series behind."""
    found = series(exposition(changed(1, 0, closed=None)))

    assert not [labels for name, labels in found if name == "chatd_budget_cool_down_seconds"]


def test_latencies_are_a_histogram_in_seconds() -> None:
    """Cumulative, with the bounds that Redis counts in ms."""
    samples = read(exposition(OVERVIEW))["chatd_upstream_seconds"].samples
    mine = [sample for sample in samples if sample.labels["provider"] == "openrouter"]
    buckets = [(s.labels["le"], s.value) for s in mine if s.name.endswith("_bucket")]

    assert buckets == [("0.5", 20), ("1.0", 70), ("2.5", 96), ("+Inf", 100)]
    assert [s.value for s in mine if s.name.endswith("_count")] == [100]
    assert [s.value for s in mine if s.name.endswith("_sum")] == [91.345]


def test_names_and_units_are_those_of_prometheus() -> None:
    """One prefix, base units, ``_total`` for what only grows, and a help text for each."""
    families = read(exposition(OVERVIEW))

    for name, family in families.items():
        assert name.startswith("chatd_")
        assert not name.endswith(("_ms", "_minutes"))
        assert family.documentation.endswith(".")
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
    assert {family.type for family in families.values()} == {"counter", "gauge", "histogram"}


def test_every_state_of_a_job_is_counted() -> None:
    """A state that is added later is not forgotten here."""
    found = series(exposition(OVERVIEW))

    assert all(value(found, "chatd_jobs", state=state) is not None for state in JobState)


def test_a_model_id_may_hold_anything() -> None:
    """Quotes, backslashes and line ends are escaped, other scripts stay as they are."""
    model = 'vendor/"größe"\\n\n{x="y"} 模型'
    found = series(exposition(changed(1, 1, model=model)))

    assert value(found, "chatd_budget_calls_in_flight", provider="openrouter", budget=model) == 8


def test_a_scrape_is_plain_text_made_of_one_overview() -> None:
    """In the version of the format that every Prometheus reads; nothing else is asked."""
    gate = gateway()
    response = gate.client.get("/metrics")

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert gate.store.asked == ["overview"]
    assert value(series(response.data), "chatd_permits", provider="kimi") == 8


def test_a_scrape_has_nothing_of_the_process_that_answers() -> None:
    """Any process may: numbers of one of them would jump from scrape to scrape."""
    client = gateway().client
    first, second = client.get("/metrics").data, client.get("/metrics").data

    assert first == second
    assert all(name.startswith("chatd_") for name in read(first))


def test_without_redis_a_scrape_fails() -> None:
    """503 in the form of every error: a gap in the graph instead of zeros."""
    gate = gateway()
    gate.store.trouble = QueueUnavailable("Redis is away", retry_after_s=5)
    response = gate.client.get("/metrics")

    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert ErrorAnswer.model_validate_json(response.data).error.code == "redis_unavailable"


@pytest.fixture
def store() -> JobStore:
    """The real store on an empty fake server."""
    made = JobStore(fakeredis.FakeRedis(decode_responses=True), ChatdConfig())
    made.register_settings(["openrouter", "kimi"])
    text = '{"id":"@JOB@","tag":"@TAG@"}'
    made.register_envelopes({queue_name("openrouter", lane): text for lane in Lane})
    return made


def client_of(store: JobStore) -> FlaskClient:
    """A caller of a front end over ``store``."""
    names, replies = registered_names("openrouter", "kimi"), Replies(store.redis, store)
    app = create_app(
        ChatdConfig(),
        names=names,
        store=store,
        replies=replies,
        catalogue=Catalogue(store.redis),
    )
    return app.test_client()


def test_an_empty_redis_can_be_scraped(store: JobStore) -> None:
    """Every counter is zero: what never happened has no field there."""
    response = client_of(store).get("/metrics")
    found = series(response.data)

    assert response.status_code == 200
    assert value(found, "chatd_jobs_accepted_total") == 0
    assert value(found, "chatd_parks_total") == 0
    assert value(found, "chatd_calls_total", provider="kimi", state="succeeded") == 0
    assert value(found, "chatd_worker_last_seen_age_seconds", provider="kimi") is None


def test_jobs_in_redis_are_what_is_scraped(store: JobStore) -> None:
    """The real store's overview has the shape of the contract, and its numbers arrive."""
    client = client_of(store)
    body = {"model": "openrouter/a/b:free", "messages": [{"role": "user", "content": "hi"}]}
    accepted = [client.post("/v1/jobs", json=body).status_code for _ in range(3)]
    told = json.loads(client.get("/v1/chat/providers").data)["providers"]
    found = series(client.get("/metrics").data)
    states = [value(found, "chatd_jobs", state=state) or 0 for state in JobState]
    free = {"provider": "openrouter", "budget": "*:free"}

    assert accepted == [202] * 3
    assert [ProviderAnswer.model_validate(one).name for one in told] == ["openrouter", "kimi"]
    assert value(found, "chatd_jobs_accepted_total") == sum(states) == 3
    assert value(found, "chatd_budget_requests_per_minute_cap", **free) == 20


def test_every_alert_is_about_a_metric_that_is_there() -> None:
    """With labels that it has; each alert has its line in the operator's page."""
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text("utf-8"))
    page = (ROOT / "docs" / "operating.md").read_text("utf-8")
    known = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(gateway().client.get("/metrics").text)
    }
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    named = {name for rule in alerts for name in re.findall(r"chatd_[a-z_]+", rule["expr"])}

    assert len(alerts) > 10
    assert named - known == set()
    assert {rule["alert"] for rule in alerts} == set(
        re.findall(r"^\| `(Chatd\w+)` \|", page, re.MULTILINE)
    )
    states = {state for rule in alerts for state in re.findall(r'state="(\w+)"', rule["expr"])}
    assert states <= {state.value for state in JobState}
