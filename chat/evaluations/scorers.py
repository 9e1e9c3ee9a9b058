"""Scores that need no model: pure functions of an answer and what was expected.

A wrong answer is 0, whatever it looks like: one without a number has not said the number, one that
is no JSON has not kept to the schema. Only a pattern that takes too long leaves a score open.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from chat.errors import InvalidRequest
from chat.evaluations.patterns import TooSlow, compile_pattern, schema_fault, search
from chat.evaluations.suite import Contains, Exact, JsonSchema, Numeric, Regex
from chat.formats.strict_json import shown

__all__ = ["Score", "TextScorer", "check_expected", "score", "unfenced"]

TextScorer = Exact | Contains | Regex | JsonSchema | Numeric

#: A number as people and models write it: 1,234.5 or -3 or .5 or 1e-3, with a minus of their own
#: and the narrow spaces that typographers put between thousands.
_DIGITS = "(?:[0-9]{1,3}(?:[,\u00a0\u2009\u202f][0-9]{3})+(?![0-9])|[0-9]+)"
_SIZE = rf"(?:{_DIGITS}(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]{{1,3}})?"
_NUMBER = rf"(?:(?<![0-9.])[-+\u2212])?{_SIZE}"
_WHOLE = rf"([-+\u2212]?)\s*[$\u20ac\u00a3]?\s*({_SIZE})\s*%?\.?"
#: Characters of an answer in which numbers are looked for; the rest of a longer one is left out.
_LOOKED_AT = 200_000
_LONGEST_NUMBER = 100


@dataclass(frozen=True, slots=True)
class Score:
    """What one scorer says of one answer.

    ``status`` is ``scored`` with a ``score`` from 0 to 1, ``unparsable`` or ``errored`` without
    one; ``code`` is that of an error. ``reason`` is for people.
    """

    status: str
    score: float | None
    reason: str | None = None
    code: str | None = None


def score(scorer: TextScorer, answer: str, expected: object, *, seconds: float = 1.0) -> Score:
    """What ``scorer`` says of ``answer``; patterns have ``seconds`` in all."""
    try:
        text = answer
        if scorer.extract is not None:
            found = search(scorer.extract, answer, seconds=seconds)
            if found is None:
                return _wrong("extract finds nothing in the answer")
            text = (found[1] if found.re.groups else found[0]) or ""
        return _scored(scorer, text, expected, seconds)
    except TooSlow as error:
        return Score("unparsable", None, str(error))


def _scored(scorer: TextScorer, text: str, expected: object, seconds: float) -> Score:
    match scorer:
        case Exact():
            return _exact(scorer, text, expected)
        case Contains():
            return _contains(scorer, text, expected)
        case Regex():
            return _regex(scorer, text, expected, seconds)
        case JsonSchema():
            return _json_schema(scorer, text, seconds)
        case Numeric():
            return _numeric(scorer, text, expected)


def check_expected(scorer: TextScorer, expected: object) -> None:
    """That a sample's ``expected`` can serve a scorer. Raises ``InvalidRequest``."""
    match scorer:
        case Exact():
            fault = None if expected is not None else "anything but null"
        case Contains(value=None):
            texts = expected if isinstance(expected, list) else [expected]
            good = bool(texts) and all(_is_text(text) and _text(text) for text in texts)
            fault = None if good else "a non-empty string or a list of them"
        case Regex(pattern=None):
            fault = None if _is_pattern(expected) else "a regular expression"
        case Numeric():
            fault = None if _number(expected) is not None else "a number, or a text that is one"
        case _:
            fault = None
    if fault is not None:
        raise InvalidRequest(
            f"expected is {shown(expected)}, but the scorer {shown(scorer.label)} "
            f"({scorer.type}) needs {fault}; add it to the sample or drop the scorer",
            param="expected",
        )


def unfenced(text: str) -> str:
    """What stands in a text's one code fence, if it has one around it all; else the text."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        first, _, rest = text.partition("\n")
        if first.strip("`").strip().lower() in ("", "json"):
            return rest[:-3].strip()
    return text


def _right() -> Score:
    return Score("scored", 1.0)


def _wrong(reason: str) -> Score:
    return Score("scored", 0.0, reason)


def _is_text(value: object) -> bool:
    return isinstance(value, str | int | float)


def _text(value: object) -> str:
    """A JSON value as an answer would write it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_pattern(value: object) -> bool:
    if not isinstance(value, str) or not value:
        return False
    try:
        compile_pattern(value)
    except ValueError:
        return False
    return True


def _exact(scorer: Exact, text: str, expected: object) -> Score:
    """A list means any of it; an object is compared as JSON."""

    def same(one: str, other: str) -> bool:
        one, other = one.strip(), other.strip()
        return one.casefold() == other.casefold() if scorer.ignore_case else one == other

    wanted = expected if isinstance(expected, list) else [expected]
    for value in wanted:
        if isinstance(value, dict | list):
            if _loads(text) == value:
                return _right()
        elif same(text, _text(value)):
            return _right()
    return _wrong("it is not what was expected")


def _contains(scorer: Contains, text: str, expected: object) -> Score:
    given = expected if scorer.value is None else scorer.value
    wanted = [_text(value) for value in (given if isinstance(given, list) else [given])]
    if scorer.ignore_case:
        text, folded = text.casefold(), [value.casefold() for value in wanted]
    else:
        folded = wanted
    missing = [value for value, look in zip(wanted, folded, strict=True) if look not in text]
    if not missing or (not scorer.all and len(missing) < len(wanted)):
        return _right()
    return _wrong(f"it does not contain {shown(missing[0])}")


def _regex(scorer: Regex, text: str, expected: object, seconds: float) -> Score:
    pattern = scorer.pattern if scorer.pattern is not None else str(expected)
    found = search(pattern, text, seconds=seconds, ignore_case=scorer.ignore_case, full=scorer.full)
    return _wrong("the pattern does not match") if found is None else _right()


def _json_schema(scorer: JsonSchema, text: str, seconds: float) -> Score:
    value = _loads(unfenced(text))
    if value is _NO_JSON:
        return _wrong("it is not JSON")
    try:
        fault = schema_fault(scorer.json_schema, value, seconds=seconds)
    except RecursionError:
        return _wrong("it is nested too deeply")
    except ValueError as error:
        return Score("unparsable", None, str(error))
    return _right() if fault is None else _wrong(fault)


_NO_JSON = object()


def _loads(text: str) -> Any:
    """The JSON value of a text, or ``_NO_JSON``."""

    def refuse(name: str) -> float:
        raise ValueError(name)

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return _NO_JSON


def _numeric(scorer: Numeric, text: str, expected: object) -> Score:
    wanted = _number(expected)
    assert wanted is not None  # noqa: S101 - the dataset was checked
    if scorer.pick == "whole":
        found = _number(text)
    else:
        numbers = _numbers(text[-_LOOKED_AT:] if scorer.pick == "last" else text[:_LOOKED_AT])
        found = None if not numbers else numbers[-1 if scorer.pick == "last" else 0]
    if found is None:
        return _wrong("it has no number")
    most = max(scorer.tolerance, scorer.relative_tolerance * abs(wanted))
    # A tolerance of 0.1 means that 0.3 is near enough to 0.2, which the last bit may deny.
    if abs(found - wanted) <= most or math.isclose(abs(found - wanted), most, rel_tol=1e-9):
        return _right()
    return _wrong(f"it says {found:g}")


def _numbers(text: str) -> list[float]:
    """The numbers of a text, in its order."""
    numbers = (_float(found) for found in compile_pattern(_NUMBER).findall(text))
    return [number for number in numbers if number is not None]


def _number(value: object) -> float | None:
    """The number that a value is, or that is all of its text."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return _float(repr(value))
    if not isinstance(value, str) or len(value) > _LONGEST_NUMBER:
        return None
    found = compile_pattern(_WHOLE).fullmatch(value.strip())
    return None if found is None else _float(found[1] + found[2])


_PLAIN = str.maketrans({"\u2212": "-", **dict.fromkeys(",\u00a0\u2009\u202f")})


def _float(text: str) -> float | None:
    """A written number; ``None`` for one that no double holds, and for what has no digit."""
    plain = text.translate(_PLAIN)
    try:
        number = float(plain)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
