"""The scenarios: a large run with kills, two runs held against each other, a retry, the cache."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import time
from collections import Counter
from typing import Any
from xml.etree import ElementTree as ET

from bench.evaluations.expected import (
    differences,
    expected_models,
    expected_pairs,
    expected_row,
)
from bench.evaluations.script import MODELS, Script
from bench.evaluations.world import World, running
from bench.processes import resident_mib
from bench.scenes.scene import Report
from tests.waiting import eventually

__all__ = ["SCENARIOS", "cache", "compare", "retry", "run"]

_NEAR = 1e-9


def run(report: Report, samples: int) -> None:
    """Three models and a judge; terminal, keeper and workers are killed in the middle of it."""
    with running(samples) as world:
        rows_wanted = samples * len(MODELS)
        began = time.monotonic()
        terminal = world.chatd_eval("run", str(world.suite()), "--report", "-").start()
        evaluation_id = _id_of(terminal.output)
        world.until_answered(evaluation_id, rows_wanted // 20)
        terminal.kill()
        report.say("terminal killed with SIGKILL at answers", world.answered(evaluation_id))
        world.until_answered(evaluation_id, rows_wanted // 3)
        keeper = world.stack.keeper
        report.say("keeper killed at answers", world.answered(evaluation_id))
        keeper.kill()
        keeper.start()
        # What nobody told chatd: the limit falls to a third, and comes back below.
        world.allow(world.allowed // 3)
        world.until_answered(evaluation_id, rows_wanted // 2)
        for worker in world.stack.workers.values():
            worker.kill()
            worker.start()
        world.allow(world.allowed)
        report.say("a worker of each provider killed at answers", world.answered(evaluation_id))
        watched = world.say("watch", evaluation_id, "--min-coverage", "0")
        took_s = time.monotonic() - began
        print(watched.stdout[-2600:], flush=True)
        report.rule("chatd eval watch comes back to it and ends with 0", watched.returncode == 0)
        summary = json.loads(world.report(evaluation_id, "json"))
        rows = world.rows(evaluation_id)
        refused = Counter(
            seen.status for upstream in world.upstreams.values() for seen in upstream.log
        )[429]
        report.say("answers and verdicts", f"{len(rows)} and {summary['totals']['judge_calls']}")
        report.say(
            "seconds, upstream calls, of these 429",
            f"{took_s:.0f}, {world.calls}, {refused}",
        )
        report.say("keeper, MiB at the end", f"{resident_mib(keeper.pid):.0f}")
        _check_rows(report, world.script, rows, samples)
        _check_figures(report, world.script, summary, samples)
        _check_ledger(report, world, rows)
        _check_files(report, world, evaluation_id, rows)


def compare(report: Report, samples: int) -> None:
    """A second run in which one model is better on known samples."""
    with running(samples) as world:
        first = world.run(world.suite(models=["kimi/gamma"]))
        before = {n: float(world.script.is_right("gamma", n)) for n in range(1, samples + 1)}
        world.script.better = set(range(1, samples // 3))
        second = world.run(world.suite(models=["kimi/gamma"]))
        after = {n: float(world.script.is_right("gamma", n)) for n in range(1, samples + 1)}
        told = world.say("compare", first, second, "--scorer", "right")
        print(told.stdout, flush=True)
        found = json.loads(world.say("compare", first, second, "--json").stdout)
        (right,) = (each for each in found["comparisons"] if each["scorer"] == "right")
        answered = {n for n in before if not world.script.is_refused("gamma", n)}
        wanted = differences(before, after, answered)
        report.rule("chatd eval compare says what a plain computation says", _same(right, wanted))
        report.rule(
            "it names the samples that became better, and none that became worse",
            right["better"] == [str(n) for n in sorted(answered) if after[n] > before[n]]
            and right["worse"] == [],
        )


def retry(report: Report, samples: int) -> None:
    """What was refused is asked again once the upstream is mended, and nothing else."""
    with running(samples) as world:
        evaluation_id = world.run(world.suite())
        rows = world.rows(evaluation_id)
        failed = sum(row["status"] == "errored" for row in rows)
        unread = sum(
            row["status"] == "answered" and row["scores"]["judged"]["status"] != "scored"
            for row in rows
        )
        before = _questions(world)
        world.script.mended = True
        done = world.say("retry", evaluation_id)
        report.rule("chatd eval retry ends with 0", done.returncode == 0)
        after = _questions(world)
        report.say("errored answers; verdicts missing", f"{failed}; {unread}")
        report.rule("so many answers are asked again", after[0] - before[0] == failed)
        again = world.rows(evaluation_id)
        report.rule("all are answered and judged", all(_scored(row) for row in again))
        asked = Counter(row["round"] for row in again)
        report.rule("the others are not asked again", asked[1] == len(rows) - failed)
        _check_rows(report, world.script, again, samples, tries=False)


def cache(report: Report, samples: int) -> None:
    """The same suite twice: what is known costs nothing the second time."""
    with running(samples) as world:
        # Kimi has a temperature of its own, so that nothing of it may be kept.
        suite = world.suite(cache=True, models=["alpha", "openrouter/x/beta"])
        first = world.run(suite)
        before = world.calls
        second = world.run(suite)
        shown = world.shown(second)
        rows = [
            expected_row(world.script, model, number)
            for model in ("alpha", "openrouter/x/beta")
            for number in range(1, samples + 1)
        ]
        report.say("upstream calls, first and second run", f"{before}; {world.calls - before}")
        report.say("known answers in the second", shown["counts"]["cached"])
        report.rule(
            "only errors and replies without a verdict are asked again",
            world.calls - before == sum(_asked_again(row) for row in rows),
        )
        figures = [json.loads(world.report(run_id, "json")) for run_id in (first, second)]
        scores = [[model["scores"] for model in each["models"]] for each in figures]
        report.rule("the scores are the same", scores[0] == scores[1])


SCENARIOS = {"run": run, "compare": compare, "retry": retry, "cache": cache}


def _id_of(output: Any) -> str:
    """The id that the command prints first."""

    def look() -> str | None:
        found = re.search(r"eval_[0-9a-z]{26}", output())
        return found and found[0]

    found = eventually(look, within_s=60, what="the evaluation has an id")
    assert found is not None
    return found


def _asked_again(row: dict[str, Any]) -> int:
    """The calls for a row of which nothing may be known: errors, and replies without a verdict."""
    if row["error"]:
        return 1
    verdict = row["scores"]["judged"][0]
    return 1 if verdict == "errored" else row["tries"] - (verdict == "scored")


def _scored(row: dict[str, Any]) -> bool:
    return row["status"] == "answered" and all(
        score["status"] == "scored" for score in row["scores"].values()
    )


def _questions(world: World) -> tuple[int, int]:
    """Calls of models and of the judge that no limit refused and that did not fail once."""
    answers = sum(
        sum(upstream.calls.values()) - sum(seen.status == 429 for seen in upstream.log)
        for name, upstream in world.upstreams.items()
        if name != "opencode"
    )
    return answers, sum(world.upstreams["opencode"].calls.values())


def _check_rows(
    report: Report, script: Script, rows: list[dict[str, Any]], samples: int, *, tries: bool = True
) -> None:
    """That each row is there once and says what it has to."""
    keys = Counter((row["model"], row["sample"]) for row in rows)
    report.rule(
        "every sample of every model has one row",
        len(keys) == len(rows) == samples * len(MODELS) and set(keys.values()) == {1},
    )
    wrong = []
    for row in rows:
        wanted = expected_row(script, row["model"], int(row["sample"]))
        scores = {name: (s["status"], s["score"]) for name, s in row["scores"].items()}
        judge = row["scores"].get("judged", {}).get("judge")
        if (
            row["status"] != wanted["status"]
            or (row["error"] and row["error"]["code"]) != wanted["error"]
            or row["answer"] != wanted.get("answer")
            or scores != wanted["scores"]
            or (tries and judge is not None and judge["tries"] != wanted["tries"])
        ):
            wrong.append((row["model"], row["sample"], scores, wanted))
    report.rule("answers, errors, scores and verdicts are those of the script", not wrong)
    for each in wrong[:5]:
        report.say("not as it has to be", each)


def _check_figures(report: Report, script: Script, summary: dict[str, Any], samples: int) -> None:
    """That every figure is that of the plain computation."""
    off = []
    for model in summary["models"]:
        wanted = expected_models(script, samples)[model["name"]]
        off += [
            (model["name"], score)
            for score in model["scores"]
            if not _same(score, wanted["scores"][score["scorer"]])
        ]
        if not _same(model, {n: v for n, v in wanted.items() if n != "scores"}):
            off.append((model["name"], model))
    report.rule("means, errors, intervals and counts are those of a plain computation", not off)
    pairs = expected_pairs(script, samples)
    apart = [
        pair
        for pair in summary["comparisons"]
        if not _same(pair, pairs[pair["scorer"], pair["a"], pair["b"]])
    ]
    report.rule("so are the six comparisons", not apart and len(summary["comparisons"]) == 6)
    for each in [*off, *apart][:3]:
        report.say("not as it has to be", each)


def _same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(
        math.isclose(found[name], value, rel_tol=_NEAR, abs_tol=_NEAR)
        for name, value in wanted.items()
    )


def _check_ledger(report: Report, world: World, rows: list[dict[str, Any]]) -> None:
    """That each upstream call is in the ledger of a row."""
    attempts = [
        attempt
        for row in rows
        for part in (row, *(score["judge"] for score in row["scores"].values() if score["judge"]))
        for attempt in part["attempts"]
    ]
    outcomes = Counter(attempt["outcome"] for attempt in attempts)
    report.say("attempts in the ledgers", f"{len(attempts)}: {dict(outcomes.most_common())}")
    lost = outcomes["lost"]
    report.say("upstream calls; attempts lost with a worker", f"{world.calls}; {lost}")
    # A worker that is killed between the two has opened an attempt, and sent nothing.
    report.rule(
        "every upstream call is an attempt, and every other attempt was lost with a worker",
        world.calls <= len(attempts) <= world.calls + lost,
    )


def _check_files(
    report: Report, world: World, evaluation_id: str, rows: list[dict[str, Any]]
) -> None:
    """That the exports have the same counts, and the page all rows."""
    table = list(csv.DictReader(io.StringIO(world.report(evaluation_id, "csv"), newline="")))
    right = sum(row["score: right"] == "1.0" for row in table)
    wanted = sum(_score_of(row) == 1 for row in rows)
    report.rule("the CSV has every row and score", len(table) == len(rows) and right == wanted)
    cases = ET.fromstring(world.report(evaluation_id, "junit")).iter("testcase")  # noqa: S314
    tags = Counter(case[0].tag if len(case) else "passed" for case in cases)
    errors = sum(2 * (row["status"] == "errored") for row in rows)
    errors += sum(score["status"] == "errored" for row in rows for score in row["scores"].values())
    report.rule(
        "JUnit has a case for each row and scorer, and its errors are errors",
        sum(tags.values()) == 2 * len(rows) and tags["error"] == errors,
    )
    page = world.report(evaluation_id, "html")
    report.say("the page, MB", f"{len(page) / 1e6:.1f}")
    report.rule("the page has every row", page.count('\n{"sample": ') == len(rows))


def _score_of(row: dict[str, Any]) -> float | None:
    score: float | None = row["scores"].get("right", {}).get("score")
    return score
