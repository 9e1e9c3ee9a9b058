"""The wire of Chat Completions as pure functions: what the example payloads leave open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chat.errors import InvalidRequest, UpstreamProtocolError, UpstreamUnavailable
from chat.providers.dialects import KIMI, OPENCODE, OPENROUTER, Dialect
from chat.providers.fields import Fields
from chat.providers.openai_wire import chat_body, chat_response, failed_choice
from chat.types import Billed, ChatRequest, FinishReason, Message, Role, ToolCall

REQUEST = ChatRequest("m", (Message(Role.USER, "Hello?"),))
CALL = ToolCall("c1", "f", "{}")
DIALECTS = [pytest.param(d, id=d.name) for d in (OPENROUTER, OPENCODE, KIMI)]


def answer(message: Any = None, finish: Any = "stop", **values: Any) -> Fields:
    """An answer of OpenRouter with one choice."""
    choice = {"message": message, "finish_reason": finish}
    return Fields("openrouter", 200, {"choices": [choice], **values})


@pytest.mark.parametrize(
    ("dialect", "think", "sent"),
    [
        pytest.param(OPENROUTER, None, {}, id="OpenRouter, not said"),
        pytest.param(OPENROUTER, False, {"reasoning": {"effort": "none"}}, id="OpenRouter, off"),
        pytest.param(OPENROUTER, True, {"reasoning": {"enabled": True}}, id="OpenRouter, on"),
        pytest.param(OPENROUTER, "high", {"reasoning": {"effort": "high"}}, id="OpenRouter, level"),
        pytest.param(OPENCODE, None, {}, id="OpenCode, not said"),
        pytest.param(OPENCODE, False, {}, id="OpenCode, off"),
        pytest.param(OPENCODE, True, {}, id="OpenCode, on"),
        pytest.param(OPENCODE, "low", {"reasoning_effort": "low"}, id="OpenCode, level"),
        pytest.param(KIMI, None, {}, id="Kimi, not said"),
        pytest.param(KIMI, False, {"thinking": {"type": "disabled"}}, id="Kimi, off"),
        pytest.param(KIMI, True, {"thinking": {"type": "enabled"}}, id="Kimi, on"),
        pytest.param(
            KIMI, "high", {"thinking": {"type": "enabled", "effort": "high"}}, id="Kimi, level"
        ),
    ],
)
def test_each_dialect_has_its_word_for_thinking(
    dialect: Dialect,
    think: bool | str | None,  # noqa: FBT001
    sent: dict[str, Any],
) -> None:
    """Not said means the provider's own default."""
    body = chat_body(dialect, replace(REQUEST, think=think))

    assert body == {**chat_body(dialect, REQUEST), **sent}


@pytest.mark.parametrize(
    ("dialect", "model", "kept"),
    [
        pytest.param(KIMI, "k3", False, id="Kimi"),
        pytest.param(OPENCODE, "kimi-k2.6", False, id="Kimi at OpenCode"),
        pytest.param(OPENCODE, "Kimi-K2", False, id="Kimi at OpenCode, capitals"),
        pytest.param(OPENCODE, "glm-5.2", True, id="another at OpenCode"),
        pytest.param(OPENROUTER, "moonshotai/kimi-k2.6", True, id="Kimi at OpenRouter"),
    ],
)
def test_sampling_is_left_out_where_any_value_is_refused(
    dialect: Dialect,
    model: str,
    kept: bool,  # noqa: FBT001
) -> None:
    """Kimi's models allow one temperature and one top_p, and refuse all others."""
    body = chat_body(dialect, replace(REQUEST, model=model, temperature=0.0, top_p=0.5, seed=1))

    assert ("temperature" in body, "top_p" in body) == (kept, kept)
    assert body["seed"] == 1


@pytest.mark.parametrize(
    ("dialect", "field"),
    [(OPENROUTER, "max_tokens"), (OPENCODE, "max_tokens"), (KIMI, "max_completion_tokens")],
    ids=["OpenRouter", "OpenCode", "Kimi"],
)
def test_the_token_limit_has_the_field_that_counts(dialect: Dialect, field: str) -> None:
    """And no other."""
    body = chat_body(dialect, replace(REQUEST, max_tokens=7))

    assert {key: value for key, value in body.items() if "tokens" in key} == {field: 7}


@pytest.mark.parametrize(
    ("dialect", "extra"),
    [
        pytest.param(OPENROUTER, {"content": None}, id="OpenRouter"),
        pytest.param(OPENCODE, {"content": None, "reasoning_content": "why"}, id="OpenCode"),
        pytest.param(KIMI, {"reasoning_content": "why"}, id="Kimi"),
    ],
)
def test_a_tool_call_goes_back_as_the_dialect_wants_it(
    dialect: Dialect, extra: dict[str, Any]
) -> None:
    """Without text: left out or null. With its reasoning where that is demanded."""
    asked = Message(Role.ASSISTANT, "", tool_calls=(CALL,), reasoning="why")
    result = Message(Role.TOOL, "42", tool_call_id="c1")

    sent, told = chat_body(dialect, ChatRequest("m", (asked, result)))["messages"]

    assert sent == {"role": "assistant", "tool_calls": [CALL.to_wire()], **extra}
    assert told == {"role": "tool", "content": "42", "tool_call_id": "c1"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_tool_call_keeps_the_text_beside_it(dialect: Dialect) -> None:
    """Only an empty text goes."""
    asked = Message(Role.ASSISTANT, "Let me see.", tool_calls=(CALL,))

    [sent] = chat_body(dialect, ChatRequest("m", (asked,)))["messages"]

    assert sent["content"] == "Let me see."
    assert "reasoning_content" not in sent


@pytest.mark.parametrize("dialect", DIALECTS)
def test_reasoning_of_a_plain_turn_stays_here(dialect: Dialect) -> None:
    """It is wanted with tool calls only."""
    [sent] = chat_body(
        dialect, ChatRequest("m", (Message(Role.ASSISTANT, "Hi.", reasoning="why"),))
    )["messages"]

    assert sent == {"role": "assistant", "content": "Hi."}


@pytest.mark.parametrize(
    ("beginning", "media_type"),
    [
        ("iVBORw0KGgoAAA", "image/png"),
        ("/9j/4AAQ", "image/jpeg"),
        ("R0lGODdh", "image/gif"),
        ("UklGRiQA", "image/webp"),
    ],
)
def test_an_image_becomes_a_data_url(beginning: str, media_type: str) -> None:
    """Its type is told by its first bytes; an empty text is no part."""
    [sent] = chat_body(
        OPENROUTER, ChatRequest("m", (Message(Role.USER, "", images=(beginning,)),))
    )["messages"]

    url = {"url": f"data:{media_type};base64,{beginning}"}
    assert sent["content"] == [{"type": "image_url", "image_url": url}]


def test_an_image_of_an_unknown_format_is_refused() -> None:
    """The message shows how it begins, not all of it."""
    with pytest.raises(InvalidRequest, match="no PNG, JPEG, GIF or WebP") as caught:
        chat_body(KIMI, ChatRequest("m", (Message(Role.USER, "?", images=("QUJD" * 1000,)),)))

    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("dialect", "demands"),
    [(OPENROUTER, {"require_parameters": True}), (OPENCODE, None), (KIMI, None)],
    ids=["OpenRouter", "OpenCode", "Kimi"],
)
def test_a_schema_is_demanded_where_it_could_be_dropped(dialect: Dialect, demands: Any) -> None:
    """OpenRouter ignores what an endpoint does not know, unless it is told not to."""
    schema = {"type": "object"}
    body = chat_body(dialect, replace(REQUEST, format=schema))

    assert body["response_format"]["json_schema"]["schema"] == schema
    assert body.get("provider") == demands
    assert "provider" not in chat_body(dialect, replace(REQUEST, format="json"))


TEXT = {"content": "Hi."}
TOOLS = {"content": None, "tool_calls": [CALL.to_wire()]}


@pytest.mark.parametrize(
    ("message", "told", "reason"),
    [
        pytest.param(TEXT, "stop", FinishReason.STOP, id="stop"),
        pytest.param({"content": ""}, "stop", FinishReason.STOP, id="stop, and silent"),
        pytest.param(TEXT, None, FinishReason.STOP, id="not told"),
        pytest.param(TEXT, "end_turn", FinishReason.STOP, id="told in other words"),
        pytest.param(TEXT, "tool_calls", FinishReason.STOP, id="calls told, text came"),
        pytest.param(TEXT, "length", FinishReason.LENGTH, id="length"),
        pytest.param({"content": None}, "length", FinishReason.LENGTH, id="length, and silent"),
        pytest.param(TOOLS, "tool_calls", FinishReason.TOOL_CALLS, id="calls"),
        pytest.param(TOOLS, "stop", FinishReason.TOOL_CALLS, id="calls, told as stop"),
        pytest.param(TOOLS, None, FinishReason.TOOL_CALLS, id="calls, not told"),
        pytest.param(TOOLS, "length", FinishReason.LENGTH, id="calls that were cut short"),
        pytest.param(None, "content_filter", FinishReason.CONTENT_FILTER, id="filtered"),
        pytest.param(
            {"content": None, "refusal": "No."}, "stop", FinishReason.CONTENT_FILTER, id="refused"
        ),
    ],
)
def test_why_it_stopped(message: Any, told: str | None, reason: FinishReason) -> None:
    """The reason is told by what came as much as by its name."""
    assert chat_response(answer(message, told)).finish_reason is reason


def test_a_refusal_is_the_text() -> None:
    """So that a caller learns why."""
    assert chat_response(answer({"content": None, "refusal": "No."})).content == "No."


@pytest.mark.parametrize(
    ("message", "usage", "billed"),
    [
        pytest.param({"content": None}, {"completion_tokens": 0}, Billed.NO, id="nothing"),
        pytest.param({"content": ""}, None, Billed.NO, id="nothing, and no usage"),
        pytest.param(None, None, Billed.NO, id="no message"),
        pytest.param({"reasoning": "hm"}, None, Billed.MAYBE, id="only reasoning"),
        pytest.param(
            {"content": ""}, {"completion_tokens": 3}, Billed.MAYBE, id="tokens without text"
        ),
    ],
)
@pytest.mark.parametrize("told", [None, "tool_calls", "unknown"])
def test_nothing_at_all_may_be_tried_again(
    message: Any, usage: Any, billed: Billed, told: str | None
) -> None:
    """A model that is starting answers like this, and does not charge for it."""
    with pytest.raises(UpstreamUnavailable) as caught:
        chat_response(answer(message, told, usage=usage))

    assert caught.value.retryable
    assert caught.value.billed is billed


@pytest.mark.parametrize("choices", [[], None])
def test_an_answer_without_choices_is_none(choices: Any) -> None:
    """Both readers say so."""
    empty = Fields("openrouter", 200, {"choices": choices})

    for read in (chat_response, failed_choice):
        with pytest.raises(UpstreamProtocolError, match="without any choice"):
            read(empty)


@pytest.mark.parametrize(
    ("choice", "failed"),
    [
        pytest.param({"finish_reason": "stop", "error": None}, False, id="no error"),
        pytest.param({"finish_reason": "stop", "error": {}}, False, id="an empty error"),
        pytest.param({"finish_reason": "stop", "error": {"code": 502}}, True, id="an error"),
        pytest.param({"finish_reason": "error"}, True, id="an error without words"),
    ],
)
def test_a_choice_that_failed_is_found(choice: dict[str, Any], failed: bool) -> None:  # noqa: FBT001
    """By its error, or by its finish reason alone."""
    found = failed_choice(Fields("openrouter", 200, {"choices": [choice]}))

    assert (found is not None) is failed


def test_usage_is_found_inside_the_choice_too() -> None:
    """Kimi has it there at times."""
    choice = {"message": TEXT, "finish_reason": "stop", "usage": {"prompt_tokens": 3}}
    response = chat_response(Fields("kimi", 200, {"choices": [choice]}))

    assert (response.input_tokens, response.output_tokens) == (3, None)


def test_tool_arguments_may_be_an_object_and_ids_may_be_missing() -> None:
    """As backends that speak another protocol send them."""
    calls = [{"function": {"name": "f", "arguments": {"a": 1}}}, {"function": {"name": "g"}}]

    response = chat_response(answer({"tool_calls": calls}, "tool_calls"))

    assert response.tool_calls == (
        ToolCall("call_0", "f", '{"a": 1}'),
        ToolCall("call_1", "g", "{}"),
    )
