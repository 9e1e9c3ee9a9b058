"""What a suite and a dataset may say, and why something is refused: ``chat.evaluations.suite``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chat.batches.batch import Fault
from chat.errors import InvalidRequest
from chat.evaluations.dataset import Dataset, parse_sample, question
from chat.evaluations.scan import scan
from chat.evaluations.suite import read_suite, suite_schema
from tests.evaluations import a_suite

JUDGE = {"type": "judge", "model": "m", "rubric": "r"}


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"name": ""}, "name", "1 to 128"),
        ({"models": []}, "models", "1 to 32 models"),
        ({"models": ["a", "a"]}, "models[1]", "a name of its own"),
        ({"models": [{"model": "a", "nmae": "b"}]}, "models[0].nmae", '"name"'),
        ({"models": [{"name": "b"}]}, "models[0].model", "is missing"),
        (
            {"models": [{"model": "a", "parameters": {"tempreature": 1}}]},
            "models[0].parameters.tempreature",
            '"temperature"',
        ),
        ({"models": [3]}, "models[0]", "must be"),
        ({"parameters": {"temperature": 3}}, "parameters.temperature", "from 0 to 2"),
        ({"parameters": {"tools": []}}, "parameters.tools", "not a known field"),
        ({"repeats": 0}, "repeats", "from 1 to 100"),
        ({"scorers": []}, "scorers", "1 to 16 scorers"),
        ({"scorers": [{"type": "exakt"}]}, "scorers[0].type", '"exact"'),
        ({"scorers": [{}]}, "scorers[0].type", "is missing"),
        ({"scorers": ["exact"]}, "scorers[0]", "must be an object"),
        ({"scorers": [{"type": "exact"}, {"type": "exact"}]}, "scorers[1]", "a name of its own"),
        ({"scorers": [{"type": "exact", "pattern": "a"}]}, "scorers[0].pattern", "not a known"),
        ({"scorers": [{"type": "regex", "pattern": "("}]}, "scorers[0].pattern", "regular"),
        ({"scorers": [{"type": "json_schema"}]}, "scorers[0].schema", "is missing"),
        (
            {"scorers": [{"type": "json_schema", "schema": {"anyOf": [{}] * 500}}]},
            "scorers[0].schema",
            "at most 500 objects",
        ),
        (
            {"scorers": [{"type": "json_schema", "schema": {"type": "x"}}]},
            "scorers[0].schema",
            "JSON Schema",
        ),
        ({"scorers": [{"type": "numeric", "tolerance": -1}]}, "scorers[0].tolerance", "from 0 up"),
        ({"scorers": [{"type": "judge", "model": "m"}]}, "scorers[0].rubric", "is missing"),
        ({"scorers": [{**JUDGE, "choices": {"yes": 1}}]}, "scorers[0].choices", "2 to 20"),
        ({"scorers": [{**JUDGE, "choices": {"a": 2, "b": 0}}]}, "scorers[0].choices.a", "0 to 1"),
        ({"scorers": [{**JUDGE, "choices": {"a": 1, "b": 1}}]}, "scorers[0].choices", "same score"),
        (
            {"scorers": [{**JUDGE, "parameters": {"max_tokens": 9}}]},
            "scorers[0].parameters.max_tokens",
            "the scorer itself",
        ),
        (
            {"scorers": [{**JUDGE, "parameters": {"format": "json"}}]},
            "scorers[0].parameters.format",
            "leave it out",
        ),
        ({"prompts": "x"}, "prompts", '"prompt"'),
    ],
)
def test_what_is_wrong_with_a_suite_is_named(changes, param, words):
    with pytest.raises(InvalidRequest) as caught:
        read_suite(a_suite(**changes))
    assert caught.value.param == param
    assert words in caught.value.message


def test_a_suite_is_kept_as_it_was_written():
    value = a_suite(
        models=["a", {"model": "b", "system": ""}],
        scorers=[{"type": "json_schema", "schema": {"type": "object"}}, JUDGE],
    )
    assert read_suite(value).to_wire() == value


def test_the_schema_allows_what_is_accepted():
    """The served JSON Schema, by a validator of its own."""
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(suite_schema())
    every = [
        {"type": "exact"},
        {"type": "contains", "value": ["a"]},
        {"type": "regex", "pattern": "a"},
        {"type": "json_schema", "schema": {}},
        {"type": "numeric"},
        JUDGE,
    ]
    suite = a_suite(models=["a", {"model": "b", "parameters": {"seed": 1}}], scorers=every)
    read_suite(suite)
    validator.validate(suite)
    assert not validator.is_valid(a_suite(scorers=[{"type": "exakt"}]))
    assert not validator.is_valid({**suite, "prompts": "x"})


def faults_of(tmp_path: Path, suite: dict[str, Any], *lines: Any, **limits: int) -> list[Fault]:
    """What is wrong with a dataset of these lines."""
    path = tmp_path / "dataset.jsonl"
    path.write_bytes(
        b"".join(
            (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n"
            for line in lines
        )
    )
    faults: list[Fault] = []
    given = {"most_calls": 100, "longest_line": 10_000, "max_timeout_s": 60, **limits}
    for _ in scan(Dataset(path), read_suite(suite), faults=faults, **given):
        pass
    return faults


@pytest.mark.parametrize(
    ("suite", "sample", "param", "words"),
    [
        ({}, {"prompt": "x", "expected": 1}, "id", "is missing"),
        ({}, {"id": 7, "prompt": "x", "expected": 1}, "id", "a string"),
        ({}, {"id": "a", "expected": 1}, "prompt", "both missing"),
        (
            {},
            {"id": "a", "prompt": "x", "messages": [{"role": "user", "content": "y"}]},
            "messages",
            "beside prompt",
        ),
        (
            {"prompt": "{{x}}"},
            {"id": "a", "messages": [{"role": "user", "content": "y"}]},
            "messages",
            "suite's prompt",
        ),
        ({"prompt": "{{x}}"}, {"id": "a", "expected": 1}, "vars.x", "no such value"),
        ({"system": "{{x}}"}, {"id": "a", "prompt": "p", "expected": 1}, "vars.x", "no such value"),
        (
            {"scorers": [{**JUDGE, "rubric": "{{x}}"}]},
            {"id": "a", "prompt": "p"},
            "scorers[0]",
            "no such value",
        ),
        ({}, {"id": "a", "prompt": "x"}, "expected", "needs a number"),
        (
            {},
            {"id": "a", "messages": [{"role": "tool", "content": "y"}], "expected": 1},
            "messages[0].tool_call_id",
            "missing",
        ),
        ({}, {"id": "a", "prompt": "x", "expeted": 1}, "expeted", '"expected"'),
        (
            {},
            {"id": "a", "prompt": "x", "vars": {"a": [1]}, "expected": 1},
            "vars.a",
            "an object of strings",
        ),
        (
            {"parameters": {"timeout_s": 100}},
            {"id": "a", "prompt": "x", "expected": 1},
            "timeout_s",
            "at most 60",
        ),
        (
            {"scorers": [{**JUDGE, "parameters": {"timeout_s": 100}}]},
            {"id": "a", "prompt": "x"},
            "scorers[0]",
            "at most 60",
        ),
    ],
)
def test_what_is_wrong_with_a_sample_is_named(tmp_path, suite, sample, param, words):
    (fault,) = faults_of(tmp_path, a_suite(**suite), sample)
    assert (fault.line, fault.param) == (1, param)
    assert words in fault.message


def test_what_is_wrong_with_a_file_is_named(tmp_path):
    good = {"id": "a", "prompt": "x", "expected": 1}
    assert faults_of(tmp_path, a_suite(), good, b"") == []
    assert [fault.code for fault in faults_of(tmp_path, a_suite(), b"", b" ")] == ["empty_file"]
    assert [fault.line for fault in faults_of(tmp_path, a_suite(), b"", good, good)] == [3]
    (long,) = faults_of(tmp_path, a_suite(), good, longest_line=10)
    assert (long.code, long.line) == ("too_large", 1)
    twice = {**good, "id": "b"}
    (many,) = faults_of(tmp_path, a_suite(repeats=3), good, twice, most_calls=5)
    assert (many.code, many.line) == ("too_many_calls", None)
    (latin,) = faults_of(tmp_path, a_suite(), b'{"id": "\xe9"}')
    assert "not UTF-8" in latin.message
    assert len(faults_of(tmp_path, a_suite(), *[b"{"] * 200)) == 100


def test_a_template_that_explodes_is_refused_before_it_is_made(tmp_path):
    sample = {"id": "a", "vars": {"x": "y" * 9000}, "expected": 1}
    (fault,) = faults_of(tmp_path, a_suite(prompt="{{x}}" * 20_000), sample)
    assert (fault.param, "180100000" in fault.message) == ("vars", True)


def asked(suite: dict[str, Any], sample: dict[str, Any]) -> list[str]:
    read = read_suite(a_suite(**suite))
    parsed = parse_sample(1, json.dumps({"id": "q", **sample}).encode())
    return [message["content"] for message in question(read, read.candidates[0], parsed)]


@pytest.mark.parametrize(
    ("suite", "sample", "messages"),
    [
        ({}, {"prompt": "{{x}}"}, ["{{x}}"]),
        ({}, {"prompt": "{{ x }}!", "vars": {"x": "{{y}}", "y": "no"}}, ["{{y}}!"]),
        (
            {"prompt": "{{prompt}} {{id}} {{expected}} {{n}} {{yes}}"},
            {"prompt": "p", "expected": [1], "vars": {"n": 1.5, "yes": True}},
            ["p q [1] 1.5 true"],
        ),
        ({"system": "{{x}}"}, {"prompt": "p", "vars": {"x": "s"}}, ["s", "p"]),
        (
            {
                "models": [{"model": "m", "system": "mine", "prompt": "other"}],
                "system": "s",
                "prompt": "p",
            },
            {},
            ["mine", "other"],
        ),
        ({"models": [{"model": "m", "system": ""}], "system": "s"}, {"prompt": "p"}, ["p"]),
        (
            {"system": "s"},
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            ["s", "a", "b"],
        ),
        ({}, {"messages": [{"role": "user", "content": "{{x}}"}], "vars": {"x": "v"}}, ["v"]),
    ],
)
def test_how_a_question_is_made(suite, sample, messages):
    assert asked(suite, sample) == messages
