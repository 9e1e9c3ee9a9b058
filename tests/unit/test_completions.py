"""A request in OpenAI's format: what each field becomes, and what each 400 says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import InvalidRequest
from chat.formats.completion_body import IGNORED, CompletionBody
from chat.formats.completions import CompletionCall, parse_completion, read_completion
from chat.types import JSON, Lane

USER: JSON = {"role": "user", "content": "hi"}
TOOL: JSON = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA: JSON = {"type": "object", "properties": {"a": {"type": "string"}}}

#: The fields of CreateChatCompletionRequest in OpenAI's OpenAPI document of August 2026.
OPENAI = {
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "modalities",
    "model",
    "moderation",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
}
OURS = {"lane", "think", "timeout_s"}


def _read(**fields: Any) -> CompletionCall:
    """Read a valid body with ``fields`` put over it."""
    body = {"model": "qwen3:8b", "messages": [USER], **fields}
    return read_completion(body, max_timeout_s=86400)


def _reject(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        _read(**fields)
    return caught.value


def _schema_format(**more: Any) -> JSON:
    json_schema = {"name": "reply", "schema": SCHEMA, **more}
    return {"type": "json_schema", "json_schema": json_schema}


def test_every_field_of_openai_is_known_and_no_other() -> None:
    """Taken, accepted where it asks for nothing, or named as not passed on: never unknown."""
    assert set(CompletionBody.model_fields) == OPENAI | OURS


def test_a_minimal_body_leaves_everything_else_to_the_defaults() -> None:
    """Nothing is set that the caller did not say."""
    call = _read()

    assert call.request.to_wire() == {"model": "qwen3:8b", "messages": [USER]}
    assert (call.lane, call.timeout_s, call.metadata, call.ignored) == (None, None, {}, ())


@pytest.mark.parametrize(
    ("fields", "wire"),
    [
        pytest.param({"model": "kimi/k3"}, {"model": "kimi/k3"}, id="model"),
        pytest.param({"max_tokens": 5}, {"max_tokens": 5}, id="max_tokens"),
        pytest.param({"max_completion_tokens": 5}, {"max_tokens": 5}, id="max_completion_tokens"),
        pytest.param(
            {"max_tokens": 5, "max_completion_tokens": 5}, {"max_tokens": 5}, id="both, and equal"
        ),
        pytest.param({"temperature": 0}, {"temperature": 0}, id="temperature"),
        pytest.param({"top_p": 0.5}, {"top_p": 0.5}, id="top_p"),
        pytest.param({"seed": -7}, {"seed": -7}, id="seed"),
        pytest.param({"stop": "x"}, {"stop": ["x"]}, id="one stop string"),
        pytest.param({"stop": ["x", "y"]}, {"stop": ["x", "y"]}, id="stop strings"),
        pytest.param({"response_format": {"type": "text"}}, {}, id="text"),
        pytest.param(
            {"response_format": {"type": "json_object"}}, {"format": "json"}, id="any JSON"
        ),
        pytest.param(
            {"response_format": _schema_format()},
            {"format": SCHEMA, "schema_info": {"name": "reply", "strict": False}},
            id="a schema, which is not strict unless it says so",
        ),
        pytest.param(
            {"response_format": _schema_format(strict=True, description="A reply.")},
            {
                "format": SCHEMA,
                "schema_info": {"name": "reply", "strict": True, "description": "A reply."},
            },
            id="a strict schema",
        ),
        pytest.param({"reasoning_effort": "none"}, {"think": False}, id="no reasoning"),
        *(
            pytest.param({"reasoning_effort": level}, {"think": level}, id=f"{level} reasoning")
            for level in ("minimal", "low", "medium", "high", "xhigh", "max")
        ),
        pytest.param({"think": True}, {"think": True}, id="think"),
        pytest.param(
            {"think": "high", "reasoning_effort": "high"}, {"think": "high"}, id="both alike"
        ),
        pytest.param({"tools": [TOOL]}, {"tools": [TOOL]}, id="tools"),
        pytest.param(
            {"tools": [TOOL], "tool_choice": "required"},
            {"tools": [TOOL], "tool_choice": "required"},
            id="a tool is required",
        ),
        pytest.param(
            {
                "tools": [TOOL],
                "tool_choice": {"type": "function", "function": {"name": "f"}},
            },
            {
                "tools": [TOOL],
                "tool_choice": {"type": "function", "function": {"name": "f"}},
            },
            id="a tool is chosen",
        ),
        pytest.param(
            {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
            {},
            id="a choice among no tools",
        ),
        pytest.param(
            {"tools": [TOOL], "parallel_tool_calls": False},
            {"tools": [TOOL], "parallel_tool_calls": False},
            id="one call at a time",
        ),
    ],
)
def test_what_a_field_becomes(fields: JSON, wire: JSON) -> None:
    """OpenAI's words in chatd's request; it crosses the queue whole."""
    call = _read(**fields)

    assert call.request.to_wire() == {"model": "qwen3:8b", "messages": [USER], **wire}
    assert type(call.request).from_wire(call.request.to_wire()) == call.request
    assert call.ignored == ()


def test_chatds_own_fields_and_metadata_are_the_jobs() -> None:
    """As extra_body of OpenAI's client sends them."""
    call = _read(timeout_s=7, lane="batch", metadata={"run": "eval-7"})

    assert (call.lane, call.timeout_s) == (Lane.BATCH, 7.0)
    assert call.metadata == {"run": "eval-7"}


NEUTRAL: JSON = {
    "n": 1,
    "logprobs": False,
    "top_logprobs": 0,
    "frequency_penalty": 0,
    "presence_penalty": 0.0,
    "logit_bias": {},
    "modalities": ["text"],
    "verbosity": "medium",
    "service_tier": "auto",
    "store": False,
    "stream": False,
    "stop": [],
    "tools": [],
}


@pytest.mark.parametrize("field", NEUTRAL)
def test_a_value_that_asks_for_nothing_is_accepted(field: str) -> None:
    """It is met, so that there is nothing to report."""
    call = _read(**{field: NEUTRAL[field]})

    assert call == _read()


@pytest.mark.parametrize("field", sorted(set(CompletionBody.model_fields) - {"model", "messages"}))
def test_null_is_the_same_as_absent(field: str) -> None:
    """Some clients send every field they know."""
    assert _read(**{field: None}) == _read()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        pytest.param("n", 2, "must be 1; for more answers, send more requests", id="n"),
        pytest.param("n", 0, "n is 0", id="no answer"),
        pytest.param("logprobs", True, "no log probabilities", id="logprobs"),
        pytest.param("logprobs", 0, "logprobs is 0", id="zero is not false"),
        pytest.param("top_logprobs", 3, "no log probabilities", id="top_logprobs"),
        pytest.param("frequency_penalty", 0.5, "passes no penalties on", id="frequency_penalty"),
        pytest.param("presence_penalty", -1, "passes no penalties on", id="presence_penalty"),
        pytest.param("logit_bias", {"50256": -100}, "passes no biases on", id="logit_bias"),
        pytest.param("audio", {"voice": "ash"}, "text answers only", id="audio"),
        pytest.param("verbosity", "low", "in the prompt", id="verbosity"),
        pytest.param("service_tier", "flex", '"lane": "batch"', id="service_tier"),
        pytest.param("store", True, "keeps the job's record", id="store"),
        pytest.param("moderation", {"model": "m"}, "does not moderate", id="moderation"),
        pytest.param("web_search_options", {}, "does not search", id="web_search_options"),
        pytest.param("functions", [{"name": "f"}], "use tools", id="functions"),
        pytest.param("function_call", "auto", "use tool_choice", id="function_call"),
        pytest.param("stream", 1, "stream is 1", id="stream"),
        pytest.param("stream_options", {}, "stream is not true", id="stream options"),
        pytest.param("temperature", 3, "from 0 to 2", id="temperature"),
        pytest.param("top_p", 0, "above 0", id="top_p"),
        pytest.param("seed", "7", 'seed is "7"', id="seed"),
        pytest.param("max_tokens", 0, "max_tokens is 0", id="max_tokens"),
        pytest.param("max_completion_tokens", True, "is true", id="max_completion_tokens"),
        pytest.param("reasoning_effort", "hard", '"xhigh"', id="reasoning_effort"),
        pytest.param("tool_choice", "required", "no tools", id="a tool required, none given"),
        pytest.param(
            "tool_choice", {"type": "allowed_tools"}, '"function"', id="a choice of several tools"
        ),
        pytest.param("parallel_tool_calls", "no", "true or false", id="parallel_tool_calls"),
        pytest.param("user", 5, "user is 5", id="user is a number"),
        pytest.param("timeout_s", 86401, "max_timeout_s", id="timeout_s"),
        pytest.param("lane", "fast", '"batch"', id="lane"),
        pytest.param("messages", [], "non-empty list", id="no messages"),
        pytest.param("model", " m", "surrounding spaces", id="model"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(
    field: str, value: object, said: str
) -> None:
    """A 400 names the field, says why and what to do."""
    error = _reject(**{field: value})

    assert error.param is not None
    assert error.param.startswith(field)
    assert said in error.message


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        pytest.param(
            {"max_tokens": 5, "max_completion_tokens": 6},
            "max_completion_tokens",
            "max_tokens is 5 and max_completion_tokens is 6",
            id="two limits",
        ),
        pytest.param(
            {"reasoning_effort": "none", "think": True},
            "think",
            'reasoning_effort is "none" and think is true',
            id="two ways to think",
        ),
        pytest.param({"modalities": ["text", "audio"]}, "modalities[1]", '"audio"', id="audio"),
        pytest.param(
            {"tools": [{"type": "custom", "custom": {"name": "f"}}]},
            "tools[0].custom",
            "not a known field",
            id="a custom tool",
        ),
        pytest.param(
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "is missing",
            id="a schema that is not there",
        ),
        pytest.param(
            {"response_format": {**_schema_format(), "type": "text"}},
            "response_format.json_schema",
            'beside type "text"',
            id="a schema for text",
        ),
        pytest.param(
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "response_format.json_schema.schema",
            "is missing; it must be an object: a JSON Schema",
            id="a schema without the schema",
        ),
        pytest.param(
            {"response_format": _schema_format(schema=[])},
            "response_format.json_schema.schema",
            "a list of 0, but must be an object: a JSON Schema",
            id="a schema that is none",
        ),
        pytest.param(
            {"response_format": _schema_format(schma={})},
            "response_format.json_schema.schma",
            'nearest known one is "schema" (of name, schema, description, strict)',
            id="a misspelt schema",
        ),
        pytest.param(
            {"max_output_tokens": 5},
            "max_output_tokens",
            'nearest known one is "max_tokens"',
            id="a field of another API",
        ),
        pytest.param({"format": "json"}, "format", "not a known field", id="a field of /v1/chat"),
    ],
)
def test_a_body_that_breaks_a_rule_is_named(fields: JSON, param: str, said: str) -> None:
    """The path, the rule, and for an unknown field the nearest known one."""
    error = _reject(**fields)

    assert error.param == param
    assert said in error.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user", "u1"),
        ("safety_identifier", "s1"),
        ("prompt_cache_key", "p1"),
        ("prompt_cache_options", {"mode": "implicit"}),
        ("prompt_cache_retention", "24h"),
        ("prediction", {"type": "content", "content": "x"}),
    ],
)
def test_what_cannot_change_the_answer_is_accepted_and_named(field: str, value: object) -> None:
    """It changes nothing but the list of what was ignored, not even the hash."""
    call = _read(**{field: value})

    assert field in IGNORED
    assert call.ignored == (field,)
    assert call.request == _read().request
    assert call.body_hash == _read().body_hash


def test_a_stream_is_asked_for_with_or_without_its_usage() -> None:
    """Which is the same job: only what is told of it differs."""
    plain, asked = _read(stream=True), _read(stream=True, stream_options={"include_usage": True})

    assert (plain.request.stream, _read(stream=False).request.stream) == (True, False)
    assert (plain.include_usage, asked.include_usage) == (False, True)
    assert plain.body_hash == asked.body_hash != _read().body_hash


@pytest.mark.parametrize("asked", [True, False])
def test_padding_is_not_there_to_be_had(asked: bool) -> None:  # noqa: FBT001 - the field's value
    """Whoever asks for it is told; who does without has it so."""
    call = _read(stream=True, stream_options={"include_obfuscation": asked})

    assert call.ignored == (("stream_options.include_obfuscation",) if asked else ())


def test_bytes_are_read_as_strictly_as_those_of_a_chat() -> None:
    """A key given twice is refused, not overwritten."""
    raw = json.dumps({"model": "m", "messages": [USER]}).encode()
    twice = raw[:-1] + b', "model": "n"}'

    assert parse_completion(raw, max_timeout_s=9).request.model == "m"
    with pytest.raises(InvalidRequest, match="twice"):
        parse_completion(twice, max_timeout_s=9)


@pytest.mark.parametrize("field", ["model", "messages"])
def test_a_missing_field_is_named_with_its_rule(field: str) -> None:
    """Model and messages are required."""
    body: JSON = {"model": "m", "messages": [USER]}
    del body[field]
    with pytest.raises(InvalidRequest, match=f"{field} is missing; it must be") as caught:
        read_completion(body, max_timeout_s=9)

    assert caught.value.param == field


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "image_url", "url", "schema"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*CompletionBody.model_fields, "x"]), _JSON, max_size=3))
def test_whatever_is_sent_is_a_call_or_a_400_that_names_a_field(fields: JSON) -> None:
    """No body makes the gateway fail in any other way."""
    body = {"model": "m", "messages": [USER], **fields}
    try:
        told: str | None = read_completion(body, max_timeout_s=86400).body_hash
    except InvalidRequest as error:
        told = error.param

    assert told


def test_every_field_has_a_rule_to_tell() -> None:
    """Messages and the OpenAPI document are made of the descriptions."""
    definitions = CompletionBody.model_json_schema()
    models = [definitions, *definitions["$defs"].values()]
    fields = [field for model in models for field in model["properties"].values()]

    assert len(fields) > 60
    assert all(field.get("description") for field in fields)
    assert all(
        "not passed on" in definitions["properties"][name]["description"] for name in IGNORED
    )
