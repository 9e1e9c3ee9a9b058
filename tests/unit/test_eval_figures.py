"""From rows to figures: ``chat.evaluations.figures`` and ``stats``, against plain computations."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

import pytest

from chat.evaluations.figures import Figures, comparison_of_two
from chat.evaluations.stats import mean_and_error, paired, percentiles, sign_test, wilson

SCORERS = [("right", "numeric"), ("judge", "judge")]
MODELS = ["a", "b", "c"]
START = "2026-11-22T10:00:{:02d}.000Z"


def a_row(sample: str, model: str, **changes: Any) -> dict[str, Any]:
    """An answered row that took a second."""
    return {
        "sample": sample,
        "model": model,
        "repeat": 1,
        "status": "answered",
        "cached": False,
        "finish_reason": "stop",
        "error": None,
        "scores": {},
        "provider": "ollama",
        "upstream_model": model,
        "input_tokens": 10,
        "output_tokens": 2,
        "cost_usd": 0.25,
        "queue_ms": 5,
        "latency_ms": 1000,
        "attempts": [],
        **changes,
    }


def a_score(value: float | None, status: str = "scored") -> dict[str, Any]:
    return {"status": status, "score": value, "reason": None, "code": None, "judge": None}


def an_attempt(second: int, outcome: str = "succeeded", status: int | None = 200) -> dict[str, Any]:
    return {"ended_at": START.format(second), "outcome": outcome, "upstream_status": status}


def figures_of(rows: list[dict[str, Any]], models: list[str] | None = None) -> Figures:
    figures = Figures(models or MODELS, SCORERS)
    for row in rows:
        figures.add(row)
    return figures


def random_rows(seed: int) -> list[dict[str, Any]]:
    """60 samples of three models, three times each; of everything that may go wrong, some."""
    chance = random.Random(seed)
    rows = []
    for sample in range(60):
        for model in MODELS:
            for repeat in (1, 2, 3):
                if chance.random() < 0.1:
                    error = {"code": chance.choice(["upstream_timeout", "outcome_unknown"])}
                    row = a_row(str(sample), model, status="errored", error=error, latency_ms=None)
                else:
                    status = chance.choice(["scored", "scored", "unparsable", "errored"])
                    judged = a_score(chance.random() if status == "scored" else None, status)
                    scores = {"right": a_score(float(chance.random() < 0.6)), "judge": judged}
                    took = chance.randrange(1, 5000)
                    row = a_row(str(sample), model, scores=scores, latency_ms=took)
                rows.append({**row, "repeat": repeat})
    return rows


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("scorer", ["right", "judge"])
def test_scores_are_those_of_a_plain_computation(seed, scorer):
    rows = random_rows(seed)
    summary = figures_of(rows).summary()
    per_sample = {
        model: {
            sample: statistics.fmean(values)
            for sample in map(str, range(60))
            if (
                values := [
                    row["scores"][scorer]["score"]
                    for row in rows
                    if (row["model"], row["sample"]) == (model, sample)
                    and row["scores"]
                    and row["scores"][scorer]["score"] is not None
                ]
            )
        }
        for model in MODELS
    }
    for model in summary["models"]:
        means = list(per_sample[model["name"]].values())
        (found,) = (score for score in model["scores"] if score["scorer"] == scorer)
        assert found["mean"] == pytest.approx(statistics.fmean(means))
        assert found["stderr"] == pytest.approx(statistics.stdev(means) / math.sqrt(len(means)))
        assert found["samples"] == len(means)
        mine = [row for row in rows if row["model"] == model["name"] and row["scores"]]
        for status in ("scored", "unparsable", "errored"):
            assert found[status] == sum(row["scores"][scorer]["status"] == status for row in mine)
        assert found["low"] < found["mean"] < found["high"]
    common = [s for s in map(str, range(60)) if all(s in means for means in per_sample.values())]
    for comparison in summary["comparisons"]:
        if comparison["scorer"] == scorer:
            a, b = per_sample[comparison["a"]], per_sample[comparison["b"]]
            differences = [b[sample] - a[sample] for sample in common]
            assert comparison["samples"] == len(common)
            assert comparison["difference"] == pytest.approx(statistics.fmean(differences))
            assert comparison["wins"] == sum(d > 0 for d in differences)
            assert comparison["losses"] == sum(d < 0 for d in differences)


def test_an_error_is_in_no_mean():
    failed = a_row("2", "a", status="errored", error={"code": "upstream_timeout"})
    rows = [
        a_row("1", "a", scores={"right": a_score(1.0), "judge": a_score(None, "errored")}),
        failed,
    ]
    (model,) = figures_of(rows, ["a"]).summary()["models"]
    right, judge = model["scores"]
    assert (right["mean"], right["samples"], right["stderr"]) == (1.0, 1, None)
    assert (judge["mean"], judge["low"], judge["samples"]) == (None, None, 0)
    assert (model["total"], model["answered"], model["errors"]) == (2, 1, {"upstream_timeout": 1})


def test_cached_answers_cost_nothing_and_took_no_time():
    none = dict.fromkeys(("input_tokens", "output_tokens", "cost_usd", "queue_ms", "latency_ms"))
    rows = [a_row("1", "a"), a_row("2", "a", cached=True, **none)]
    (model,) = figures_of(rows, ["a"]).summary()["models"]
    assert (model["cached"], model["cost_usd"], model["input_tokens"]) == (1, 0.25, 10)
    assert model["model_ms"] == {"p50": 1000, "p95": 1000, "p99": 1000}


def test_unknown_costs_are_not_zero():
    figures = figures_of([a_row("1", "a", cost_usd=None)], ["a"]).summary()
    assert (figures["models"][0]["cost_usd"], figures["totals"]["cost_usd"]) == (None, None)


def test_the_timeline_counts_answers_and_refusals_by_model():
    judge = {
        "attempts": [an_attempt(3)], "job_ids": ["job_1"],
        "input_tokens": 5, "output_tokens": 1, "cost_usd": 1.0,
    }  # fmt: skip
    rows = [
        a_row(
            "1",
            "a",
            attempts=[an_attempt(1, "rate_limited", 429), an_attempt(2)],
            scores={"right": a_score(1.0), "judge": {**a_score(1.0), "judge": judge}},
        ),
        a_row("1", "b", attempts=[an_attempt(1, "lost", None)]),
    ]
    summary = figures_of(rows).summary()
    timeline = summary["timeline"]
    assert timeline["step_s"] == 1
    assert timeline["answered"] == {"a": [0, 1, 1], "b": [0, 0, 0], "c": [0, 0, 0]}
    assert timeline["refused"]["a"] == [1, 0, 0]
    assert summary["models"][0]["judge"] == {
        "calls": 1, "input_tokens": 5, "output_tokens": 1, "cost_usd": 1.0
    }  # fmt: skip
    assert summary["totals"]["judge_cost_usd"] == 1.0


def test_a_long_timeline_has_few_parts():
    rows = [
        a_row("1", "a", attempts=[{**an_attempt(0), "ended_at": f"2026-11-22T{hour}:00:00Z"}])
        for hour in (10, 20)
    ]
    timeline = figures_of(rows, ["a"]).summary()["timeline"]
    assert (timeline["step_s"], len(timeline["answered"]["a"])) == (600, 61)


def test_two_runs_are_compared_on_their_common_samples():
    def rows(model: str, scores: dict[str, float]) -> list[dict[str, Any]]:
        return [a_row(s, model, scores={"right": a_score(v)}) for s, v in scores.items()]

    first = rows("old", {"1": 1.0, "2": 0.0, "3": 1.0, "only here": 0.0})
    (found,) = comparison_of_two(first, rows("new", {"3": 0.0, "2": 1.0, "1": 1.0, "x": 1.0}))
    assert (found["a"], found["b"], found["samples"]) == ("old", "new", 3)
    assert (found["mean_a"], found["mean_b"], found["difference"]) == (
        pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(0),
    )  # fmt: skip
    assert (found["worse"], found["better"], found["ties"]) == (["3"], ["2"], 1)


def test_runs_of_several_models_are_compared_by_their_labels():
    both = [a_row("1", name, scores={"right": a_score(1.0)}) for name in ("a", "b")]
    found = comparison_of_two(both, [both[1], a_row("1", "z", scores={"right": a_score(0.0)})])
    assert [(each["a"], each["b"]) for each in found] == [("b", "b")]


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    # R: prop.test(x, n, correct = FALSE)$conf.int
    [
        (0.5, 10, 0.2366, 0.7634),
        (1.0, 20, 0.8389, 1.0),
        (0.0, 20, 0.0, 0.1611),
        (0.9, 100, 0.8256, 0.9448),
    ],
)
def test_wilson(share, count, low, high):
    assert wilson(share, count) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    # R: binom.test(wins, wins + losses)$p.value
    [(0, 0, 1.0), (5, 5, 1.0), (9, 1, 0.02148), (0, 10, 0.001953), (15, 5, 0.04139), (10, 9, 1.0)],
)
def test_the_sign_test(wins, losses, p):
    assert sign_test(wins, losses) == pytest.approx(p, rel=1e-3)


def test_the_sign_test_of_many_samples_is_that_of_whole_numbers():
    wins, losses = 1040, 960
    exact = 2 * sum(math.comb(2000, k) for k in range(losses + 1)) / 2**2000
    assert sign_test(wins, losses) == pytest.approx(exact, rel=1e-9)
    assert 0 <= sign_test(50_000, 0) < 1e-300


def test_small_samples():
    assert mean_and_error([]) == (None, None)
    assert mean_and_error([0.5]) == (0.5, None)
    assert percentiles([]) is None
    assert percentiles(range(1, 101)) == {"p50": 50, "p95": 95, "p99": 99}
    assert paired({}, {}, []).to_wire()["p"] == 1.0
    same = paired({"1": 1.0}, {"1": 0.0}, ["1"])
    assert (same.difference, same.low, same.losses) == (-1.0, None, 1)
