"""Ollama's wire as pure functions: what the example payloads leave open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chat.errors import InvalidRequest, UpstreamProtocolError
from chat.providers.fields import Fields
from chat.providers.ollama_cloud import flattened, generate_body
from chat.providers.ollama_wire import chat_body, chat_response, generate_response
from chat.types import Billed, ChatRequest, FinishReason, Message, Role, ToolCall

SYSTEM = Message(Role.SYSTEM, "Be kind.")
USER = Message(Role.USER, "Hello?")
ASSISTANT = Message(Role.ASSISTANT, "Hello.")
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
REQUEST = ChatRequest("m", (USER,))


def answer(**values: Any) -> Fields:
    """An answer of local Ollama."""
    return Fields("ollama", 200, values)


@pytest.mark.parametrize(
    ("think", "sent"),
    [(None, False), (False, False), (True, True), ("low", "low"), ("max", "max")],
    ids=str,
)
def test_thinking_is_always_said(think: bool | str | None, sent: bool | str) -> None:  # noqa: FBT001
    """Off unless it is asked for, since silence would switch it on."""
    assert chat_body(replace(REQUEST, think=think))["think"] is sent
    assert generate_body(replace(REQUEST, think=think))["think"] is sent


def test_options_that_are_not_given_are_not_sent() -> None:
    """The daemon's own defaults then hold; a zero is a value."""
    request = replace(REQUEST, temperature=0.0, seed=0)

    assert "options" not in chat_body(REQUEST)
    assert chat_body(request)["options"] == {"temperature": 0.0, "seed": 0}


@pytest.mark.parametrize(
    ("choice", "tools"),
    [(None, [TOOL]), ("auto", [TOOL]), ("none", None)],
    ids=["not said", "auto", "none"],
)
def test_a_tool_choice_that_ollama_can_follow(choice: str | None, tools: object) -> None:
    """It has no such field: "none" leaves the tools out."""
    body = chat_body(replace(REQUEST, tools=(TOOL,), tool_choice=choice))

    assert body.get("tools") == tools
    assert "tool_choice" not in body


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "f"}}], ids=["any", "one"]
)
def test_a_tool_choice_that_ollama_cannot_follow_is_refused(choice: Any) -> None:
    """Rather than answered with something else."""
    with pytest.raises(InvalidRequest, match="cannot make a model call a tool") as caught:
        chat_body(replace(REQUEST, tools=(TOOL,), tool_choice=choice))

    assert caught.value.param == "tool_choice"


def test_a_tool_result_names_the_tool_of_its_call() -> None:
    """Found by the call's id among the earlier messages; an unknown id has no name."""
    asked = Message(
        Role.ASSISTANT,
        "",
        tool_calls=(ToolCall("c1", "first", "{}"), ToolCall("c2", "second", '{"a": 1}')),
        reasoning="Two tools.",
    )
    results = tuple(Message(Role.TOOL, "ok", tool_call_id=f"c{n}") for n in (2, 1, 3))

    _, sent, *told = chat_body(ChatRequest("m", (USER, asked, *results)))["messages"]

    assert sent == {
        "role": "assistant",
        "content": "",
        "thinking": "Two tools.",
        "tool_calls": [
            {"id": "c1", "function": {"index": 0, "name": "first", "arguments": {}}},
            {"id": "c2", "function": {"index": 1, "name": "second", "arguments": {"a": 1}}},
        ],
    }
    assert [message.get("tool_name") for message in told] == ["second", "first", None]
    assert [message["tool_call_id"] for message in told] == ["c2", "c1", "c3"]


@pytest.mark.parametrize("arguments", ["", "null", "[1]", '"x"', "{broken", "NaN", "{" * 100_000])
def test_tool_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    """OpenAI's wire carries any text here, Ollama's an object only."""
    asked = Message(Role.ASSISTANT, "", tool_calls=(ToolCall("c1", "f", arguments),))

    with pytest.raises(InvalidRequest, match="tool call 'c1' of 'f'") as caught:
        chat_body(ChatRequest("m", (asked,)))

    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        pytest.param((USER,), "Hello?", id="a question alone"),
        pytest.param(
            (SYSTEM, USER), "System: Be kind.\n\nUser: Hello?\n\nAssistant:", id="with a system"
        ),
        pytest.param((SYSTEM,), "System: Be kind.\n\nAssistant:", id="a system alone"),
        pytest.param(
            (USER, ASSISTANT, USER),
            "User: Hello?\n\nAssistant: Hello.\n\nUser: Hello?\n\nAssistant:",
            id="several turns",
        ),
        pytest.param(
            (USER, ASSISTANT), "User: Hello?\n\nAssistant: Hello.", id="a turn to go on with"
        ),
    ],
)
def test_messages_are_flattened_in_their_order(messages: tuple[Message, ...], prompt: str) -> None:
    """Each turn under its speaker's name, and the cue for the model at the end."""
    assert flattened(messages) == prompt


def test_images_of_all_turns_go_with_a_flattened_prompt() -> None:
    """In the order of the messages."""
    first, second = replace(USER, images=("a", "b")), replace(USER, images=("c",))

    assert generate_body(ChatRequest("m", (first, second)))["images"] == ["a", "b", "c"]
    assert "images" not in generate_body(REQUEST)


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        pytest.param(replace(REQUEST, tools=(TOOL,)), "tools", id="tools"),
        pytest.param(
            ChatRequest("m", (replace(ASSISTANT, tool_calls=(ToolCall("c", "f", "{}"),)),)),
            "messages",
            id="a tool call",
        ),
        pytest.param(
            ChatRequest("m", (Message(Role.TOOL, "x", tool_call_id="c"),)),
            "messages",
            id="a result",
        ),
    ],
)
def test_what_cannot_be_flattened_is_refused(request_: ChatRequest, param: str) -> None:
    """Tools are lost on /api/generate; the setting that keeps them is named."""
    with pytest.raises(InvalidRequest, match='set it to "auto" or "chat"') as caught:
        generate_body(request_)

    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"done": True, "done_reason": "stop"}, FinishReason.STOP, id="stop"),
        pytest.param({"done": True}, FinishReason.STOP, id="no reason"),
        pytest.param({"done": True, "done_reason": "new"}, FinishReason.STOP, id="a new reason"),
        pytest.param({"done": True, "done_reason": "length"}, FinishReason.LENGTH, id="length"),
        pytest.param({"done": False}, FinishReason.LENGTH, id="not done"),
        pytest.param({}, FinishReason.LENGTH, id="done is missing"),
        pytest.param(
            {"done": True, "done_reason": "load"}, FinishReason.STOP, id="load, with text"
        ),
    ],
)
def test_why_it_stopped(fields: dict[str, Any], reason: FinishReason) -> None:
    """Truncation shows in ``done_reason`` or in a missing ``done``."""
    response = chat_response(answer(message={"content": "text"}, **fields))

    assert response.finish_reason is reason


def test_tool_calls_are_the_reason_whatever_is_told() -> None:
    """``done_reason`` stays "stop"; calls without an id are numbered."""
    calls = [{"function": {"name": "f", "arguments": {"x": [1]}}}, {"function": {"name": "g"}}]
    response = chat_response(answer(message={"tool_calls": calls}, done=True, done_reason="stop"))

    assert response.finish_reason is FinishReason.TOOL_CALLS
    assert response.tool_calls == (
        ToolCall("call_0", "f", '{"x": [1]}'),
        ToolCall("call_1", "g", "{}"),
    )
    assert response.content == ""


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_loading_a_model_is_no_answer(reason: str) -> None:
    """An empty prompt only loads; nothing was generated, nothing billed."""
    with pytest.raises(UpstreamProtocolError, match="generated nothing") as caught:
        generate_response(answer(response="", done=True, done_reason=reason))

    assert caught.value.billed is Billed.NO
    assert not caught.value.retryable


def test_an_empty_trace_is_none() -> None:
    """So that nobody takes it for reasoning."""
    response = generate_response(answer(response="x", thinking="", done=True))

    assert response.reasoning is None
