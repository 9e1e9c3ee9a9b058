"""The speed tables of queue and jobs: the order of passes, medians, and what a bound says."""

from __future__ import annotations

import json
from functools import partial

import pytest

from bench.speed import machine
from bench.speed.batch_files import batch_file
from bench.speed.figures import Bound
from bench.speed.queue_tables import both_ways, medians
from bench.speed.sheet import Sheet, verdict

_MOST = Bound("drain, x ideal", 8, 3, at_least=False)
_LEAST = Bound("202s a second", 30, 45)


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
    ("bound", "values", "told"),
    [
        pytest.param(_MOST, [2, 3], "stretch reached", id="stretch in both passes"),
        pytest.param(_MOST, [2, 3.1], "commit reached", id="stretch in one of them"),
        pytest.param(_MOST, [2, 8.1], "NOT REACHED", id="commit in one of them"),
        pytest.param(_LEAST, [46, 45], "stretch reached", id="large enough in both"),
        pytest.param(_LEAST, [46, 31], "commit reached", id="large in one of them"),
        pytest.param(_LEAST, [46, 29], "NOT REACHED", id="too small in one of them"),
    ],
)
def test_the_worse_pass_decides(bound, values, told):
    """A figure that one pass alone has reached is not reached."""
    assert verdict(bound, values) == told


def test_a_missed_bound_is_told_and_a_broken_rule_fails(tmp_path, monkeypatch, capsys):
    """Slow is a finding; lost or wrong is an error. Both are kept."""
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setattr(machine, "FOLDER", tmp_path)
    slow, wrong = Sheet(name="slow"), Sheet(name="wrong")

    slow.bound(Bound("seconds", 1, at_least=False), [2, 3])
    wrong.rule("every call has its own answer", holds=False)

    assert (slow.end(), wrong.end()) == (0, 1)
    assert "2 / 3; commit <= 1, stretch -: NOT REACHED" in capsys.readouterr().out
    kept = {path.stem[:4]: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert kept["slow"]["bounds"][0]["values"] == [2, 3]
    assert kept["wron"]["broken"] == ["every call has its own answer"]


def test_a_batch_file_has_a_line_for_each_question():
    """Numbers and ids count from one, as the check of the answers does."""
    lines = [json.loads(line) for line in batch_file(2).splitlines()]

    assert [line["custom_id"] for line in lines] == ["r1", "r2"]
    assert lines[1]["body"]["messages"][0]["content"] == "question 2"
