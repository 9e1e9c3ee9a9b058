"""A request body on its way in: bytes to one JSON object, strictly.

Python's own reader lets through what other JSON readers refuse or read differently: a key given
twice, ``NaN``, a number too large for a double, half of a surrogate pair. Each of these would be
stored, hashed and sent upstream, so each is refused here and named by its place.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from chat.errors import InvalidRequest
from chat.types import JSON

__all__ = ["MAX_DEPTH", "MAX_VALUES", "parse_object", "place", "shown"]

#: Levels of nesting a body may have. JSON Schemas stay far below it.
MAX_DEPTH = 64
#: Values a body may have, those inside of others counted. Ten megabytes of `0,` are five million:
#: as objects of Python they take hundreds of megabytes, and gigabytes once each has a fault.
MAX_VALUES = 100_000

_SHOWN_CHARACTERS = 60
_SHOWN_STEPS = 10


@dataclass(frozen=True, slots=True)
class _Fault:
    """Stands in the parsed value where the text was not acceptable."""

    message: str


def parse_object(raw: bytes) -> JSON:
    """The JSON object that ``raw`` holds.

    Raises ``InvalidRequest`` that says what is wrong and where: by line and column when the text
    is not JSON, by the path of the value when it is JSON that cannot be passed on.
    """
    if not raw or raw.isspace():
        raise InvalidRequest('the body is empty; send a JSON object such as {"model": "…", …}')
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"the body is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}; "
            "encode the JSON as UTF-8"
        ) from error
    if text.startswith("\ufeff"):
        raise InvalidRequest("the body begins with a byte order mark; send it without one")
    if _too_many(text):
        raise InvalidRequest(
            f"the body holds more than {MAX_VALUES} values; send it in several requests"
        )
    value = _decode(text)
    found = _first_fault(value, MAX_DEPTH)
    if found is not None:
        message, reversed_path = found
        path = place(list(reversed(reversed_path))[:_SHOWN_STEPS])
        raise InvalidRequest(f"{path or 'the body'}: {message}", param=path or None)
    if not isinstance(value, dict):
        raise InvalidRequest(f"the body is {shown(value)}, but must be a JSON object")
    return value


def place(path: list[str | int]) -> str:
    """A path as a person writes it: ``messages[1].role``, ``format["a b"]``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.isidentifier() and len(step) <= _SHOWN_CHARACTERS:
            text += f".{step}" if text else step
        else:
            text += f"[{shown(step)}]"
    return text


def shown(value: object) -> str:
    """A value for an error message: short, on one line, with nothing unprintable in it."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object with {len(value)} fields" if value else "an empty object"
    if isinstance(value, str):
        cut = value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…"
        return f'"{"".join(_printable(character) for character in cut)}"'
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


#: A string, which may be cut off. Never given back, so that no text takes long.
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_WHITE_SPACE = dict.fromkeys(map(ord, " \t\n\r"))


def _too_many(text: str) -> bool:
    """Whether a JSON text has more than ``MAX_VALUES`` values; asked before any of them is made."""
    # Most of these may stand in strings.
    return 1 + sum(map(text.count, ",[{")) > MAX_VALUES and _count(text) > MAX_VALUES


def _count(text: str) -> int:
    """How many values a JSON text has."""
    bare = _STRING.sub("0", text).translate(_WHITE_SPACE)
    return 1 + sum(map(bare.count, ",[{")) - bare.count("[]") - bare.count("{}")


def _decode(text: str) -> object:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        _not_json(error)
    except RecursionError as error:
        raise InvalidRequest(
            f"the body is nested too deeply; at most {MAX_DEPTH} levels are accepted"
        ) from error
    except ValueError as error:
        # Python refuses to convert integers of more than some thousand digits.
        raise InvalidRequest(
            "the body holds a number with thousands of digits; no field takes such a number"
        ) from error


def _not_json(error: json.JSONDecodeError) -> NoReturn:
    raise InvalidRequest(
        f"the body is not JSON: {error.msg.removesuffix(' at')} "
        f"at line {error.lineno}, column {error.colno}"
    ) from error


def _object(pairs: list[tuple[str, Any]]) -> JSON:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                value[key] = _Fault("this key stands twice in its object; keep one of them")
            seen.add(key)
    return value


def _constant(name: str) -> _Fault:
    return _Fault(f"{name} is not JSON; send a number or leave the field out")


def _float(text: str) -> float | _Fault:
    number = float(text)
    if math.isfinite(number):
        return number
    return _Fault(f"the number {text[:_SHOWN_CHARACTERS]} is too large for a double")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)


def _first_fault(value: object, levels: int) -> tuple[str, list[str | int]] | None:
    """What is wrong with ``value`` or in it, and the path to that, innermost step first."""
    if isinstance(value, str) and not _encodable(value):
        return _SURROGATE, []
    if isinstance(value, _Fault):
        return value.message, []
    if isinstance(value, (dict, list)):
        if levels == 0:
            return f"nested too deeply; at most {MAX_DEPTH} levels are accepted", []
        return _first_fault_inside(value, levels - 1)
    return None


def _first_fault_inside(
    value: dict[str, Any] | list[Any], levels: int
) -> tuple[str, list[str | int]] | None:
    steps = value.items() if isinstance(value, dict) else enumerate(value)
    for step, item in steps:
        if isinstance(step, str) and not _encodable(step):
            return f"the key {shown(step)}: {_SURROGATE}", []
        found = _first_fault(item, levels)
        if found is not None:
            found[1].append(step)
            return found
    return None


_SURROGATE = "half of a surrogate pair is not a character; send both halves or the character itself"


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
