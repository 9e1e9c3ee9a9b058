"""Regular expressions and JSON Schemas that a user wrote, run in the keeper: none may hold it up.

Python's own ``re`` has no limit of time, and a pattern such as ``(a+)+$`` needs ages for a short
text. ``regex`` has one, and ``jsonschema`` is made to use it. References that each lead to two
others double the work at every step, so that every keyword of a schema looks at the time as well.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import regex
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from chat.types import JSON

__all__ = [
    "MOST_OBJECTS",
    "TooSlow",
    "check_schema",
    "compile_pattern",
    "schema_fault",
    "search",
]

_Keyword = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]

#: Objects that a JSON Schema may have.
MOST_OBJECTS = 500


class TooSlow(Exception):
    """A pattern or a schema needs more time for this text than it is given."""


@lru_cache(maxsize=256)
def compile_pattern(pattern: str, *, ignore_case: bool = False) -> Any:
    """The compiled pattern. Raises ``ValueError`` that says what is wrong with it."""
    try:
        return regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)
    except (regex.error, RecursionError, OverflowError) as error:
        raise ValueError(f"it is no regular expression: {error}") from error


def search(
    pattern: str, text: str, *, seconds: float, ignore_case: bool = False, full: bool = False
) -> Any:
    """The match of ``pattern`` in ``text``, or ``None``. Raises ``TooSlow``."""
    compiled = compile_pattern(pattern, ignore_case=ignore_case)
    find = compiled.fullmatch if full else compiled.search
    try:
        return find(text, timeout=seconds)
    except TimeoutError as error:
        raise TooSlow(
            f"the pattern {pattern[:60]!r} needs more than {seconds:g} s for this answer"
        ) from error


def check_schema(schema: JSON) -> None:
    """Raise ``ValueError`` if ``schema`` is no JSON Schema, or has a pattern that is none.

    Nor if it is too large: to check one takes about a millisecond for each object in it.
    """
    if sum(1 for _ in _objects(schema)) > MOST_OBJECTS:
        raise ValueError(f"it has more than {MOST_OBJECTS} objects")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"it is no JSON Schema: {error.message}") from error
    for pattern in _patterns(schema):
        compile_pattern(pattern)


def schema_fault(schema: JSON, value: object, *, seconds: float) -> str | None:
    """Why ``schema`` does not allow ``value``; ``None`` if it does.

    A reference leads into the schema itself and nowhere else. Raises ``TooSlow``, and
    ``ValueError`` for a reference that leads nowhere.
    """
    validator = _validator(seconds)(schema, registry=Registry())
    try:
        fault = next(validator.iter_errors(value), None)
    except Unresolvable as error:
        raise ValueError(f"the schema's reference {error.ref[:80]!r} leads nowhere") from error
    if fault is None:
        return None
    where = "/".join(str(step) for step in fault.absolute_path)
    return f"{where or 'the value'}: {fault.message[:200]}"


def _validator(seconds: float) -> Any:
    """A validator that has ``seconds`` for all that its schema says."""
    limit = _Limit(seconds)
    keywords = {
        **Draft202012Validator.VALIDATORS,
        "pattern": limit.pattern,
        "patternProperties": limit.pattern_properties,
        "uniqueItems": _unique_items,
    }
    return extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {name: limit.on(keyword) for name, keyword in keywords.items()}
    )


class _Limit:
    """The time for one value, and the keywords that need to know what is left of it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = time.monotonic() + seconds

    def on(self, keyword: _Keyword) -> _Keyword:
        """The same keyword, as long as there is time."""

        def check(validator: Any, said: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
            self._left()
            yield from keyword(validator, said, value, schema) or ()

        return check

    def pattern(self, _v: Any, pattern: str, value: Any, _s: Any) -> Iterator[ValidationError]:
        if isinstance(value, str) and search(pattern, value, seconds=self._left()) is None:
            yield ValidationError(f"it does not match {pattern!r}")

    def pattern_properties(
        self, validator: Any, patterns: Mapping[str, Any], value: Any, _s: Any
    ) -> Iterator[ValidationError]:
        if not isinstance(value, dict):
            return
        for pattern, below in patterns.items():
            for name, item in value.items():
                if search(pattern, name, seconds=self._left()) is not None:
                    yield from validator.descend(item, below, path=name, schema_path=pattern)

    def _left(self) -> float:
        rest = self._until - time.monotonic()
        if rest <= 0:
            raise TooSlow(f"the schema needs more than {self._seconds:g} s for this answer")
        return rest


def _unique_items(_v: Any, unique: Any, value: Any, _s: Any) -> Iterator[ValidationError]:
    # jsonschema compares each with each.
    if unique and isinstance(value, list) and len(set(map(_canonical, value))) < len(value):
        yield ValidationError("it has the same item twice")


def _canonical(value: object) -> str:
    """A text that two values share if they are equal to JSON Schema: 1 and 1.0, but not true."""

    def plain(part: object) -> object:
        if isinstance(part, float) and part.is_integer():
            return int(part)
        if isinstance(part, list):
            return [plain(one) for one in part]
        if isinstance(part, dict):
            return {name: plain(one) for name, one in part.items()}
        return part

    return json.dumps(plain(value), sort_keys=True)


def _objects(value: object) -> Iterator[JSON]:
    """Every object in a value, itself among them."""
    if isinstance(value, dict):
        yield value
        yield from _objects(list(value.values()))
    elif isinstance(value, list):
        for part in value:
            yield from _objects(part)


def _patterns(schema: object) -> Iterator[str]:
    """Every pattern of a schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        if isinstance(schema.get("patternProperties"), dict):
            yield from schema["patternProperties"]
        yield from _patterns(list(schema.values()))
    elif isinstance(schema, list):
        for part in schema:
            yield from _patterns(part)
