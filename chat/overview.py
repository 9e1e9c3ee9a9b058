"""What a provider is doing, in the words of ``GET /v1/chat/providers``."""

from __future__ import annotations

from typing import Any

from chat.jobs import rfc3339
from chat.types import JSON, Lane

__all__ = ["provider_view"]


def provider_view(
    name: str, raw: dict[str, Any], *, concurrency: int, last_seen_s: float | None
) -> JSON:
    """One entry of ``providers``; ``raw`` is what ``overview.lua`` returns."""
    now, drained = raw["now"], raw.get("drained")
    return {
        "name": name,
        "concurrency": concurrency,
        "in_use": {lane.value: _count(raw["in_use"], lane.value) for lane in Lane},
        "last_seen_s": None if last_seen_s is None else round(last_seen_s, 3),
        "drained_since": None if drained is None else rfc3339(int(drained)),
        "lanes": {lane.value: _lane(raw["lanes"][lane.value], now) for lane in Lane},
        "budgets": [_budget(name, budget, raw) for budget in raw["budgets"]],
        "totals": _totals(raw["stats"], raw["latencies"]),
    }


def _lane(lane: dict[str, Any], now: int) -> JSON:
    oldest = lane.get("oldest")
    return {
        "depth": lane["depth"],
        "oldest_age_s": None if oldest is None else round(max(0, now - oldest) / 1000, 3),
        "parked": lane["parked"],
        "starts_per_s": round(lane["starts_per_s"], 3),
    }


def _budget(provider: str, budget: dict[str, Any], raw: dict[str, Any]) -> JSON:
    limit = budget["limit"] or {}
    scope = budget["name"].removeprefix(f"{provider}:")
    rate, cap, day = budget.get("rate"), limit.get("rpm"), limit.get("rpd")
    closed, until = None, budget.get("closed_until")
    if until is not None:
        closed = {
            "reason": budget["why"],
            "until": rfc3339(int(until)),
            "seconds": round((until - raw["now"]) / 1000, 1),
        }
    return {
        "match": budget["match"],
        "model": None if scope == budget["match"] else scope,
        "in_use": budget["in_use"],
        "rate_per_minute": None if rate is None else round(rate * 60, 2),
        "rate_cap_per_minute": cap,
        "learned": budget["learned"],
        "tokens_per_minute": limit.get("tpm"),
        "closed": closed,
        "day": None
        if day is None
        else {"used": budget["used"], "limit": day, "resets_at": rfc3339(int(raw["day_ends"]))},
        "parked": {lane.value: budget[lane.value] for lane in Lane},
    }


def _totals(counts: dict[str, int] | list[Any], latencies: list[list[Any]]) -> JSON:
    total = 0
    buckets: list[list[object]] = []
    for most, calls in latencies:  # Cumulative, as Prometheus wants them.
        total += calls
        buckets.append([most, total])
    return {
        "calls": _count(counts, "calls"),
        "succeeded": _count(counts, "succeeded"),
        "failed": _count(counts, "failed"),
        "cancelled": _count(counts, "cancelled"),
        "refused": _count(counts, "refused"),
        "overloaded": _count(counts, "overloaded"),
        "quota_exhausted": _count(counts, "quota"),
        "cool_downs": _count(counts, "cool_downs"),
        "input_tokens": _count(counts, "input_tokens"),
        "output_tokens": _count(counts, "output_tokens"),
        "upstream_ms": {"buckets": buckets, "sum": _count(counts, "ms")},
    }


def _count(counts: dict[str, int] | list[Any], name: str) -> int:
    # An empty Lua table becomes an empty JSON array.
    return int(counts.get(name, 0)) if isinstance(counts, dict) else 0
