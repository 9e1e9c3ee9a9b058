"""The chat request: what is accepted, and what each 400 says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import InvalidRequest
from chat.formats.chat import ChatBody, ChatCall, parse_chat
from chat.types import JSON, Lane, Message, Role, ToolCall

USER: JSON = {"role": "user", "content": "hi"}
TOOL: JSON = {"type": "function", "function": {"name": "f"}}


def _call_of(id_: Any = "c1", name: Any = "f", arguments: Any = "{}", **more: Any) -> JSON:
    return {"id": id_, "function": {"name": name, "arguments": arguments}, **more}


def _assistant(*calls: JSON, **fields: Any) -> JSON:
    return {"role": "assistant", "tool_calls": list(calls), **fields}


def _parse(**fields: Any) -> ChatCall:
    """Parse a valid body with ``fields`` put over it."""
    body = {"model": "qwen3:8b", "messages": [USER], **fields}
    return parse_chat(json.dumps(body).encode(), max_timeout_s=86400)


def _reject(raw: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(raw, max_timeout_s=86400)
    return caught.value


def _reject_fields(**fields: Any) -> InvalidRequest:
    body = {"model": "qwen3:8b", "messages": [USER], **fields}
    return _reject(json.dumps(body).encode())


def test_a_minimal_body_leaves_everything_else_to_the_defaults() -> None:
    """Model and messages suffice; nothing is set that the caller did not say."""
    call = _parse()

    assert call.request.to_wire() == {"model": "qwen3:8b", "messages": [USER]}
    assert (call.lane, call.timeout_s, call.metadata) == (None, None, {})


def test_every_field_reaches_the_request() -> None:
    """A body with all fields becomes a request with all fields."""
    wire: JSON = {
        "model": "m",
        "messages": [{**USER, "images": ["aGk="]}],
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": -1,
        "stop": ["a", "b"],
        "format": {"type": "object"},
        "think": "high",
        "tools": [TOOL],
        "tool_choice": TOOL,
        "stream": True,
    }
    call = _parse(**wire, lane="batch", timeout_s=7, metadata={"k": "v"})

    assert call.request.to_wire() == wire
    assert (call.lane, call.timeout_s, call.metadata) == (Lane.BATCH, 7.0, {"k": "v"})


@pytest.mark.parametrize(
    ("fields", "name", "expected"),
    [
        pytest.param({"max_tokens": 1}, "max_tokens", 1, id="fewest tokens"),
        pytest.param({"temperature": 0}, "temperature", 0.0, id="temperature zero"),
        pytest.param({"temperature": 2}, "temperature", 2.0, id="an integer for a number"),
        pytest.param({"top_p": 1}, "top_p", 1.0, id="top_p one"),
        pytest.param({"seed": 2**63 - 1}, "seed", 2**63 - 1, id="largest seed"),
        pytest.param({"seed": -(2**63)}, "seed", -(2**63), id="smallest seed"),
        pytest.param({"stop": "x"}, "stop", ("x",), id="one stop string"),
        pytest.param({"stop": ["x"] * 16}, "stop", ("x",) * 16, id="16 stop strings"),
        pytest.param({"stop": []}, "stop", (), id="no stop string"),
        pytest.param({"format": "json"}, "format", "json", id="any JSON"),
        pytest.param(
            {"format": {"default": None}}, "format", {"default": None}, id="a schema with null"
        ),
        pytest.param({"think": False}, "think", False, id="no thinking"),
        pytest.param({"think": "max"}, "think", "max", id="a level of thinking"),
        pytest.param({"max_tokens": None}, "max_tokens", None, id="null is absent"),
        pytest.param({"stream": False}, "stream", False, id="stream false"),
        pytest.param({"stream": None}, "stream", False, id="stream null"),
        pytest.param({"tool_choice": "auto"}, "tool_choice", "auto", id="auto without tools"),
        pytest.param({"model": "a/b:c d"}, "model", "a/b:c d", id="a space inside the model"),
        pytest.param({"model": "m" * 256}, "model", "m" * 256, id="the longest model"),
    ],
)
def test_values_at_the_edge_of_a_rule_are_accepted(
    fields: JSON, name: str, expected: object
) -> None:
    """What the rule just allows goes through unchanged."""
    value = getattr(_parse(**fields).request, name)

    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        pytest.param({"model": ""}, "model", 'model is ""', id="empty model"),
        pytest.param({"model": " m"}, "model", "surrounding spaces", id="space before the model"),
        pytest.param({"model": "m\n"}, "model", r"m\n", id="newline after the model"),
        pytest.param({"model": "a\x00b"}, "model", r"a\x00b", id="control character"),
        pytest.param({"model": "m" * 257}, "model", "256 characters", id="model too long"),
        pytest.param({"model": 1}, "model", "model is 1", id="model is a number"),
        pytest.param({"model": None}, "model", "model is null", id="model is null"),
        pytest.param({"messages": []}, "messages", "non-empty list", id="no messages"),
        pytest.param({"messages": {}}, "messages", "an empty object", id="messages is an object"),
        pytest.param({"messages": ["x"]}, "messages[0]", "fields of role", id="message is text"),
        pytest.param({"max_tokens": 0}, "max_tokens", "max_tokens is 0", id="no tokens"),
        pytest.param({"max_tokens": "1"}, "max_tokens", 'is "1"', id="number in quotes"),
        pytest.param({"max_tokens": True}, "max_tokens", "is true", id="true is not one"),
        pytest.param({"max_tokens": 1.0}, "max_tokens", "is 1.0", id="a float is no integer"),
        pytest.param({"temperature": 2.1}, "temperature", "from 0 to 2", id="too hot"),
        pytest.param({"temperature": -0.1}, "temperature", "is -0.1", id="too cold"),
        pytest.param({"temperature": True}, "temperature", "is true", id="true is no number"),
        pytest.param({"top_p": 0}, "top_p", "above 0", id="top_p zero"),
        pytest.param({"top_p": 1.1}, "top_p", "at most 1", id="top_p above one"),
        pytest.param({"seed": 2**63}, "seed", "64 bits", id="seed too large"),
        pytest.param({"seed": 1.5}, "seed", "is 1.5", id="seed with a fraction"),
        pytest.param({"stop": ""}, "stop", "non-empty", id="empty stop"),
        pytest.param({"stop": ["a", 5]}, "stop[1]", "stop[1] is 5", id="stop is a number"),
        pytest.param({"stop": ["a", ""]}, "stop[1]", "non-empty", id="an empty one of stop"),
        pytest.param({"stop": ["a"] * 17}, "stop", "a list of 17", id="17 stop strings"),
        pytest.param({"format": "xml"}, "format", '"json"', id="unknown format"),
        pytest.param({"format": ["json"]}, "format", "a list of 1", id="format is a list"),
        pytest.param({"think": "hard"}, "think", '"medium"', id="unknown level"),
        pytest.param({"think": 1}, "think", "think is 1", id="one is not true"),
        pytest.param({"tools": [{}]}, "tools[0].type", "missing", id="tool without type"),
        pytest.param(
            {"tools": [{**TOOL, "type": "web"}]}, "tools[0].type", '"function"', id="other tool"
        ),
        pytest.param(
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters",
            "JSON Schema",
            id="parameters is a list",
        ),
        pytest.param({"tool_choice": "any"}, "tool_choice", '"required"', id="unknown choice"),
        pytest.param(
            {"tool_choice": "required"}, "tool_choice", "no tools", id="a tool required, none given"
        ),
        pytest.param(
            {"tool_choice": TOOL}, "tool_choice.function.name", '"f"', id="chosen tool not given"
        ),
        pytest.param(
            {"tool_choice": {"type": "function", "function": {}}},
            "tool_choice.function.name",
            "missing",
            id="choice without a name",
        ),
        pytest.param({"timeout_s": -1}, "timeout_s", "from 0 up", id="negative timeout"),
        pytest.param({"timeout_s": 86401}, "timeout_s", "max_timeout_s", id="timeout too long"),
        pytest.param({"timeout_s": "5"}, "timeout_s", 'is "5"', id="timeout in quotes"),
        pytest.param({"lane": "fast"}, "lane", '"batch"', id="unknown lane"),
        pytest.param({"stream": "no"}, "stream", 'is "no"', id="stream is text"),
        pytest.param({"metadata": {"k": 1}}, "metadata.k", "is 1", id="metadata is a number"),
        pytest.param(
            {"metadata": {"k" * 65: ""}}, f'metadata["{"k" * 60}…"]', "64", id="long metadata key"
        ),
        pytest.param({"metadata": {"k": "v" * 513}}, "metadata.k", "512", id="long metadata value"),
        pytest.param(
            {"metadata": {str(n): "" for n in range(17)}}, "metadata", "16", id="17 metadata keys"
        ),
    ],
)
def test_a_value_that_breaks_a_rule_is_named_with_the_rule(
    fields: JSON, param: str, said: str
) -> None:
    """``param`` has the path; the message has the path, the value or rule, and the way out."""
    error = _reject_fields(**fields)

    assert error.param == param
    assert param in error.message
    assert said in error.message


@pytest.mark.parametrize("field", ["model", "messages"])
def test_a_missing_field_is_named_with_its_rule(field: str) -> None:
    """Model and messages are required."""
    body = {"model": "m", "messages": [USER]}
    del body[field]
    error = _reject(json.dumps(body).encode())

    assert error.param == field
    assert f"{field} is missing; it must be" in error.message


@pytest.mark.parametrize(
    ("fields", "param", "nearest"),
    [
        pytest.param({"temprature": 1}, "temprature", "temperature", id="misspelt"),
        pytest.param({"Model": "m"}, "Model", "model", id="upper case"),
        pytest.param({"max_completion_tokens": 1}, "max_completion_tokens", "max_tokens", id="new"),
        pytest.param({"response_format": {}}, "response_format", "format", id="of another API"),
        pytest.param(
            {"messages": [{"rol": "user", "content": ""}]}, "messages[0].rol", "role", id="message"
        ),
        pytest.param(
            {"tools": [{"type": "function", "function": {"name": "f", "paramters": {}}}]},
            "tools[0].function.paramters",
            "parameters",
            id="tool",
        ),
        pytest.param(
            {"tool_choice": {"type": "function", "function": {"nam": "f"}}},
            "tool_choice.function.nam",
            "name",
            id="tool choice",
        ),
        pytest.param(
            {"messages": [_assistant(_call_of(index=0))]},
            "messages[0].tool_calls[0].index",
            "id",
            id="tool call",
        ),
        pytest.param({"a b\n": 1}, r'["a b\n"]', "lane", id="not an identifier"),
    ],
)
def test_an_unknown_field_is_named_with_the_nearest_known_one(
    fields: JSON, param: str, nearest: str
) -> None:
    """At every level, even if the misspelt field is then missing as well."""
    error = _reject_fields(**fields)

    assert error.param == param
    assert f"{param} is not a known field" in error.message
    assert f'nearest known one is "{nearest}"' in error.message


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(
            {"role": "system", "content": ""}, Message(Role.SYSTEM, ""), id="empty content"
        ),
        pytest.param(
            _assistant(_call_of(), content=None, reasoning="so"),
            Message(Role.ASSISTANT, "", tool_calls=(ToolCall("c1", "f", "{}"),), reasoning="so"),
            id="null content beside tool calls",
        ),
        pytest.param(
            _assistant(_call_of(arguments={"a": "ä"}, type="function")),
            Message(Role.ASSISTANT, "", tool_calls=(ToolCall("c1", "f", '{"a":"ä"}'),)),
            id="arguments as an object",
        ),
        pytest.param(
            _assistant(_call_of(arguments='{ "a": 1 }')),
            Message(Role.ASSISTANT, "", tool_calls=(ToolCall("c1", "f", '{ "a": 1 }'),)),
            id="arguments as text stay as they are",
        ),
        pytest.param(
            _assistant(_call_of(arguments="")),
            Message(Role.ASSISTANT, "", tool_calls=(ToolCall("c1", "f", "{}"),)),
            id="no arguments",
        ),
        pytest.param(
            {"role": "tool", "content": "4", "tool_call_id": "c1"},
            Message(Role.TOOL, "4", tool_call_id="c1"),
            id="the answer of a tool",
        ),
        pytest.param(
            {**USER, "images": ["aGk=", "aGkh"]},
            Message(Role.USER, "hi", images=("aGk=", "aGkh")),
            id="images",
        ),
    ],
)
def test_a_message_of_each_kind_is_understood(message: JSON, expected: Message) -> None:
    """Both shapes of arguments become JSON text, null content becomes empty."""
    assert _parse(messages=[message]).request.messages == (expected,)


@pytest.mark.parametrize(
    ("message", "param", "said"),
    [
        pytest.param({"role": "user"}, "content", "missing or null", id="no content"),
        pytest.param({"role": "user", "content": None}, "content", "null", id="null content"),
        pytest.param({"role": "user", "content": []}, "content", "a list of 0", id="parts"),
        pytest.param({"role": "bot", "content": ""}, "role", '"assistant"', id="unknown role"),
        pytest.param(_assistant(content=None), "content", "tool_calls", id="null without calls"),
        pytest.param({**USER, "tool_calls": [_call_of()]}, "tool_calls", "assistant", id="a user"),
        pytest.param({"role": "tool", "content": ""}, "tool_call_id", "one call", id="no call id"),
        pytest.param({**USER, "tool_call_id": "c"}, "tool_call_id", "role tool", id="an extra id"),
        pytest.param({**USER, "images": "aGk="}, "images", "a list", id="images is text"),
        pytest.param({**USER, "images": ["a"]}, "images[0]", "base64", id="not base64"),
        pytest.param({**USER, "images": ["aGk=\n"]}, "images[0]", "line breaks", id="line break"),
        pytest.param({**USER, "images": [""]}, "images[0]", "base64", id="empty image"),
        pytest.param(
            {**USER, "images": ["data:image/png;base64,aGk="]}, "images[0]", "data:", id="data URL"
        ),
        pytest.param(_assistant(_call_of(id_="")), "tool_calls[0].id", "1 to 128", id="empty id"),
        pytest.param(
            _assistant(_call_of(arguments="[1]")),
            "tool_calls[0].function.arguments",
            "it is a list of 1, but must be a JSON object",
            id="arguments hold a list",
        ),
        pytest.param(
            _assistant(_call_of(arguments='{"a":')),
            "tool_calls[0].function.arguments",
            "it is not JSON: Expecting value at line 1",
            id="arguments are broken JSON",
        ),
        pytest.param(
            _assistant(_call_of(arguments=5)),
            "tool_calls[0].function.arguments",
            "JSON object",
            id="arguments is a number",
        ),
    ],
)
def test_a_message_that_breaks_a_rule_is_named(message: JSON, param: str, said: str) -> None:
    """The path counts the messages, so that the right one is found among many."""
    error = _reject_fields(messages=[USER, message])

    assert error.param == f"messages[1].{param}"
    assert error.message.startswith(f"messages[1].{param} ")
    assert said in error.message


def test_timeout_zero_stands_for_the_default() -> None:
    """As when it is left out."""
    assert _parse(timeout_s=0).timeout_s is None


def test_nulls_inside_a_tool_are_kept() -> None:
    """A JSON Schema may say null; only our own absent fields are dropped."""
    schema = {"default": None, "enum": [None]}
    tool = {"type": "function", "function": {"name": "f", "strict": None, "parameters": schema}}
    request = _parse(tools=[tool]).request

    assert request.tools == ({"type": "function", "function": {"name": "f", "parameters": schema}},)


def test_bodies_that_ask_for_the_same_have_one_hash() -> None:
    """Key order, layout, 1 against 1.0 and an absent null make no difference."""
    one = parse_chat(
        b'{"model":"m","messages":[{"role":"user","content":"hi"}],"temperature":1,'
        b'"metadata":{"a":"1","b":"2"}}',
        max_timeout_s=9,
    )
    other = parse_chat(
        b'{ "temperature": 1.0, "seed": null, "timeout_s": 0,'
        b' "messages": [ {"content": "hi", "role": "user"} ], "model": "m",'
        b' "metadata": {"b": "2", "a": "1"} }',
        max_timeout_s=9,
    )

    assert one.body_hash == other.body_hash


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"model": "other"}, id="model"),
        pytest.param({"messages": [{**USER, "content": "ho"}]}, id="content"),
        pytest.param({"temperature": 0.1}, id="temperature"),
        pytest.param({"lane": "batch"}, id="lane"),
        pytest.param({"timeout_s": 5}, id="timeout"),
        pytest.param({"metadata": {"k": "v"}}, id="metadata"),
    ],
)
def test_bodies_that_ask_for_something_else_have_another_hash(change: JSON) -> None:
    """Whatever reaches the job counts."""
    assert _parse(**change).body_hash != _parse().body_hash


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "function", "name", "id", "[key]", "str"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*ChatBody.model_fields, "x", ""]), _JSON, max_size=3))
def test_whatever_is_sent_is_a_call_or_a_400_that_names_a_field(fields: JSON) -> None:
    """No body makes the gateway fail in any other way."""
    raw = json.dumps({"model": "m", "messages": [USER], **fields}).encode()
    try:
        told: str | None = parse_chat(raw, max_timeout_s=86400).body_hash
    except InvalidRequest as error:
        told = error.param

    assert told


def test_every_field_has_a_rule_to_tell() -> None:
    """Messages and the OpenAPI document are made of the descriptions."""
    definitions = ChatBody.model_json_schema()
    models = [definitions, *definitions["$defs"].values()]
    fields = [field for model in models for field in model["properties"].values()]

    assert len(fields) > 25
    assert all(field.get("description") for field in fields)
