"""What is told of the providers is what they do: each row is held to the body that goes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn, cast

import pytest

from chat.errors import InvalidRequest
from chat.formats.support import COLUMNS, ROWS, Row, Use, dropped
from chat.providers.upstream import Upstream
from chat.routing import PROVIDERS
from chat.types import JSON, Cancelled, ChatRequest, Deadline, Message, Role, ToolCall
from tests.wire.providers import provider_at

TOOL: JSON = {"type": "function", "function": {"name": "f", "parameters": {}}}
SCHEMA: JSON = {"type": "object"}
PNG, BMP = "iVBORw0KGgoAAA==", "Qk0AAAAA"
CALL = ToolCall("c1", "f", "{}")

USER = Message(Role.USER, "Hello?")
PLAIN = ChatRequest("m", (USER,))
WITH_TOOLS = replace(PLAIN, tools=(TOOL,))
#: After this one Ollama Cloud takes /api/chat, as it does for every conversation.
ANSWERED = ChatRequest("m", (USER, Message(Role.ASSISTANT, "Hi."), USER))
CALLED = ChatRequest("m", (USER, Message(Role.ASSISTANT, "", tool_calls=(CALL,))))

Change = Callable[[ChatRequest], ChatRequest]


def _with(**fields: Any) -> Change:
    return lambda request: replace(request, **fields)


def _in_message(place: int, **fields: Any) -> Change:
    def change(request: ChatRequest) -> ChatRequest:
        messages = list(request.messages)
        messages[place] = replace(messages[place], **fields)
        return replace(request, messages=tuple(messages))

    return change


#: For each row a request without it, and what adds it.
EXAMPLES: dict[tuple[str, str], tuple[ChatRequest, Change]] = {
    ("max_completion_tokens", ""): (PLAIN, _with(max_tokens=5)),
    ("temperature", ""): (PLAIN, _with(temperature=0.0)),
    ("top_p", ""): (PLAIN, _with(top_p=0.5)),
    ("seed", ""): (PLAIN, _with(seed=0)),
    ("stop", ""): (PLAIN, _with(stop=("x",))),
    ("response_format", "json_object"): (PLAIN, _with(format="json")),
    ("response_format", "json_schema"): (PLAIN, _with(format=SCHEMA)),
    ("response_format.json_schema.description", ""): (
        replace(PLAIN, format=SCHEMA),
        _with(schema_info={"description": "A reply."}),
    ),
    # Seen against the opposite: thinking is off at Ollama when nothing is said.
    ("reasoning_effort", "none"): (replace(PLAIN, think=True), _with(think=False)),
    ("reasoning_effort", "a level"): (PLAIN, _with(think="high")),
    ("think", "true"): (PLAIN, _with(think=True)),
    ("tools", ""): (PLAIN, _with(tools=(TOOL,))),
    ("tool_choice", "none"): (WITH_TOOLS, _with(tool_choice="none")),
    ("tool_choice", "required or a function"): (WITH_TOOLS, _with(tool_choice="required")),
    ("parallel_tool_calls", "false"): (WITH_TOOLS, _with(parallel_tool_calls=False)),
    ("messages.content.image_url", "PNG, JPEG, GIF, WebP"): (PLAIN, _in_message(0, images=(PNG,))),
    ("messages.content.image_url", "others"): (PLAIN, _in_message(0, images=(BMP,))),
    ("messages.name", ""): (PLAIN, _in_message(0, name="Ada")),
    ("messages.reasoning_content", "beside tool_calls"): (CALLED, _in_message(1, reasoning="so")),
    ("messages.reasoning_content", "alone"): (ANSWERED, _in_message(1, reasoning="so")),
}


class _Sent(Exception):
    """What went out; no error, but where the test looks."""

    def __init__(self, path: str, body: JSON) -> None:
        super().__init__(path)
        self.request = (path, body)


class _Listener:
    """In the place of an ``Upstream``: tells what it was given to post."""

    def post(self, path: str, body: JSON, **_: object) -> NoReturn:
        raise _Sent(path, body)


def _sent(column: str, request: ChatRequest) -> tuple[str, JSON] | None:
    """What a provider posts; ``None`` if it refuses the request."""
    name, _, family = column.partition("/")
    listener = cast("Upstream", _Listener())
    provider = provider_at(name, lambda _: listener)
    asked = replace(request, model=f"{family}-k3" if family else "m")
    try:
        provider.chat(asked, deadline=Deadline.after(60), cancelled=Cancelled())
    except _Sent as sent:
        return sent.request
    except InvalidRequest:
        return None
    raise AssertionError(column)


def _key(row: Row) -> tuple[str, str]:
    return row.field, row.case


def _id(row: Row) -> str:
    return " ".join(_key(row)).strip()


def test_there_is_an_example_of_every_row() -> None:
    """And no two rows are about the same."""
    assert [_key(row) for row in ROWS] == list(EXAMPLES)


def test_every_provider_has_a_column() -> None:
    """A new one has to find its place here."""
    assert {column.partition("/")[0] for column in COLUMNS} == set(PROVIDERS)


@pytest.mark.parametrize("row", [pytest.param(row, id=_id(row)) for row in ROWS])
def test_a_row_knows_its_field(row: Row) -> None:
    """It sees the field in the request that has it, and only there."""
    without, change = EXAMPLES[_key(row)]

    assert row.given(change(without))
    assert not row.given(without)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", [pytest.param(row, id=_id(row)) for row in ROWS])
def test_a_provider_does_with_a_field_what_is_told(row: Row, column: str) -> None:
    """Dropped: the body is the same without it. Refused: nothing goes out."""
    without, change = EXAMPLES[_key(row)]
    before, after = _sent(column, without), _sent(column, change(without))
    seen = Use.REFUSED if after is None else Use.DROPPED if after == before else Use.TAKEN

    assert before is not None
    assert seen is row.use(column)


@pytest.mark.parametrize(
    ("provider", "model", "names"),
    [
        pytest.param("ollama", "qwen3:8b", ("messages.name",), id="ollama"),
        pytest.param("openrouter", "moonshotai/kimi-k2", ("messages.reasoning_content",), id="or"),
        pytest.param("kimi", "k3", ("temperature", "messages.reasoning_content"), id="kimi"),
        pytest.param(
            "opencode",
            "glm-5.2",
            ("reasoning_effort", "messages.reasoning_content"),
            id="opencode",
        ),
        pytest.param(
            "opencode",
            "opencode-go/Kimi-K2",
            ("temperature", "reasoning_effort", "messages.reasoning_content"),
            id="Kimi's model in OpenCode Go",
        ),
    ],
)
def test_what_a_request_loses_is_named_once(
    provider: str, model: str, names: tuple[str, ...]
) -> None:
    """By OpenAI's names, whichever rows of it apply."""
    messages = (
        replace(USER, name="Ada"),
        Message(Role.ASSISTANT, "", tool_calls=(CALL,), reasoning="so"),
        Message(Role.ASSISTANT, "It is 42.", reasoning="so"),
    )
    request = ChatRequest(model, messages, temperature=0.5, think=False)

    assert dropped(provider, model, request) == names


@pytest.mark.parametrize(
    ("level", "at_ollama"),
    [("minimal", "low"), ("low", "low"), ("high", "high"), ("xhigh", "high"), ("max", "max")],
)
def test_a_level_of_reasoning_becomes_the_nearest_that_a_provider_has(
    level: str, at_ollama: str
) -> None:
    """Ollama refuses levels of others; OpenRouter knows all of OpenAI's."""
    request = replace(PLAIN, think=level)
    sent = {column: _sent(column, request) for column in ("ollama", "ollama_cloud", "openrouter")}
    bodies = {column: found[1] for column, found in sent.items() if found is not None}

    assert bodies["ollama"]["think"] == bodies["ollama_cloud"]["think"] == at_ollama
    assert bodies["openrouter"]["reasoning"] == {"effort": level}


def test_a_schema_goes_out_with_what_is_said_about_it() -> None:
    """Without that it is a strict one."""
    info = {"name": "reply", "strict": False, "description": "A reply."}
    said = _sent("kimi", replace(PLAIN, format=SCHEMA, schema_info=info))
    unsaid = _sent("kimi", replace(PLAIN, format=SCHEMA))

    assert said is not None
    assert unsaid is not None
    assert said[1]["response_format"]["json_schema"] == {**info, "schema": SCHEMA}
    assert unsaid[1]["response_format"]["json_schema"] == {
        "name": "answer",
        "strict": True,
        "schema": SCHEMA,
    }
