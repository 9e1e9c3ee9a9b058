"""The speed tables of queue and jobs: the order of passes, medians, and what a bound says."""

from __future__ import annotations

import json
from functools import partial

import pytest

from bench.speed import sheet
from bench.speed.batch_files import batch_file
from bench.speed.queue_tables import both_ways, medians
from bench.speed.sheet import Bound, Sheet


def test_the_second_pass_goes_the_other_way():
    """What drifts in the meantime hits each measure once early and once late."""
    order: list[str] = []

    def measured(name: str) -> int:
        order.append(name)
        return len(order)

    found = both_ways({name: partial(measured, name) for name in "abc"})

    assert "".join(order) == "abccba"
    assert found == {"a": [[1], [6]], "b": [[2], [5]], "c": [[3], [4]]}


def test_a_pass_is_as_good_as_its_median():
    """One run in which the machine did something else does not decide."""
    assert medians([[1, 100, 2], [3, 4, 5]], float) == [2, 4]


@pytest.mark.parametrize(
    ("bound", "values", "reached"),
    [
        pytest.param(Bound("x", 8, 3), [2, 3], (True, True), id="stretch in both passes"),
        pytest.param(Bound("x", 8, 3), [2, 3.1], (True, False), id="the worse pass decides"),
        pytest.param(Bound("x", 8, 3), [2, 8.1], (False, False), id="not even commit"),
        pytest.param(Bound("x", 8), [8, 8], (True, True), id="one bound alone"),
        pytest.param(Bound("x", 30, 45, at_least=True), [46, 31], (True, False), id="at least"),
        pytest.param(Bound("x", 30, 45, at_least=True), [46, 29], (False, False), id="too small"),
    ],
)
def test_a_bound_holds_the_worse_pass(bound, values, reached):
    """A figure that one pass alone has reached is not reached."""
    assert bound.reached(values) == reached
    assert ("NOT" in bound.told(values)) is not reached[0]


def test_a_missed_bound_is_told_and_a_broken_rule_fails(tmp_path, monkeypatch):
    """Slow is a finding; lost or wrong is an error."""
    monkeypatch.setattr(sheet, "_FOLDER", tmp_path)
    slow, wrong = Sheet(name="slow"), Sheet(name="wrong")

    slow.bound(Bound("seconds", 1), [2, 3])
    wrong.rule("every call has its own answer", holds=False)

    assert (slow.end(), wrong.end()) == (0, 1)
    (kept,) = [json.loads(path.read_text()) for path in tmp_path.glob("slow-*.json")]
    assert kept["bounds"] == [
        {"name": "seconds", "values": [2, 3], "commit": False, "stretch": False}
    ]


def test_a_batch_file_has_a_line_for_each_question():
    """Numbers and ids count from one, as the check of the answers does."""
    lines = [json.loads(line) for line in batch_file(2).splitlines()]

    assert [line["custom_id"] for line in lines] == ["r1", "r2"]
    assert lines[1]["body"]["messages"][0]["content"] == "question 2"
