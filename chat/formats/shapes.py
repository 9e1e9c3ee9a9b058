"""What the schemas of requests say beyond a field's own type: patterns, and what goes together.

Pydantic does not check these: the readers do, with messages of their own. They stand in the OpenAPI
document, so that a caller can know beforehand what will be refused. The patterns keep to what
JavaScript, Python and Rust understand alike.
"""

from __future__ import annotations

from typing import Any

from chat.types import JSON

__all__ = [
    "BASE64",
    "COMPLETION_MESSAGE",
    "IMAGE_URL",
    "MESSAGE",
    "NAMED",
    "PART",
    "RESPONSE_FORMAT",
    "STREAMED",
    "WINDOW",
    "without",
]

#: No blank at an end, no white space inside but blanks, no control character. Further characters
#: that cannot be printed are refused as well: which those are is in Unicode's tables.
_SOLID = r"[^\s\u0000-\u001f\u007f-\u009f]"
NAMED = rf"^{_SOLID}+( +{_SOLID}+)*$"

_SIX_BITS = "[A-Za-z0-9+/]"
_BASE64 = f"({_SIX_BITS}{{4}})*({_SIX_BITS}{{4}}|{_SIX_BITS}{{3}}=|{_SIX_BITS}{{2}}==)"
BASE64 = f"^{_BASE64}$"
IMAGE_URL = f"^[Dd][Aa][Tt][Aa]:[Ii][Mm][Aa][Gg][Ee]/[^,]*;[Bb][Aa][Ss][Ee]64,{_BASE64}$"

#: Hours or days, up to 30 days.
WINDOW = "^(([1-9][0-9]?|[1-6][0-9]{2}|7[01][0-9]|720)h|([1-9]|[12][0-9]|30)d)$"

_TEXT: JSON = {"type": "string"}
_NONE: JSON = {"type": "null"}
_CALLS: JSON = {"type": "array", "minItems": 1}
_NO_CALLS: JSON = {"type": ["array", "null"], "maxItems": 0}


def _either(*shapes: JSON) -> JSON:
    return {"anyOf": list(shapes)}


def _shape(needed: JSON, others: JSON) -> JSON:
    """An object whose ``needed`` fields are there, and whose ``others`` may be."""
    return {"properties": {**needed, **others}, "required": list(needed)}


def _role(*names: str) -> JSON:
    return {"role": {"enum": list(names)}}


def _said(*kinds: str) -> JSON:
    """The content of a message in OpenAI's format: a text, or parts of these kinds."""
    part = {"type": "object", "properties": {"type": {"enum": list(kinds)}}}
    return {"content": _either(_TEXT, {"type": "array", "minItems": 1, "items": part})}


def without(*names: str) -> dict[str, Any]:
    """Fields that an object, if it is one, does not have."""
    return {"properties": dict.fromkeys(names, False)}


_NOT_A_TOOL: JSON = {"tool_call_id": _NONE}
_NO_ASSISTANT: JSON = {"tool_calls": _NO_CALLS}

MESSAGE = _either(
    _shape({**_role("system", "user"), "content": _TEXT}, {**_NO_ASSISTANT, **_NOT_A_TOOL}),
    _shape({**_role("assistant"), "content": _TEXT}, _NOT_A_TOOL),
    _shape({**_role("assistant"), "tool_calls": _CALLS}, _NOT_A_TOOL),
    _shape({**_role("tool"), "content": _TEXT, "tool_call_id": _TEXT}, _NO_ASSISTANT),
)

_NEVER_REFUSES: JSON = {**_NO_ASSISTANT, "refusal": _NONE}
_ANSWER = _said("text", "refusal")
_MAYBE_ANSWER: JSON = {"content": _either(_ANSWER["content"], _NONE), **_NOT_A_TOOL}

COMPLETION_MESSAGE = _either(
    _shape({**_role("developer", "system"), **_said("text")}, {**_NEVER_REFUSES, **_NOT_A_TOOL}),
    _shape({**_role("user"), **_said("text", "image_url")}, {**_NEVER_REFUSES, **_NOT_A_TOOL}),
    _shape({**_role("assistant"), **_ANSWER}, _NOT_A_TOOL),
    _shape({**_role("assistant"), "tool_calls": _CALLS}, _MAYBE_ANSWER),
    _shape({**_role("assistant"), "refusal": _TEXT}, _MAYBE_ANSWER),
    _shape({**_role("tool"), **_said("text"), "tool_call_id": _TEXT}, _NEVER_REFUSES),
)

PART = _either(
    _shape({"type": {"const": "text"}, "text": _TEXT}, {"image_url": _NONE, "refusal": _NONE}),
    _shape(
        {"type": {"const": "image_url"}, "image_url": {"type": "object"}},
        {"text": _NONE, "refusal": _NONE},
    ),
    _shape({"type": {"const": "refusal"}, "refusal": _TEXT}, {"text": _NONE, "image_url": _NONE}),
)

RESPONSE_FORMAT = _either(
    _shape({"type": {"const": "json_schema"}, "json_schema": {"type": "object"}}, {}),
    _shape({"type": {"enum": ["text", "json_object"]}}, {"json_schema": _NONE}),
)

STREAMED = _either(
    _shape({"stream": {"const": True}}, {}),
    {"properties": {"stream_options": _NONE}},
)
