"""docs/evaluations.md says what the code does: its tables and examples are held against it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from api.evaluation_contract import Row
from api.evaluations import EvaluationBody
from api.openapi import OPERATIONS
from chat.batches.batch import Fault
from chat.evaluations.dataset import Dataset, SampleBody
from chat.evaluations.folder import FORMATS
from chat.evaluations.scan import scan
from chat.evaluations.suite import (
    Candidate,
    Contains,
    Exact,
    JsonSchema,
    Judge,
    Numeric,
    Regex,
    Suite,
    read_suite,
)
from chat.formats.validation import validated
from tests.pages import indented, page, table

PAGE = page("docs/evaluations.md")
SCORERS = (Exact, Contains, Regex, JsonSchema, Numeric, Judge)
#: What stands once for several scorers.
SHARED = ("name", "type", "extract")


def rules(model: type[BaseModel], without: tuple[str, ...] = ()) -> list[list[str]]:
    """Key, default and rule of each field, as the tables have them."""
    return [
        [f"`{field.alias or name}`", _default(field), field.description or ""]
        for name, field in model.model_fields.items()
        if name not in without
    ]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True, validated_data={})
    return "" if default is None else f"`{json.dumps(default)}`"


@pytest.mark.parametrize(
    ("column", "model"),
    [
        pytest.param("Key of the suite", Suite, id="suite"),
        pytest.param("Key of a model", Candidate, id="model"),
        pytest.param("Key of a sample", SampleBody, id="sample"),
    ],
)
def test_each_key_has_the_rule_that_it_is_checked_by(column: str, model: type[BaseModel]) -> None:
    """Every key, with its default, and no other."""
    told = table(PAGE, column, "Default", "Rule")

    assert sorted(told) == sorted(rules(model))


def test_each_key_of_a_scorer_has_its_rule() -> None:
    """What all of them have stands there once."""
    of_all = {row[0].strip("`"): row[2] for row in rules(Exact)}
    known = [[f"`{scorer.kind}`", *row] for scorer in SCORERS for row in rules(scorer, SHARED)]
    known.append(["all", "`name`", "the type", of_all["name"]])
    known.append(["all but `judge`", "`extract`", "", of_all["extract"]])

    assert sorted(table(PAGE, "Type", "Key", "Default", "Rule")) == sorted(known)
    assert "extract" not in Judge.model_fields


def test_the_table_of_files_has_every_format() -> None:
    """With the file that it is."""
    rows = table(PAGE, "`format`", "File", "What it is")

    assert {row[0].strip("`"): row[1].strip("`") for row in rows} == FORMATS


def test_the_example_is_a_suite_with_its_dataset(tmp_path: Path) -> None:
    """They can be copied as they stand."""
    suite = read_suite(tomllib.loads(indented(PAGE, 'name = "arithmetic"')))
    (tmp_path / "arithmetic.jsonl").write_text(indented(PAGE, '{"id": "sum"'))
    faults: list[Fault] = []
    dataset = Dataset(tmp_path / "arithmetic.jsonl")
    scanning = scan(
        dataset, suite, faults=faults, most_calls=4, longest_line=1000, max_timeout_s=60
    )
    assert len(list(scanning)) == 2

    assert (faults, len(dataset)) == ([], 2)
    assert suite.dataset == "arithmetic.jsonl"


def test_the_line_of_results_has_the_fields_of_one() -> None:
    """Every field, and no other."""
    line = indented(PAGE, '{"sample"').replace("[…]", "[]")

    assert Row.model_validate_json(line.replace("\n", "")).answer == "42"


def test_every_call_of_an_example_exists() -> None:
    """And every call for evaluations has an example; bodies can be pasted."""
    code = PAGE.replace("eval_01m8k014qmgeaatvf6xvfzqg9e", "{evaluation_id}")
    calls = set()
    for line in re.findall(r"^    curl .*$", code, re.MULTILINE):
        path = re.search(r"http://127\.0\.0\.1:3220(/[\w/{}]+)", line)
        method = re.search(r"-X (\w+)", line)
        posts = method is None and (" -d " in line or " -F " in line)
        assert path is not None
        calls.add(("post" if posts else method[1].lower() if method else "get", path[1]))
    known = {(operation.method, operation.path) for operation in OPERATIONS}
    (body,) = re.findall(r"-d '(\{.*?\})'$", PAGE, re.DOTALL | re.MULTILINE)

    assert calls <= known
    assert {call for call in known if "evaluations" in call[1]} <= calls
    assert validated(EvaluationBody, json.loads(body)).suite.candidates[0].model == "local_fast"


def test_every_link_leads_somewhere() -> None:
    """To a page beside this one, or to a heading of it."""
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        path, _, anchor = link.partition("#")
        text = page(f"docs/{path}") if path else PAGE
        titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)

        assert not anchor or anchor in {title.lower().replace(" ", "-") for title in titles}
