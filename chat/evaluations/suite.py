"""The suite: what an evaluation asks, of whom, and how the answers are scored.

People write it as a TOML file, callers send the same keys as JSON. A field's description is its
rule: the JSON Schema, the OpenAPI document and the error messages are made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, create_model

from chat.errors import InvalidRequest
from chat.evaluations.patterns import MOST_OBJECTS, check_schema, compile_pattern
from chat.formats.chat import Body, ChatBody, ModelName
from chat.formats.shapes import NAMED, WINDOW, without
from chat.formats.strict_json import shown
from chat.formats.validation import inside, validated
from chat.types import JSON

__all__ = [
    "Candidate",
    "Contains",
    "Exact",
    "JsonSchema",
    "Judge",
    "Numeric",
    "Regex",
    "Scorer",
    "Suite",
    "read_suite",
    "suite_schema",
]

T = TypeVar("T", bound=Body)

#: Fields of a chat that a suite may set; the others are the evaluation's own.
_PARAMETERS = (
    "max_tokens",
    "temperature",
    "top_p",
    "seed",
    "stop",
    "format",
    "think",
    "timeout_s",
)
#: Those of them that a judge has another way, and which.
_NO_PARAMETERS_OF_JUDGES = {
    "max_tokens": "set max_tokens of the scorer itself",
    "format": "a verdict has a form of its own, so leave it out",
}
_MOST_MODELS = 32
_MOST_SCORERS = 16
_MOST_REPEATS = 100


def _printable(name: str) -> str:
    if not name.isprintable() or name != name.strip():
        raise ValueError
    return name


def _pattern(text: str) -> str:
    compile_pattern(text)
    return text


def _schema(schema: JSON) -> JSON:
    check_schema(schema)
    return schema


_Printable = Annotated[str, AfterValidator(_printable), Field(json_schema_extra={"pattern": NAMED})]
Label = Annotated[_Printable, StringConstraints(min_length=1, max_length=128)]
Template = Annotated[str, StringConstraints(min_length=1, max_length=100_000)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=2000), AfterValidator(_pattern)]
Choice = Annotated[_Printable, StringConstraints(min_length=1, max_length=64)]
Share = Annotated[float, Field(ge=0, le=1)]

_LABEL = "a string of 1 to 128 printable characters without surrounding spaces"
_PATTERN = "a regular expression of 1 to 2000 characters"
_IGNORE_CASE = "true or false: whether upper and lower case are the same"
_EXTRACT = f"{_PATTERN}: what is scored is its first group, or the whole match, in the answer"

ParametersBody: type[Body] = create_model(
    "ParametersBody",
    __base__=Body,
    __doc__="Fields of ``POST /v1/chat`` that every question of a model gets.",
    **cast(
        "dict[str, Any]",
        {
            name: (field.annotation, field)
            for name, field in ChatBody.model_fields.items()
            if name in _PARAMETERS
        },
    ),
)


class Candidate(Body):
    """A model under test with its settings; what is not set is the suite's."""

    model: ModelName = Field(description=str(ChatBody.model_fields["model"].description))
    name: Label | None = Field(
        None, description=f"{_LABEL}: what results call it, if not by its model"
    )
    system: str | None = Field(None, description="a string: the system message; empty for none")
    prompt: Template | None = Field(None, description="a string of 1 to 100000 characters")
    parameters: ParametersBody | None = Field(
        None, description=f"an object with fields of {', '.join(_PARAMETERS)}"
    )

    @property
    def label(self) -> str:
        """What results call it."""
        return self.name or self.model


class _Scorer(Body):
    """What every scorer has."""

    kind: ClassVar[str]
    name: Label | None = Field(
        None, description=f"{_LABEL}: what results call the score, if not by its type"
    )

    @property
    def label(self) -> str:
        """What results call the score."""
        return self.name or self.kind


class _TextScorer(_Scorer):
    """What scorers have that look at the answer alone."""

    extract: Pattern | None = Field(None, description=_EXTRACT)


class Exact(_TextScorer):
    """The answer is what was expected, but for surrounding white space."""

    kind = "exact"
    type: Literal["exact"] = Field(description='"exact"')
    ignore_case: bool = Field(default=False, description=_IGNORE_CASE)


class Contains(_TextScorer):
    """The answer contains what was expected, or ``value``."""

    kind = "contains"
    type: Literal["contains"] = Field(description='"contains"')
    value: Template | Annotated[list[Template], Field(min_length=1, max_length=100)] | None = Field(
        None, description="a non-empty string or a list of 1 to 100 of them, in place of expected"
    )
    ignore_case: bool = Field(default=False, description=_IGNORE_CASE)
    all: bool = Field(
        default=False, description="true or false: whether all of a list have to be there, or one"
    )


class Regex(_TextScorer):
    """A regular expression matches: ``pattern``, or the one that was expected."""

    kind = "regex"
    type: Literal["regex"] = Field(description='"regex"')
    pattern: Pattern | None = Field(None, description=f"{_PATTERN}, in place of expected")
    ignore_case: bool = Field(default=False, description=_IGNORE_CASE)
    full: bool = Field(
        default=False, description="true or false: whether it has to match all of the answer"
    )


class JsonSchema(_TextScorer):
    """The answer is JSON that a schema allows."""

    kind = "json_schema"
    type: Literal["json_schema"] = Field(description='"json_schema"')
    json_schema: Annotated[dict[str, Any], AfterValidator(_schema)] = Field(
        alias="schema",
        description=f"an object: a JSON Schema (draft 2020-12) of at most {MOST_OBJECTS} objects",
    )


class Numeric(_TextScorer):
    """A number of the answer is the expected one, within a tolerance."""

    kind = "numeric"
    type: Literal["numeric"] = Field(description='"numeric"')
    tolerance: float = Field(0.0, ge=0, description="a number from 0 up: the largest difference")
    relative_tolerance: float = Field(
        0.0, ge=0, description="a number from 0 up: the largest difference per expected 1"
    )
    pick: Literal["last", "first", "whole"] = Field(
        "last", description='which number counts: "last", "first", or "whole" (nothing else there)'
    )


class Judge(_Scorer):
    """A model reads the answer and gives a verdict."""

    kind = "judge"
    type: Literal["judge"] = Field(description='"judge"')
    model: ModelName = Field(description=str(ChatBody.model_fields["model"].description))
    rubric: Template = Field(
        description="a string of 1 to 100000 characters: when an answer deserves which verdict"
    )
    choices: Annotated[dict[Choice, Share], Field(min_length=2, max_length=20)] = Field(
        default_factory=lambda: {"pass": 1.0, "fail": 0.0},
        description="an object of 2 to 20 verdicts, each with its score from 0 to 1",
        json_schema_extra={"additionalProperties": False},
    )
    max_tokens: int = Field(
        256, ge=1, le=32768, description="an integer from 1 to 32768: the longest reply"
    )
    parameters: ParametersBody | None = Field(
        None,
        description="an object with fields of "
        + ", ".join(name for name in _PARAMETERS if name not in _NO_PARAMETERS_OF_JUDGES),
        json_schema_extra=without(*_NO_PARAMETERS_OF_JUDGES),
    )


Scorer = Exact | Contains | Regex | JsonSchema | Numeric | Judge
_SCORERS: Mapping[str, type[Body]] = {
    kind.kind: kind for kind in (Exact, Contains, Regex, JsonSchema, Numeric, Judge)
}
_TYPES = ", ".join(f'"{kind}"' for kind in _SCORERS)


class Suite(Body):
    """What an evaluation asks, of whom, and how the answers are scored."""

    name: Label = Field(description=_LABEL)
    description: Annotated[str, StringConstraints(max_length=4000)] | None = Field(
        None, description="a string of at most 4000 characters"
    )
    dataset: str | None = Field(
        None,
        description="a string: the path of the dataset beside the suite's own file. "
        "`chatd eval run` uploads it; over HTTP it is input_file_id",
    )
    models: Annotated[list[ModelName | Candidate], Field(max_length=_MOST_MODELS)] = Field(
        min_length=1,
        description=f"a list of 1 to {_MOST_MODELS} models: names, or objects with a name in model",
    )
    system: str | None = Field(None, description="a string: the system message of every question")
    prompt: Template | None = Field(
        None,
        description="a string of 1 to 100000 characters: the question, with {{names}} of vars, or "
        "of prompt, id and expected of the sample",
    )
    parameters: ParametersBody | None = Field(
        None, description=f"an object with fields of {', '.join(_PARAMETERS)}"
    )
    repeats: int = Field(
        1,
        ge=1,
        le=_MOST_REPEATS,
        description=f"an integer from 1 to {_MOST_REPEATS}: how often each model is asked each "
        "question",
    )
    scorers: Annotated[
        list[Annotated[Scorer, Discriminator("type")]], Field(max_length=_MOST_SCORERS)
    ] = Field(min_length=1, description=f"a list of 1 to {_MOST_SCORERS} scorers")
    cache: bool = Field(
        default=True,
        description="true or false: whether answers at temperature 0 that are known are reused",
    )
    completion_window: str = Field(
        "24h",
        description='a number of hours or days up to 30 days, such as "24h" or "7d"',
        json_schema_extra={"pattern": WINDOW},
    )

    @property
    def candidates(self) -> list[Candidate]:
        """The models under test, all in one form."""
        return [
            Candidate(model=model) if isinstance(model, str) else model for model in self.models
        ]

    @property
    def judges(self) -> list[tuple[int, Judge]]:
        """The scorers that are judges, with their place among all."""
        return [
            (place, scorer)
            for place, scorer in enumerate(self.scorers)
            if isinstance(scorer, Judge)
        ]

    def to_wire(self) -> JSON:
        """The suite as it was written, without what it left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


def read_suite(value: JSON) -> Suite:
    """The suite that a decoded body or file has.

    Raises ``InvalidRequest`` that names the field, the value, the rule and the way out.
    """
    _check_parts(value, "scorers", _scorer)
    _check_parts(value, "models", _candidate)
    suite = validated(Suite, value)
    _check_labels("models", [candidate.label for candidate in suite.candidates])
    _check_labels("scorers", [scorer.label for scorer in suite.scorers])
    for place, judge in suite.judges:
        for name, instead in _NO_PARAMETERS_OF_JUDGES.items():
            if judge.parameters is not None and name in judge.parameters.model_fields_set:
                where = f"scorers[{place}].parameters.{name}"
                raise InvalidRequest(f"{where} is not for a judge; {instead}", param=where)
        if len(set(judge.choices.values())) == 1:
            raise InvalidRequest(
                f"scorers[{place}].choices has the same score for every verdict; give at least two",
                param=f"scorers[{place}].choices",
            )
    return suite


def suite_schema() -> JSON:
    """The JSON Schema of a suite."""
    schema = Suite.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _check_parts(value: JSON, name: str, check: Any) -> None:
    """Check the parts of a list one by one: a fault is then told by the rules of its own kind."""
    parts = value.get(name)
    for place, part in enumerate(parts if isinstance(parts, list) else ()):
        try:
            check(part)
        except InvalidRequest as error:
            raise inside(f"{name}[{place}]", error) from error


def _scorer(part: object) -> None:
    if not isinstance(part, dict):
        raise InvalidRequest(f"it is {shown(part)}, but must be an object with a type of {_TYPES}")
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _SCORERS:
        found = f"is {shown(kind)}, but" if "type" in part else "is missing; it"
        raise InvalidRequest(f"type {found} must be one of {_TYPES}", param="type")
    validated(_SCORERS[kind], part)


def _candidate(part: object) -> None:
    if isinstance(part, dict):
        validated(Candidate, part)


def _check_labels(name: str, labels: list[str]) -> None:
    seen: set[str] = set()
    for place, label in enumerate(labels):
        if label in seen:
            raise InvalidRequest(
                f"{name}[{place}] is called {shown(label)}, as one before it; give it a name of "
                "its own",
                param=f"{name}[{place}]",
            )
        seen.add(label)
