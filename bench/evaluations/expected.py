"""The figures of a run by a plain computation, which shares no code with that of chatd."""

from __future__ import annotations

import math
import statistics
from itertools import combinations
from typing import Any

from bench.evaluations.script import MODELS, Script

__all__ = ["differences", "expected_models", "expected_pairs", "expected_row"]

_Z = statistics.NormalDist().inv_cdf(0.975)


def expected_row(script: Script, label: str, number: int) -> dict[str, Any]:
    """What has to be known of one model's answer to one sample."""
    model = label.rpartition("/")[2]
    if script.is_refused(model, number):
        return {"status": "errored", "error": "upstream_rejected", "scores": {}}
    verdict = script.verdict(model, number)
    judged = {"pass": ("scored", 1.0), "fail": ("scored", 0.0)}.get(verdict, (verdict, None))
    return {
        "status": "answered",
        "error": None,
        "answer": script.answer(model, number),
        "scores": {
            "right": ("scored", 1.0 if script.is_right(model, number) else 0.0),
            "judged": judged,
        },
        "tries": 2 if script.needs_second_try(model, number) and verdict != "errored" else 1,
    }


def _scores(script: Script, label: str, scorer: str, samples: int) -> dict[int, float]:
    rows = {number: expected_row(script, label, number) for number in range(1, samples + 1)}
    return {
        number: row["scores"][scorer][1]
        for number, row in rows.items()
        if row["scores"] and row["scores"][scorer][1] is not None
    }


def expected_models(script: Script, samples: int) -> dict[str, dict[str, Any]]:
    """By model: how many answered, and of each scorer mean, error, interval and counts."""
    found = {}
    for label in MODELS:
        rows = [expected_row(script, label, number) for number in range(1, samples + 1)]
        answered = [row for row in rows if row["status"] == "answered"]
        scores = {}
        for scorer in ("right", "judged"):
            values = list(_scores(script, label, scorer, samples).values())
            n, p = len(values), statistics.fmean(values)
            half = _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
            statuses = [row["scores"][scorer][0] for row in answered]
            scores[scorer] = {
                "mean": p,
                "stderr": statistics.stdev(values) / math.sqrt(n),
                "low": (p + _Z**2 / (2 * n) - half) / (1 + _Z**2 / n),
                "high": (p + _Z**2 / (2 * n) + half) / (1 + _Z**2 / n),
                "samples": n,
                **{
                    status: statuses.count(status) for status in ("scored", "unparsable", "errored")
                },
            }
        found[label] = {
            "answered": len(answered),
            "errored": len(rows) - len(answered),
            "input_tokens": 7 * len(answered),
            "output_tokens": 3 * len(answered),
            "scores": scores,
        }
    return found


def expected_pairs(script: Script, samples: int) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Every two models, on the samples that all of them have a score for."""
    found = {}
    for scorer in ("right", "judged"):
        scores = {label: _scores(script, label, scorer, samples) for label in MODELS}
        common = set.intersection(*(set(each) for each in scores.values()))
        for a, b in combinations(MODELS, 2):
            found[scorer, a, b] = differences(scores[a], scores[b], common)
    return found


def differences(a: dict[int, float], b: dict[int, float], common: set[int]) -> dict[str, Any]:
    """How b differs from a on common samples."""
    each = [b[number] - a[number] for number in sorted(common)]
    wins, losses = sum(d > 0 for d in each), sum(d < 0 for d in each)
    mean, error = statistics.fmean(each), statistics.stdev(each) / math.sqrt(len(each))
    # The exact test in whole numbers: how likely a coin is as one-sided as that.
    ways = sum(math.comb(wins + losses, k) for k in range(min(wins, losses) + 1))
    return {
        "samples": len(each),
        "difference": mean,
        "stderr": error,
        "low": mean - _Z * error,
        "high": mean + _Z * error,
        "wins": wins,
        "losses": losses,
        "p": min(1.0, 2 * ways / 2 ** (wins + losses)),
    }
