"""``GET /metrics``: what ``GET /v1/chat/providers`` tells, in the text format of Prometheus.

Every number lives in Redis, so any process of the front end gives the same answer, and nothing is
counted here: each scrape makes its families from one overview and forgets them. Names and units
follow Prometheus' docs, practices/naming. A ``budget`` is called by its model where each model has
one of its own, else by the pattern of its limit. What is not known or not limited has no sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from api.access import only_admin
from api.frontend import front_end
from chat.jobs import JobState
from chat.types import JSON

__all__ = ["blueprint", "exposition"]

blueprint = Blueprint("metrics", __name__)

#: Label values, and the number or ``None`` where there is none to tell.
_Samples = Iterable[tuple[tuple[str, ...], float | None]]

#: What ``jobs`` of the overview counts: its key, the metric's name, and what it says.
_JOB_COUNTERS = (
    ("accepted", "chatd_jobs_accepted", "Jobs accepted."),
    ("retired", "chatd_jobs_retired", "Ended jobs whose records were removed."),
    ("parks", "chatd_parks", "Times a job was set aside because its budget was closed."),
    ("republished", "chatd_wake_ups_republished", "Lost wake-ups that were sent again."),
    ("reclaimed", "chatd_calls_reclaimed", "Calls given up because their worker was gone."),
    (
        "permits_overrun",
        "chatd_permits_overrun",
        "Calls that went on beyond their permit, since they had been given up.",
    ),
    (
        "recalled",
        "chatd_calls_recalled",
        "Calls that Redis had forgotten and their workers told it again.",
    ),
    (
        "recreated",
        "chatd_jobs_recreated",
        "Jobs that Redis had forgotten altogether and workers told it again.",
    ),
)

#: The same for ``totals`` of a provider.
_CALL_COUNTERS = (
    ("refused", "chatd_calls_refused", "Calls that a rate limit refused (429)."),
    ("overloaded", "chatd_calls_overloaded", "Calls that an overloaded provider refused."),
    ("quota_exhausted", "chatd_calls_quota_exhausted", "Calls that a used-up quota refused."),
    ("cool_downs", "chatd_cool_downs", "Times that a budget was closed for a while."),
)

_ENDS = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


@blueprint.get("/metrics")
def metrics() -> Response:
    """One scrape. Without Redis it fails as any other call: a gap in the graph, not zeros."""
    only_admin()
    front = front_end()
    overview = front.connections().store.overview(front.names.names)
    return Response(exposition(overview), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def exposition(overview: JSON) -> bytes:
    """``JobStore.overview`` as a scraper reads it."""
    # The registry is this scrape's own: the process-wide one would add numbers of one process.
    registry = CollectorRegistry()
    registry.register(_Collector(overview))
    return generate_latest(registry)


class _Collector:
    """What a registry of prometheus_client asks: one answer of ``JobStore.overview``."""

    def __init__(self, overview: JSON) -> None:
        self._overview = overview

    def collect(self) -> Iterator[Metric]:
        """Every family once, whether or not it has a sample."""
        providers: list[JSON] = self._overview["providers"]
        yield from _jobs(self._overview["jobs"])
        yield from _lanes(providers)
        yield from _budgets(providers)
        yield from _calls(providers)


def _jobs(jobs: JSON) -> Iterator[Metric]:
    # Redis has no field for what never happened.
    yield _gauge(
        "chatd_jobs",
        "Jobs whose record is kept, by state.",
        ("state",),
        (((state.value,), jobs.get(state.value, 0)) for state in JobState),
    )
    yield _gauge(
        "chatd_request_bytes",
        "Bytes of the requests of all jobs that are not over.",
        (),
        [((), jobs.get("bytes", 0))],
    )
    for key, name, text in _JOB_COUNTERS:
        yield _counter(name, text, (), [((), jobs.get(key, 0))])


def _lanes(providers: list[JSON]) -> Iterator[Metric]:
    yield _gauge(
        "chatd_worker_last_seen_age_seconds",
        "Seconds since a worker of the provider was last seen; no sample if never.",
        ("provider",),
        (((p["name"],), p["last_seen_s"]) for p in providers),
    )
    yield _gauge(
        "chatd_permits",
        "Calls that the provider may have in flight at a time.",
        ("provider",),
        (((p["name"],), p["concurrency"]) for p in providers),
    )
    yield _gauge(
        "chatd_provider_drained",
        "1 while the provider is drained, so that no call of it begins; else 0.",
        ("provider",),
        (((p["name"],), p["drained_since"] is not None) for p in providers),
    )
    labels = ("provider", "lane")
    yield _gauge(
        "chatd_calls_in_flight",
        "Calls in flight.",
        labels,
        (((p["name"], lane), count) for p in providers for lane, count in p["in_use"].items()),
    )
    lanes = [((p["name"], name), lane) for p in providers for name, lane in p["lanes"].items()]
    yield _gauge(
        "chatd_queue_depth",
        "Jobs queued for a worker.",
        labels,
        ((values, lane["depth"]) for values, lane in lanes),
    )
    yield _gauge(
        "chatd_queue_oldest_age_seconds",
        "Age of the oldest job that waits; no sample if none does.",
        labels,
        ((values, lane["oldest_age_s"]) for values, lane in lanes),
    )


def _budgets(providers: list[JSON]) -> Iterator[Metric]:
    labels = ("provider", "budget")
    budgets: list[tuple[tuple[str, str], dict[str, Any]]] = [
        ((p["name"], budget["model"] or budget["match"]), budget)
        for p in providers
        for budget in p["budgets"]
    ]
    yield _gauge(
        "chatd_parked_jobs",
        "Jobs set aside until their budget can start them.",
        (*labels, "lane"),
        (
            ((*values, lane), count)
            for values, budget in budgets
            for lane, count in budget["parked"].items()
        ),
    )
    yield _gauge(
        "chatd_budget_cool_down_seconds",
        "Seconds until a closed budget opens again, and why it is closed; no sample if it is open.",
        (*labels, "reason"),
        (
            ((*values, budget["closed"]["reason"]), budget["closed"]["seconds"])
            for values, budget in budgets
            if budget["closed"] is not None
        ),
    )
    for key, name, text in (
        ("in_use", "chatd_budget_calls_in_flight", "Calls in flight."),
        (
            "rate_per_minute",
            "chatd_budget_requests_per_minute",
            "Calls a minute that may start now; no sample without a limit.",
        ),
        (
            "rate_cap_per_minute",
            "chatd_budget_requests_per_minute_cap",
            "The most calls a minute, as configured or published.",
        ),
        (
            "tokens_per_minute",
            "chatd_budget_tokens_per_minute_cap",
            "The most tokens a minute, as configured or published.",
        ),
    ):
        yield _gauge(name, text, labels, ((values, budget[key]) for values, budget in budgets))
    days = [(values, budget["day"]) for values, budget in budgets if budget["day"] is not None]
    yield _gauge(
        "chatd_budget_day_requests",
        "Calls that count against the day's limit, today so far.",
        labels,
        ((values, day["used"]) for values, day in days),
    )
    yield _gauge(
        "chatd_budget_day_requests_limit",
        "The most calls a day.",
        labels,
        ((values, day["limit"]) for values, day in days),
    )


def _calls(providers: list[JSON]) -> Iterator[Metric]:
    totals = [(p["name"], p["totals"]) for p in providers]
    yield _counter(
        "chatd_calls",
        "Upstream calls that ended, by how.",
        ("provider", "state"),
        (((name, end.value), total[end.value]) for name, total in totals for end in _ENDS),
    )
    for key, metric, text in _CALL_COUNTERS:
        yield _counter(metric, text, ("provider",), (((name,), t[key]) for name, t in totals))
    yield _counter(
        "chatd_tokens",
        "Tokens that providers counted.",
        ("provider", "direction"),
        (
            ((name, direction), total[f"{direction}_tokens"])
            for name, total in totals
            for direction in ("input", "output")
        ),
    )
    latency = HistogramMetricFamily(
        "chatd_upstream_seconds", "How long upstream calls took.", labels=("provider",)
    )
    for name, total in totals:
        upstream = total["upstream_ms"]
        buckets = [(_seconds(bound), count) for bound, count in upstream["buckets"]]
        latency.add_metric((name,), buckets, upstream["sum"] / 1000)
    yield latency


def _seconds(bound: float | str) -> str:
    """A bucket's upper bound in ms as Prometheus has it: seconds, or ``+Inf``."""
    return bound if isinstance(bound, str) else str(bound / 1000)


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: _Samples) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=labels), samples)


def _counter(name: str, text: str, labels: tuple[str, ...], samples: _Samples) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=labels), samples)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: _Samples) -> Metric:
    for values, number in samples:
        if number is not None:
            family.add_metric(values, number)
    return family
