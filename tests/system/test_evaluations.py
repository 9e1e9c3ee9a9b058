"""Evaluations on real processes, before models that follow a script: see ``bench.evaluations``.

The scenarios check every row and every figure against a plain computation, with the terminal, the
keeper and the workers killed in the middle. Here they are short; the bench runs them at length.
"""

from __future__ import annotations

import pytest

from bench.evaluations.scenarios import SCENARIOS
from bench.evaluations.script import Script
from bench.evaluations.world import running
from bench.scenes.scene import Report


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_rule_holds(name):
    report = Report()
    SCENARIOS[name](report, 60)
    assert report.broken == []


def test_a_bad_dataset_is_told_line_by_line_before_anything_is_sent():
    with running(3, Script()) as world:
        dataset = world.folder / "dataset.jsonl"
        dataset.write_text(dataset.read_text() + '{"id": "1", "prompt": "?", "expected": "x"}\n')
        refused = world.say("run", str(world.suite()), "--report", "-")
        assert refused.returncode == 2
        assert "dataset.jsonl:4" in refused.stderr
        assert world.calls == 0
        assert world.stack.http.get(f"{world.stack.url}/v1/files", timeout=30).json()["data"] == []


def test_a_score_that_is_too_low_fails_ci():
    with running(20, Script()) as world:
        suite = world.suite(models=["alpha"])
        common = ("run", str(suite), "--report", "-", "--min-coverage", "0", "--fail-under")
        assert world.say(*common, "alpha/right=0.1").returncode == 0
        missed = world.say(*common, "right=0.99")
        assert missed.returncode == 4
        assert "0.99" in missed.stderr + missed.stdout
