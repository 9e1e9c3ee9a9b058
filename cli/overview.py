"""How ``chatd top`` shows an answer of ``GET /v1/chat/providers``: as tables, or as lines.

Everything here is a pure function of that answer, the answer before it, and the seconds between
the two. The first answer has nothing to be compared with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

from rich.console import Group
from rich.table import Table
from rich.text import Text

from chat.jobs import JobState
from chat.types import JSON, Lane

__all__ = ["lines", "plain", "view"]

#: Budgets of one provider that a table shows; an account may use hundreds of models.
_MOST_BUDGETS = 8
#: Seconds after which a worker is late: it has missed two heartbeats.
_LATE_S = 15

_OPEN = tuple(state for state in JobState if not state.terminal)
_OVER = tuple(state for state in JobState if state.terminal)
#: Counts of ``jobs`` beside the states.
_COUNTERS = (
    *("retired", "republished", "reclaimed", "permits_overrun", "recalled", "recreated"),
    *("parks", "bytes"),
)


# -- lines


def lines(now: JSON, before: JSON | None, seconds: float, *, at: datetime) -> list[str]:
    """One line of ``key=value`` per budget, and one for the totals, which begins ``providers=``.

    Keys and their order never change; what is not known, not limited or not the case is ``-``. A
    provider none of whose models was called lately has one line, with ``budget=-``. ``at`` is UTC.
    """
    stamp = {"at": at.isoformat(timespec="seconds").replace("+00:00", "Z")}
    written = []
    for provider in now["providers"]:
        name = provider["name"]
        facts = _provider_facts(provider, _calls_per_s(now, before, seconds, name))
        written += [
            _line(stamp | {"provider": name} | _budget_facts(budget) | facts)
            for budget in provider["budgets"] or [None]
        ]
    totals = {
        "providers": len(now["providers"]),
        "calls_per_s": _calls_per_s(now, before, seconds),
        **{key: _total(now, key) for key in ("calls", "refused", "overloaded", "cool_downs")},
        **{key: now["jobs"].get(key, 0) for key in ("accepted", *JobState, *_COUNTERS)},
    }
    return [*written, _line(stamp | totals)]


def _budget_facts(budget: JSON | None) -> dict[str, object]:
    budget = budget or {}
    closed, day = budget.get("closed") or {}, budget.get("day") or {}
    parked = budget.get("parked") or {}
    return {
        "budget": budget.get("model") or budget.get("match"),
        "budget_in_use": budget.get("in_use"),
        "rate_per_minute": budget.get("rate_per_minute"),
        "rate_cap_per_minute": budget.get("rate_cap_per_minute"),
        "learned": budget.get("learned"),
        "tokens_per_minute": budget.get("tokens_per_minute"),
        "closed": closed.get("reason"),
        "closed_s": closed.get("seconds"),
        "day_used": day.get("used"),
        "day_limit": day.get("limit"),
        **{f"{lane}_parked": parked.get(lane) for lane in Lane},
    }


def _provider_facts(provider: JSON, calls_per_s: float | None) -> dict[str, object]:
    facts: dict[str, object] = {
        "in_use": sum(provider["in_use"].values()),
        "concurrency": provider["concurrency"],
        "last_seen_s": provider["last_seen_s"],
        "calls_per_s": calls_per_s,
    }
    for lane in Lane:
        facts[f"{lane}_in_use"] = provider["in_use"][lane]
        for key in ("depth", "oldest_age_s", "starts_per_s"):
            facts[f"{lane}_{key}"] = provider["lanes"][lane][key]
    facts["drained_since"] = provider["drained_since"]
    return facts


def _line(facts: Mapping[str, object]) -> str:
    return " ".join(f"{key}={_value(fact)}" for key, fact in facts.items())


def _value(fact: object) -> str:
    match fact:
        case None:
            return "-"
        case bool():
            return "yes" if fact else "no"
        case float():
            return str(round(fact, 3))
    text = str(fact)
    # What would end the field or the line is written as a JSON string.
    odd = not text.isprintable() or any(char in text for char in ' "=')
    return json.dumps(text) if odd else text


# -- tables


def view(now: JSON, before: JSON | None, seconds: float) -> Group:
    """The totals, then the lanes of each provider, then its budgets; it fits 80 columns."""
    lanes, budgets = _table(), _table()
    lanes.add_column("provider", no_wrap=True)
    lanes.add_column("lane", no_wrap=True)
    for heading in ("calls", "queued", "oldest", "parked", "starts/s"):
        lanes.add_column(heading, justify="right", no_wrap=True)
    budgets.add_column("provider", no_wrap=True)
    # The only column that gives way: the others are cut when nothing is left of this one.
    budgets.add_column("budget")
    for heading in ("calls", "parked", "per min"):
        budgets.add_column(heading, justify="right", no_wrap=True)
    budgets.add_column("closed for", no_wrap=True)
    budgets.add_column("day", justify="right", no_wrap=True)
    for provider in now["providers"]:
        _add_lanes(lanes, provider)
        _add_budgets(budgets, provider)
    return Group(_totals(now, before, seconds), Text(), lanes, Text(), budgets)


def _table() -> Table:
    return Table(box=None, pad_edge=False, header_style="dim")


def _totals(now: JSON, before: JSON | None, seconds: float) -> Text:
    rate = _calls_per_s(now, before, seconds)
    parts = [] if rate is None else [f"{_number(rate)} calls/s"]
    for key, name in (
        ("refused", "429s"),
        ("overloaded", "overloads"),
        ("cool_downs", "cool-downs"),
    ):
        more = 0 if before is None else _total(now, key) - _total(before, key)
        parts.append(f"{_total(now, key)} {name}" + (f" (+{more})" if more > 0 else ""))
    counts = [[f"{now['jobs'].get(s, 0)} {s}" for s in states] for states in (_OPEN, _OVER)]
    return Text("\n".join(", ".join(line) for line in (parts, *counts)))


def _add_lanes(table: Table, provider: JSON) -> None:
    busy, seen = sum(provider["in_use"].values()), provider["last_seen_s"]
    worker = Text()
    if provider["drained_since"] is not None:
        worker.append("  drained", style="yellow")
    elif seen is None:
        worker.append("  no worker yet", style="red")
    elif seen >= _LATE_S:
        worker.append(f"  seen {_duration(seen)} ago", style="red")
    name = Text(f"{plain(provider['name'])} {busy}/{provider['concurrency']}", style="bold")
    for lane, first in zip(Lane, (name, worker), strict=True):
        told = provider["lanes"][lane]
        table.add_row(
            first,
            lane.value,
            str(provider["in_use"][lane]),
            str(told["depth"]),
            _duration(told["oldest_age_s"]),
            str(told["parked"]),
            _number(told["starts_per_s"]),
        )


def _add_budgets(table: Table, provider: JSON) -> None:
    """First those on which something happens, then the others, not all when there are many."""
    ranked = sorted(provider["budgets"], key=_is_idle)
    name = plain(provider["name"])
    for budget in ranked[:_MOST_BUDGETS]:
        closed, day = budget["closed"], budget["day"]
        why = "" if closed is None else f"{plain(closed['reason'])} {_duration(closed['seconds'])}"
        table.add_row(
            Text(name, style="bold"),
            Text(plain(budget["model"] or budget["match"]), no_wrap=True, overflow="ellipsis"),
            str(budget["in_use"]),
            str(sum(budget["parked"].values())),
            _allowed(budget),
            Text(why, style="yellow"),
            "" if day is None else f"{day['used']}/{day['limit']}",
        )
        name = ""
    if len(ranked) > _MOST_BUDGETS:
        rest = f"and {len(ranked) - _MOST_BUDGETS} more"
        table.add_row("", Text(rest, style="dim", no_wrap=True, overflow="ellipsis"))


def _is_idle(budget: JSON) -> bool:
    return not (budget["closed"] or budget["in_use"] or any(budget["parked"].values()))


def _allowed(budget: JSON) -> str:
    """Calls a minute now and at the most: ``18.2/20``; a cap that is not known is left out."""
    rate, cap = budget["rate_per_minute"], budget["rate_cap_per_minute"]
    if rate is None:
        return "-"
    return _number(rate) if cap is None else f"{_number(rate)}/{cap}"


def _number(value: float) -> str:
    """One digit after the point, two for what is nearly nothing."""
    return f"{value:.2f}" if 0 < value < 1 else f"{value:.1f}"


def _duration(seconds: float | None) -> str:
    """``0.4s``, ``75s``, ``70m``, ``3h``: as exact as one has to know it."""
    if seconds is None:
        return "-"
    if seconds < 10:  # noqa: PLR2004 - the limits are as good as any
        return f"{seconds:.1f}s"
    if seconds < 120:  # noqa: PLR2004 - see above
        return f"{seconds:.0f}s"
    return f"{seconds / 60:.0f}m" if seconds < 7200 else f"{seconds / 3600:.0f}h"  # noqa: PLR2004


def plain(text: str) -> str:
    """``text`` without anything that a terminal would obey."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


# -- differences


def _total(overview: JSON, key: str, name: str | None = None) -> int:
    """A count over all providers, or of the one that is named."""
    found = (p for p in overview["providers"] if name is None or p["name"] == name)
    return sum(provider["totals"][key] for provider in found)


def _calls_per_s(
    now: JSON, before: JSON | None, seconds: float, name: str | None = None
) -> float | None:
    """Calls that ended, per second since ``before``; ``None`` without one.

    ``None`` as well when there are fewer than before, since Redis has begun anew.
    """
    if before is None or seconds <= 0:
        return None
    more = _total(now, "calls", name) - _total(before, "calls", name)
    return None if more < 0 else more / seconds
