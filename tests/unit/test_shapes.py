"""The document says of a request what its reader does: neither is stricter than the other."""

from __future__ import annotations

import base64
import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from api.openapi import document
from api.runs import window_s
from chat.errors import InvalidRequest
from chat.evaluations.suite import read_suite
from chat.formats.chat import parse_chat
from chat.formats.completions import parse_completion
from chat.formats.shapes import BASE64, NAMED, WINDOW
from chat.types import JSON
from tests.evaluations import a_suite

_CALL = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
_URL = "data:image/png;base64,QUJD"
_PARTS: dict[str, JSON] = {
    "text": {"type": "text", "text": "t"},
    "image": {"type": "image_url", "image_url": {"url": _URL}},
    "refusal": {"type": "refusal", "refusal": "r"},
}
#: Stands for a field that is left out.
_ABSENT: Any = object()


def _allowed(model: str, value: object) -> bool:
    schema = {"$ref": f"#/components/schemas/{model}", **document("1")}
    return bool(Draft202012Validator(schema).is_valid(value))


def _accepted(read: Any, value: object) -> bool:
    try:
        read(json.dumps(value).encode(), max_timeout_s=9)
    except InvalidRequest:
        return False
    return True


def _chat(message: JSON, **fields: Any) -> JSON:
    return {"model": "m", "messages": [message], **fields}


def _objects(**choices: list[Any]) -> list[JSON]:
    """Objects with every combination of these values."""
    return [
        {name: value for name, value in zip(choices, values, strict=True) if value is not _ABSENT}
        for values in itertools.product(*choices.values())
    ]


def test_which_messages_are_allowed_is_what_is_accepted() -> None:
    """By role, with and without content, calls and the id of one."""
    messages = _objects(
        role=["system", "user", "assistant", "tool", "boss"],
        content=[_ABSENT, None, "", "t"],
        tool_calls=[_ABSENT, None, [], [_CALL]],
        tool_call_id=[_ABSENT, None, "c"],
    )
    found = {
        json.dumps(message): (
            _allowed("ChatBody", _chat(message)),
            _accepted(parse_chat, _chat(message)),
        )
        for message in messages
    }

    assert {message: pair for message, pair in found.items() if pair[0] != pair[1]} == {}
    assert {pair[0] for pair in found.values()} == {True, False}


def test_which_messages_of_openai_are_allowed_is_what_is_accepted() -> None:
    """The same, with parts and refusals."""
    messages = _objects(
        role=["developer", "user", "assistant", "tool"],
        content=[_ABSENT, None, "t", [], *([part] for part in _PARTS.values())],
        tool_calls=[_ABSENT, [], [_CALL]],
        tool_call_id=[_ABSENT, "c"],
        refusal=[_ABSENT, None, "r"],
    )
    found = {
        json.dumps(message): (
            _allowed("CompletionBody", _chat(message)),
            _accepted(parse_completion, _chat(message)),
        )
        for message in messages
    }

    assert {message: pair for message, pair in found.items() if pair[0] != pair[1]} == {}
    assert {pair[0] for pair in found.values()} == {True, False}


def test_which_parts_are_allowed_is_what_is_accepted() -> None:
    """A part has what its type says and nothing of another type."""
    parts = _objects(
        type=["text", "image_url", "refusal"],
        text=[_ABSENT, None, "t"],
        image_url=[_ABSENT, None, {"url": _URL}],
        refusal=[_ABSENT, None, "r"],
    )
    found = [
        (
            part,
            _allowed("CompletionBody", _chat({"role": role, "content": [part]})),
            _accepted(parse_completion, _chat({"role": role, "content": [part]})),
        )
        for part in parts
        for role in ("user", "assistant")
    ]

    assert [case for case in found if case[1] != case[2]] == []


@pytest.mark.parametrize("kind", ["text", "json_object", "json_schema"])
@pytest.mark.parametrize("schema", [_ABSENT, None, {"name": "n", "schema": {}}])
def test_which_form_of_an_answer_is_allowed_is_what_is_accepted(kind: str, schema: Any) -> None:
    """A schema where the type asks for one."""
    (form,) = _objects(type=[kind], json_schema=[schema])
    body = _chat({"role": "user", "content": "q"}, response_format=form)

    assert _allowed("CompletionBody", body) == _accepted(parse_completion, body)


@pytest.mark.parametrize("stream", [_ABSENT, True, False, None, "yes"])
@pytest.mark.parametrize("options", [_ABSENT, None, {}, {"include_usage": True}, {"x": 1}, 1])
def test_which_stream_is_allowed_is_what_is_accepted(stream: Any, options: Any) -> None:
    """Options only where there is one."""
    (fields,) = _objects(stream=[stream], stream_options=[options])
    body = _chat({"role": "user", "content": "q"}, **fields)

    assert _allowed("CompletionBody", body) == _accepted(parse_completion, body)
    fields.pop("stream_options", None)
    body = _chat({"role": "user", "content": "q"}, **fields)
    assert _allowed("ChatBody", body) == _accepted(parse_chat, body) == (stream != "yes")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "QUJD",
        "QUI=",
        "QQ==",
        "QQ=",
        "Q===",
        "====",
        "QU",
        "QU\nJD",
        "QU JD",
        "QUJ-",
        "QQ==QUJD",
    ],
)
def test_which_base64_is_allowed_is_what_is_accepted(text: str) -> None:
    """By itself and in a data URL, in any letter case of that."""
    body = _chat({"role": "user", "content": "q", "images": [text]})

    assert _allowed("ChatBody", body) == _accepted(parse_chat, body)
    for head in ("data:image/png;base64,", "DATA:image/;charset=x;BASE64,", "data:text/x;base64,"):
        part = {"type": "image_url", "image_url": {"url": head + text}}
        body = _chat({"role": "user", "content": [part]})
        assert _allowed("CompletionBody", body) == _accepted(parse_completion, body), head


@given(st.binary(min_size=1))
def test_whatever_is_encoded_is_allowed(data: bytes) -> None:
    """Of any length."""
    assert re.search(BASE64, base64.b64encode(data).decode())


def test_every_window_up_to_thirty_days_is_allowed_and_no_other() -> None:
    """Hours and days, to the last one."""
    texts = [f"{number}{unit}" for number in range(1100) for unit in "hdwH"]
    texts += ["", "h", "024h", " 24h", "24h ", "1.5d", "-1d", "٣h"]

    def taken(text: str) -> bool:
        try:
            window_s(text)
        except InvalidRequest:
            return False
        return True

    assert [text for text in texts if taken(text) != bool(re.search(WINDOW, text))] == []


#: Of all dialects only Python's `$` also stands before a line break at the end.
_LATIN = st.text(st.characters(max_codepoint=0xFF), max_size=8).filter(lambda s: s[-1:] != "\n")


@given(_LATIN)
def test_which_names_of_the_first_characters_are_allowed_is_what_is_accepted(name: str) -> None:
    """Beyond Latin-1 Unicode's tables decide, which no pattern can repeat."""
    body = _chat({"role": "user", "content": "q"}, model=name)
    allowed = re.search(NAMED, name) is not None

    assert _allowed("ChatBody", body) == allowed
    # A soft hyphen (U+00AD) is the one among them that is no control character.
    assert _accepted(parse_chat, body) == (allowed and "\xad" not in name)


@pytest.mark.parametrize(
    "judge",
    [
        {},
        {"parameters": None},
        {"parameters": {"temperature": 0}},
        {"parameters": {"max_tokens": 9}},
        {"parameters": {"format": None}},
        {"choices": {"a": 1, "b": 0}},
        {"choices": {"a\nb": 1, "b": 0}},
        {"choices": {"": 1, "b": 0}},
        {"choices": {"a": 1}},
    ],
)
def test_which_judges_are_allowed_is_what_is_accepted(judge: JSON) -> None:
    """Their verdicts, and the parameters that they have another way."""
    scorer = {"type": "judge", "model": "m", "rubric": "r", **judge}
    suite = a_suite(scorers=[scorer])

    def accepted() -> bool:
        try:
            read_suite(suite)
        except InvalidRequest:
            return False
        return True

    assert _allowed("Suite", suite) == accepted()
