"""Messages in OpenAI's format: what their parts become, and what each 400 says."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from chat.errors import InvalidRequest
from chat.formats.completions import CompletionCall, read_completion
from chat.types import JSON, Message, Role, ToolCall

USER: JSON = {"role": "user", "content": "hi"}
CALL: JSON = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n and more").decode()


def _read(*messages: JSON, **fields: Any) -> CompletionCall:
    """Read a body with these messages."""
    return read_completion({"model": "m", "messages": list(messages), **fields}, max_timeout_s=9)


def _reject(*messages: JSON) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        _read(*messages)
    return caught.value


def _text(text: str) -> JSON:
    return {"type": "text", "text": text}


def _image(data: str = PNG, **more: Any) -> JSON:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}", **more}}


def test_what_is_ignored_inside_messages_is_named_once() -> None:
    """By its path without the places in lists; "auto" is what happens anyway."""
    function = {"name": "f", "arguments": "{}", "parsed_arguments": {}}
    cached = {**_text("b"), "prompt_cache_breakpoint": {"mode": "explicit"}}
    call = _read(
        {"role": "user", "content": [_image(detail="low"), cached, _image(detail="high")]},
        {
            "role": "assistant",
            "content": "x",
            "annotations": [{"type": "url_citation"}],
            "parsed": [1],
            "tool_calls": [{**CALL, "index": 0, "function": function}],
        },
        {"role": "user", "content": [_image(detail="auto"), cached]},
        user="u1",
    )

    assert call.ignored == (
        "user",
        "messages.annotations",
        "messages.parsed",
        "messages.tool_calls.index",
        "messages.tool_calls.function.parsed_arguments",
        "messages.content.image_url.detail",
        "messages.content.prompt_cache_breakpoint",
    )


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(
            {"role": "developer", "content": "Be kind."},
            [Message(Role.SYSTEM, "Be kind.")],
            id="developer",
        ),
        pytest.param(
            {"role": "system", "content": [_text("Be"), _text("kind.")]},
            [Message(Role.SYSTEM, "Be\nkind.")],
            id="text parts",
        ),
        pytest.param({**USER, "name": "Ada"}, [Message(Role.USER, "hi", name="Ada")], id="a name"),
        pytest.param(
            {"role": "user", "content": [_image()]},
            [Message(Role.USER, "", images=(PNG,))],
            id="an image alone",
        ),
        pytest.param(
            {"role": "user", "content": [_image(), _image("aGk="), _text("Which?")]},
            [Message(Role.USER, "Which?", images=(PNG, "aGk="))],
            id="images before one text",
        ),
        pytest.param(
            {
                "role": "user",
                "name": "Ada",
                "content": [_text("1:"), _image(), _text("2:"), _image("aGk="), _text("Which?")],
            },
            [
                Message(Role.USER, "1:", images=(PNG,), name="Ada"),
                Message(Role.USER, "2:", images=("aGk=",), name="Ada"),
                Message(Role.USER, "Which?", name="Ada"),
            ],
            id="texts and images in turn become turns in that order",
        ),
        pytest.param(
            {"role": "user", "content": [_text("1:"), _image(), _text(""), _text("2:"), _text("")]},
            [Message(Role.USER, "1:", images=(PNG,)), Message(Role.USER, "2:")],
            id="an empty text is no turn",
        ),
        pytest.param(
            {
                "role": "user",
                "content": [
                    {
                        "type": "image_url",
                        "image_url": {"url": f"DATA:image/PNG;charset=utf-8;BASE64,{PNG}"},
                    }
                ],
            },
            [Message(Role.USER, "", images=(PNG,))],
            id="a data URL in capitals",
        ),
        pytest.param(
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            [Message(Role.ASSISTANT, "", tool_calls=(ToolCall("c1", "f", "{}"),))],
            id="tool calls",
        ),
        pytest.param(
            {"role": "assistant", "content": None, "refusal": "I cannot."},
            [Message(Role.ASSISTANT, "I cannot.")],
            id="a refusal",
        ),
        pytest.param(
            {"role": "assistant", "content": "Hm.", "refusal": "I cannot."},
            [Message(Role.ASSISTANT, "Hm.\nI cannot.")],
            id="a refusal after a text",
        ),
        pytest.param(
            {"role": "assistant", "content": [_text("Hm.")], "refusal": "I cannot."},
            [Message(Role.ASSISTANT, "Hm.\nI cannot.")],
            id="a refusal after parts",
        ),
        pytest.param(
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot."}]},
            [Message(Role.ASSISTANT, "I cannot.")],
            id="a refusal as a part",
        ),
        pytest.param(
            {"role": "tool", "tool_call_id": "c1", "content": [_text("42")]},
            [Message(Role.TOOL, "42", tool_call_id="c1")],
            id="a tool's result",
        ),
        pytest.param(
            {
                "role": "assistant",
                "content": "It is 42.",
                "refusal": None,
                "annotations": [],
                "audio": None,
                "function_call": None,
                "tool_calls": None,
                "reasoning_content": "6 times 7",
            },
            [Message(Role.ASSISTANT, "It is 42.", reasoning="6 times 7")],
            id="an answer as it came",
        ),
    ],
)
def test_a_message_of_each_kind_is_understood(message: JSON, expected: list[Message]) -> None:
    """Whatever shape its content has."""
    call = _read(message)

    assert list(call.request.messages) == expected
    assert call.ignored == ()


@pytest.mark.parametrize(
    ("message", "param", "said"),
    [
        pytest.param({"role": "function", "content": ""}, "role", '"tool"', id="function"),
        pytest.param({"role": "user"}, "content", "missing or null", id="no content"),
        pytest.param({"role": "user", "content": []}, "content", "list of 0", id="no parts"),
        pytest.param({**USER, "content": 5}, "content", "list of parts", id="a number"),
        pytest.param({**USER, "tool_calls": [CALL]}, "tool_calls", "only an assistant", id="calls"),
        pytest.param({"role": "tool", "content": ""}, "tool_call_id", "is missing", id="no id"),
        pytest.param({**USER, "refusal": "no"}, "refusal", "an assistant's", id="user refuses"),
        pytest.param({**USER, "function_call": {}}, "function_call", "use tool_calls", id="old"),
        pytest.param({**USER, "audio": {"id": "a"}}, "audio", "text and images", id="audio"),
        pytest.param({**USER, "nam": "x"}, "nam", 'nearest known one is "name"', id="misspelt"),
        pytest.param(
            {
                "role": "assistant",
                "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "[1]"}}],
            },
            "tool_calls[0].function.arguments",
            "JSON object",
            id="arguments",
        ),
        pytest.param(
            {**USER, "content": [{"type": "input_audio", "input_audio": {}}]},
            "content[0].type",
            "text and images only",
            id="an audio part",
        ),
        pytest.param(
            {**USER, "content": [_text("x"), {"type": "file", "file": {"file_id": "f"}}]},
            "content[1].type",
            "text and images only",
            id="a file part",
        ),
        pytest.param(
            {**USER, "content": [{"type": "text"}]}, "content[0].text", "is missing", id="no text"
        ),
        pytest.param(
            {**USER, "content": [{**_text("x"), "refusal": "no"}]},
            "content[0].refusal",
            "a part of its own",
            id="two in one part",
        ),
        pytest.param(
            {**USER, "content": [{"type": "refusal", "refusal": "no"}]},
            "content[0]",
            "an assistant's",
            id="a user's refusal part",
        ),
        pytest.param(
            {"role": "system", "content": [_image()]},
            "content[0]",
            'an image in a message of role "system"',
            id="a system's image",
        ),
        pytest.param(
            {**USER, "content": [{"type": "image_url", "image_url": {"url": "https://a/b.png"}}]},
            "content[0].image_url.url",
            "chatd fetches nothing",
            id="an image on the web",
        ),
        pytest.param(
            {**USER, "content": [{"type": "image_url", "image_url": {"url": PNG}}]},
            "content[0].image_url.url",
            "must be a data URL",
            id="bare base64",
        ),
        pytest.param(
            {**USER, "content": [{"type": "image_url", "image_url": {"url": "data:image/png,x"}}]},
            "content[0].image_url.url",
            "in base64",
            id="a data URL that is not base64",
        ),
        pytest.param(
            {**USER, "content": [_image("a-b")]},
            "content[0].image_url.url",
            "not base64",
            id="broken base64",
        ),
        pytest.param(
            {**USER, "content": [_image("")]},
            "content[0].image_url.url",
            "an empty image",
            id="an empty image",
        ),
        pytest.param(
            {**USER, "content": [_image(detail="huge")]},
            "content[0].image_url.detail",
            '"high"',
            id="an unknown detail",
        ),
    ],
)
def test_a_message_that_breaks_a_rule_is_named(message: JSON, param: str, said: str) -> None:
    """The path counts messages and parts as the caller sent them, also after one that was split."""
    split = {"role": "user", "content": [_text("a"), _image(), _text("b")]}
    error = _reject(split, message)

    assert error.param == f"messages[1].{param}"
    assert said in error.message


def test_a_message_shows_little_of_an_image() -> None:
    """A data URL may have megabytes."""
    error = _reject({"role": "user", "content": [_image("aGk=" * 10_000 + "!")]})

    assert len(error.message) < 300
