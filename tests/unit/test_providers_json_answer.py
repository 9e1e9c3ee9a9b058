"""Whether an answer is the JSON that was asked for."""

from __future__ import annotations

from typing import Any

import pytest

from chat.errors import UpstreamProtocolError
from chat.providers.json_answer import checked_json
from chat.types import Billed, ChatRequest, ChatResponse, FinishReason, Message, Role

OBJECT = {"type": "object"}
ARRAY = {"type": "array"}


def request(wanted: Any) -> ChatRequest:
    """A request with this format."""
    return ChatRequest("m", (Message(Role.USER, "x"),), format=wanted)


def response(content: str, reason: FinishReason = FinishReason.STOP) -> ChatResponse:
    """An answer with this text."""
    return ChatResponse(content, reason)


@pytest.mark.parametrize(
    ("wanted", "content"),
    [
        pytest.param(None, "anything", id="nothing was asked for"),
        pytest.param("json", '{"a": 1}', id="an object"),
        pytest.param("json", "[1, 2]", id="a list"),
        pytest.param("json", ' \n"text"\n', id="a string"),
        pytest.param(OBJECT, '{"a": 1}', id="the object of a schema"),
        pytest.param(ARRAY, "[]", id="the list of a schema"),
        pytest.param({"anyOf": []}, "4", id="a schema without a type"),
    ],
)
def test_what_was_asked_for_passes(wanted: Any, content: str) -> None:
    """Unchanged."""
    given = response(content)

    assert checked_json("ollama", request(wanted), given) is given


@pytest.mark.parametrize(
    ("wanted", "content", "words"),
    [
        pytest.param("json", "", "not JSON: nothing", id="nothing"),
        pytest.param("json", "Paris", "not JSON: Paris", id="prose"),
        pytest.param("json", "```json\n{}\n```", "not JSON", id="fences"),
        pytest.param("json", "NaN", "not JSON", id="NaN"),
        pytest.param("json", "[" * 100_000, "not JSON", id="nested without end"),
        pytest.param("json", '{"a": 1} and more', "not JSON", id="JSON and more"),
        pytest.param(OBJECT, "[1]", "not the object of the schema", id="a list for an object"),
        pytest.param(OBJECT, "text", "not JSON", id="prose for an object"),
    ],
)
def test_anything_else_is_a_protocol_error_that_was_billed(
    wanted: Any, content: str, words: str
) -> None:
    """The tokens were generated; the message shows how the text begins."""
    with pytest.raises(UpstreamProtocolError, match=words) as caught:
        checked_json("ollama", request(wanted), response(content))

    assert caught.value.billed is Billed.YES
    assert not caught.value.retryable
    assert len(caught.value.message) < 600


@pytest.mark.parametrize(
    "reason", [FinishReason.LENGTH, FinishReason.TOOL_CALLS, FinishReason.CONTENT_FILTER]
)
def test_an_answer_that_ended_otherwise_explains_itself(reason: FinishReason) -> None:
    """Half a JSON text with "length" is what the limit left of it."""
    given = response('{"a": ', reason)

    assert checked_json("ollama", request("json"), given) is given
