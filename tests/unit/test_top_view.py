"""What ``chatd top`` makes of an answer: lines for programs, tables for people."""

from __future__ import annotations

import copy
import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from chat.types import JSON
from cli.overview import lines, view

#: Three providers: a busy local one, one that cools down, and one that nobody has called yet.
OVERVIEW: JSON = json.loads((Path(__file__).parent / "overview.json").read_text("utf-8"))
AT = datetime(2026, 11, 22, 17, 40, tzinfo=UTC)


def earlier(**counts: int) -> JSON:
    """The overview with openrouter's totals lower by ``counts``."""
    overview = copy.deepcopy(OVERVIEW)
    for name, count in counts.items():
        overview["providers"][1]["totals"][name] -= count
    return overview


def with_budgets(budgets: list[JSON]) -> JSON:
    """The overview with other budgets of openrouter."""
    overview = copy.deepcopy(OVERVIEW)
    overview["providers"][1]["budgets"] = budgets
    return overview


def budget(**fields: object) -> JSON:
    """A budget that limits nothing and has nothing to do, with ``fields`` put over it."""
    return {**OVERVIEW["providers"][0]["budgets"][0], "in_use": 0, **fields}


def drawn(now: JSON, before: JSON | None = None, *, width: int = 80) -> str:
    """The view as a terminal of that width shows it, two seconds after ``before``."""
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(view(now, before, 2.0))
    return capture.get()


def fields(line: str) -> dict[str, str]:
    """A line of ``key=value`` taken apart as another program would."""
    found = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)', line)
    assert " ".join(f"{key}={value}" for key, value in found) == line
    return dict(found)


class TestLines:
    """What a pipe gets."""

    def test_there_is_one_line_per_budget_and_one_for_the_totals(self):
        """A provider without a budget has a line as well, so that its queue is seen."""
        told = [fields(line) for line in lines(OVERVIEW, None, 0.0, at=AT)]

        assert [(line.get("provider"), line.get("budget")) for line in told] == [
            ("ollama", "*"),
            ("openrouter", "*:free"),
            ("openrouter", "moonshotai/kimi-k2"),
            ("opencode", "-"),
            (None, None),
        ]
        assert {line["at"] for line in told} == {"2026-11-22T17:40:00Z"}

    def test_a_line_tells_of_its_budget_and_its_provider(self):
        """In this order, which scripts may count on."""
        line = lines(OVERVIEW, earlier(calls=9), 2.0, at=AT)[1]

        assert line == (
            "at=2026-11-22T17:40:00Z provider=openrouter budget=*:free budget_in_use=0 "
            "rate_per_minute=18.2 rate_cap_per_minute=20 learned=yes tokens_per_minute=- "
            "closed=rate_limited closed_s=2.9 day_used=12 day_limit=50 interactive_parked=0 "
            "batch_parked=49980 in_use=8 concurrency=16 last_seen_s=1.2 calls_per_s=4.5 "
            "interactive_in_use=1 interactive_depth=3 interactive_oldest_age_s=0.4 "
            "interactive_starts_per_s=1.9 batch_in_use=7 batch_depth=0 "
            "batch_oldest_age_s=4210.5 batch_starts_per_s=0.3 drained_since=-"
        )

    def test_every_budgets_line_has_the_same_keys(self):
        """Whatever is not known, not limited or not the case."""
        told = [list(fields(line)) for line in lines(OVERVIEW, None, 0.0, at=AT)[:-1]]

        assert told == [told[0]] * 4

    def test_the_last_line_has_the_totals(self):
        """Calls over all providers, and the jobs by state."""
        line = lines(OVERVIEW, earlier(calls=9), 2.0, at=AT)[-1]

        assert line == (
            "at=2026-11-22T17:40:00Z providers=3 calls_per_s=4.5 calls=140 refused=4 overloaded=1 "
            "cool_downs=3 accepted=50200 queued=23 waiting=49980 calling=9 succeeded=128 failed=9 "
            "cancelled=3 expired=0 retired=48 republished=2 reclaimed=1 permits_overrun=0 "
            "recalled=3 recreated=1 parks=50010 bytes=20480000"
        )

    def test_the_first_poll_knows_no_rate(self):
        """There is nothing to take it from."""
        assert {fields(line)["calls_per_s"] for line in lines(OVERVIEW, None, 0.0, at=AT)} == {"-"}

    def test_fewer_calls_than_before_give_no_rate(self):
        """Redis was emptied in between; a negative rate would be nonsense."""
        told = [fields(line) for line in lines(OVERVIEW, earlier(calls=-7), 2.0, at=AT)]

        assert [line["calls_per_s"] for line in told] == ["0.0", "-", "-", "0.0", "-"]

    @pytest.mark.parametrize(
        ("model", "written"),
        [
            ("a model", r'"a model"'),
            ('say "hi"', r'"say \"hi\""'),
            ("x=y", r'"x=y"'),
            ("a\nb\x1b[31m", r'"a\nb\u001b[31m"'),
            ("größe", "größe"),
        ],
        ids=["space", "quote", "equals sign", "control characters", "umlauts"],
    )
    def test_a_model_id_cannot_break_a_line(self, model, written):
        """It comes from callers; what is odd is a JSON string."""
        line = lines(with_budgets([budget(model=model)]), None, 0.0, at=AT)[1]

        assert fields(line)["budget"] == written

    def test_a_counter_that_redis_does_not_have_yet_is_zero(self):
        """As after the very first start."""
        line = lines({**OVERVIEW, "jobs": {}}, None, 0.0, at=AT)[-1]

        assert (fields(line)["accepted"], fields(line)["parks"]) == ("0", "0")


class TestView:
    """What a terminal gets."""

    def test_it_shows_lanes_and_budgets_of_each_provider(self):
        """In 80 columns, below the totals."""
        assert [line.rstrip() for line in drawn(OVERVIEW, earlier(calls=9)).splitlines()] == [
            "4.5 calls/s, 4 429s, 1 overloads, 3 cool-downs",
            "23 queued, 49980 waiting, 9 calling",
            "128 succeeded, 9 failed, 3 cancelled, 0 expired",
            "",
            "provider         lane         calls  queued  oldest  parked  starts/s",
            "ollama 1/4       interactive      1       0       -       0      0.40",
            "                 batch            0       0       -       0       0.0",
            "openrouter 8/16  interactive      1       3    0.4s       0       1.9",
            "                 batch            7       0     70m   49980      0.30",
            "opencode 0/8     interactive      0       0       -       0       0.0",
            "  no worker yet  batch            0      20     75s       0       0.0",
            "",
            "provider    budget              calls  parked  per min  closed for           day",
            "ollama      *                       1       0        -",
            "openrouter  *:free                  0   49980  18.2/20  rate_limited 2.9s  12/50",
            "            moonshotai/kimi-k2      8       0    312.5",
        ]

    def test_the_first_view_has_no_rate(self):
        """It begins with what is known."""
        assert drawn(OVERVIEW).startswith("4 429s, 1 overloads, 3 cool-downs\n")

    def test_what_is_new_since_the_last_look_is_marked(self):
        """A refusal of just now is another matter than one of yesterday."""
        first = drawn(OVERVIEW, earlier(refused=2, overloaded=1)).splitlines()[0]

        assert first == "0.0 calls/s, 4 429s (+2), 1 overloads (+1), 3 cool-downs"

    def test_only_the_model_gives_way_on_a_narrow_terminal(self):
        """Numbers are never cut: a part of one would be a lie."""
        name = "a-vendor/with-a-very-long-name-of-a-model:thinking"
        wide = budget(
            model=name,
            closed={"reason": "quota_exhausted", "until": "…", "seconds": 3540.0},
            day={"used": 1000, "limit": 1000, "resets_at": "…"},
            rate_per_minute=18.2,
            rate_cap_per_minute=20,
        )
        shown = drawn(with_budgets([wide]))

        assert "quota_exhausted 59m  1000/1000" in shown
        assert "18.2/20" in shown
        assert "…" in shown
        assert max(map(len, shown.splitlines())) <= 80

    def test_busy_budgets_come_first_and_idle_ones_are_not_all_shown(self):
        """An account may have hundreds; the providers below have to stay in sight."""
        idle = [budget(model=f"idle-{number}") for number in range(20)]
        busy = [
            budget(model="parked-here", parked={"interactive": 0, "batch": 3}),
            budget(model="in-use", in_use=1),
            budget(model="closed", closed={"reason": "overloaded", "until": "…", "seconds": 1.0}),
        ]
        shown = drawn(with_budgets([*idle, *busy]))

        assert re.findall(r"parked-here|in-use|closed(?!  | for)|idle-\d+", shown)[:4] == [
            "parked-here",
            "in-use",
            "idle-0",
            "idle-1",
        ]
        assert re.search(r"^ +closed +0 +0 +- +overloaded 1\.0s", shown, re.MULTILINE)
        assert len(re.findall(r"idle-\d+", shown)) == 5
        assert "and 15 more" in shown

    def test_a_worker_that_is_late_is_told(self):
        """Jobs would wait without anything else looking wrong."""
        late = copy.deepcopy(OVERVIEW)
        late["providers"][0]["last_seen_s"] = 45.3

        assert "seen 45s ago" in drawn(late)
        assert "seen" not in drawn(OVERVIEW)

    def test_a_drained_provider_is_told_before_anything_of_its_workers(self):
        """They would change nothing; since when it is drained stands in its lines."""
        drained = copy.deepcopy(OVERVIEW)
        drained["providers"][2]["drained_since"] = "2026-11-22T17:32:10.118Z"
        line = fields(lines(drained, None, 0.0, at=AT)[3])

        assert re.search(r"^  drained +batch +0 +20 ", drawn(drained), re.MULTILINE)
        assert "no worker yet" not in drawn(drained)
        assert line["drained_since"] == "2026-11-22T17:32:10.118Z"

    def test_markup_and_controls_in_a_model_id_are_only_text(self):
        """A pattern such as [ab]* is no colour, and nobody moves the cursor."""
        shown = drawn(with_budgets([budget(match="[bold]*"), budget(model="a\x1b[31mb")]))

        assert "[bold]*" in shown
        assert "\x1b" not in shown
        assert "a\ufffd[31mb" in shown
