"""Scores that need no model: ``chat.evaluations.scorers`` and ``chat.evaluations.patterns``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chat.errors import InvalidRequest
from chat.evaluations.patterns import check_schema, compile_pattern
from chat.evaluations.scorers import check_expected, score
from chat.evaluations.suite import read_suite


def a_scorer(**fields: Any) -> Any:
    suite = read_suite({"name": "s", "models": ["m"], "scorers": [fields]})
    return suite.scorers[0]


def points(scorer: dict[str, Any], answer: str, expected: object = None) -> float | None:
    return score(a_scorer(**scorer), answer, expected).score


@pytest.mark.parametrize(
    ("scorer", "answer", "expected", "points_"),
    [
        ({"type": "exact"}, " Paris\n", "Paris", 1),
        ({"type": "exact"}, "paris", "Paris", 0),
        ({"type": "exact", "ignore_case": True}, "PARIS", "paris", 1),
        ({"type": "exact"}, "Rome", ["Paris", "Rome"], 1),
        ({"type": "exact"}, "4", 4, 1),
        ({"type": "exact"}, "true", True, 1),
        ({"type": "exact"}, '{"b": 1, "a": [2]}', {"a": [2], "b": 1}, 1),
        ({"type": "exact"}, "[" * 100_000, {"a": 1}, 0),
        ({"type": "exact", "extract": "ANSWER: (.*)"}, "so\nANSWER: Rome", "Rome", 1),
        ({"type": "exact", "extract": "[A-Z][a-z]+"}, "it is Rome!", "Rome", 1),
        ({"type": "exact", "extract": "ANSWER: (.*)"}, "Rome", "Rome", 0),
        ({"type": "contains"}, "It is Paris.", "Paris", 1),
        ({"type": "contains"}, "It is paris.", "Paris", 0),
        ({"type": "contains", "ignore_case": True}, "It is paris.", "Paris", 1),
        ({"type": "contains"}, "b", ["a", "b"], 1),
        ({"type": "contains", "all": True}, "b", ["a", "b"], 0),
        ({"type": "contains", "value": ["x", "y"], "all": True}, "y x", "z", 1),
        ({"type": "regex", "pattern": "^a+$"}, "aaa", None, 1),
        ({"type": "regex", "pattern": "b"}, "aaa", None, 0),
        ({"type": "regex", "pattern": "a", "full": True}, "aa", None, 0),
        ({"type": "regex", "ignore_case": True}, "YES", "yes|no", 1),
        ({"type": "numeric"}, "first 3, then 4", 4, 1),
        ({"type": "numeric", "pick": "first"}, "first 3, then 4", 3, 1),
        ({"type": "numeric", "pick": "whole"}, "4.", 4, 1),
        ({"type": "numeric", "pick": "whole"}, "it is 4", 4, 0),
        ({"type": "numeric", "pick": "whole"}, "$1,234.50", 1234.5, 1),
        ({"type": "numeric"}, "about 1,234,567.5 of them", 1234567.5, 1),
        ({"type": "numeric"}, "it was \u22123", -3, 1),
        ({"type": "numeric"}, "10-3", 3, 1),
        ({"type": "numeric"}, "50 %", 50, 1),
        ({"type": "numeric"}, ".5", "0.5", 1),
        ({"type": "numeric"}, "1e-3", 0.001, 1),
        ({"type": "numeric"}, "12\u202f345", 12345, 1),
        ({"type": "numeric"}, "none", 1, 0),
        ({"type": "numeric"}, "1e999 " + "9" * 5000, 1, 0),
        ({"type": "numeric", "tolerance": 0.1}, "0.3", 0.2, 1),
        ({"type": "numeric", "tolerance": 0.1}, "0.31", 0.2, 0),
        ({"type": "numeric", "relative_tolerance": 0.01}, "101", 100, 1),
        ({"type": "json_schema", "schema": {"required": ["a"]}}, '{"a": 1}', None, 1),
        ({"type": "json_schema", "schema": {"required": ["a"]}}, '```json\n{"a": 1}\n```', None, 1),
        ({"type": "json_schema", "schema": {"required": ["a"]}}, '{"b": 1}', None, 0),
        ({"type": "json_schema", "schema": {}}, "Sure! {}", None, 0),
        ({"type": "json_schema", "schema": {}}, "NaN", None, 0),
        ({"type": "json_schema", "schema": {"pattern": "^a"}}, '"b"', None, 0),
        ({"type": "json_schema", "schema": {"patternProperties": {"^n": {"type": "number"}}}},
         '{"n1": "x"}', None, 0),
        ({"type": "json_schema", "schema": {"$ref": "#/$defs/a", "$defs": {"a": {"const": 1}}}},
         "1", None, 1),
        ({"type": "json_schema", "schema": {"items": {"$ref": "#"}}},
         "[" * 900 + "]" * 900, None, 0),
    ],
)  # fmt: skip
def test_points(scorer, answer, expected, points_):
    check_expected(a_scorer(**scorer), expected)
    assert points(scorer, answer, expected) == points_


@pytest.mark.parametrize(
    "scorer",
    [
        {"type": "regex", "pattern": "(a+)+$"},
        {"type": "exact", "extract": "(a+)+$"},
        {"type": "json_schema", "schema": {"pattern": "(a|aa)+$"}},
        {"type": "json_schema", "schema": {"patternProperties": {"(a|aa)+$": {}}}},
    ],
    ids=["regex", "extract", "pattern", "names"],
)
def test_a_pattern_that_needs_ages_leaves_the_score_open(scorer):
    """Nobody can say whether it matches; the keeper has other work."""
    text = "a" * 5000 + "!"
    answer = f'{{"{text}": 1}}' if "patternProperties" in str(scorer) else text
    if scorer.get("schema", {}).get("pattern"):
        answer = f'"{text}"'
    found = score(a_scorer(**scorer), answer, "x", seconds=0.05)
    assert (found.status, found.score) == ("unparsable", None)
    assert "needs more than" in str(found.reason)


def doubling(steps):
    """Each step of it is taken twice."""
    twice = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n - 1}"}] * 2} for n in range(1, steps)}
    return {"$ref": f"#/$defs/d{steps - 1}", "$defs": {**twice, "d0": {"type": "string"}}}


def test_a_schema_that_needs_ages_leaves_the_score_open():
    """Sixty-four steps would outlast everything; the keeper has other things to do."""
    scorer = {"type": "json_schema", "schema": doubling(64)}
    found = score(a_scorer(**scorer), "[1]", None, seconds=0.05)

    assert (found.status, found.score) == ("unparsable", None)
    assert "the schema needs more than 0.05 s" in str(found.reason)


@pytest.mark.parametrize(
    ("items", "points"),
    [
        ([{"a": n} for n in range(20_000)], 1),
        ([{"a": 1, "b": 2}, {"b": 2.0, "a": 1}], 0),
        ([1, 1.0], 0),
        ([1, True, "1", [1], None], 1),
        ([0, False], 1),
        ([[1, {"a": [2]}], [1, {"a": [2.0]}]], 0),
        ([], 1),
    ],
)
def test_items_are_unique_as_json_schema_has_it(items, points):
    """However many there are: each is not compared with each."""
    scorer = {"type": "json_schema", "schema": {"uniqueItems": True}}

    assert score(a_scorer(**scorer), json.dumps(items), None, seconds=5).score == points


def test_a_reference_to_elsewhere_is_not_followed():
    scorer = {"type": "json_schema", "schema": {"$ref": "http://127.0.0.1:1/x"}}
    found = score(a_scorer(**scorer), "1", None)
    assert (found.status, found.score) == ("unparsable", None)
    assert "leads nowhere" in str(found.reason)


@pytest.mark.parametrize(
    ("scorer", "expected"),
    [
        ({"type": "exact"}, None),
        ({"type": "contains"}, None),
        ({"type": "contains"}, []),
        ({"type": "contains"}, ""),
        ({"type": "contains"}, {"a": 1}),
        ({"type": "regex"}, "("),
        ({"type": "regex"}, 3),
        ({"type": "numeric"}, "three"),
        ({"type": "numeric"}, True),
        ({"type": "numeric"}, None),
    ],
)
def test_a_sample_that_cannot_be_scored_is_refused(scorer, expected):
    with pytest.raises(InvalidRequest, match=f"\\({scorer['type']}\\) needs") as caught:
        check_expected(a_scorer(**scorer), expected)
    assert caught.value.param == "expected"


def test_patterns_and_schemas_are_checked_when_they_are_read():
    with pytest.raises(ValueError, match="no regular expression"):
        compile_pattern("(")
    for schema in ({"type": "strange"}, {"properties": {"a": {"pattern": "("}}}):
        with pytest.raises(ValueError, match="it is no"):
            check_schema(schema)
