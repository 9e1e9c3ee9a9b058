"""What each provider makes of an answer: every example answer that has a 2xx status."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from chat.errors import (
    UpstreamError,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from chat.types import (
    Billed,
    ChatRequest,
    ChatResponse,
    FinishReason,
    Message,
    Provider,
    Role,
    ToolCall,
)
from tests.upstream import Answer, ScriptedUpstream
from tests.wire.providers import (
    PROVIDERS,
    answer_files,
    call,
    common_files,
    load,
    plain_request,
    request_files,
    request_of,
)

STOP, LENGTH, TOOLS = FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS
PARIS_JSON = '{"capital":"Paris"}'
NATIVE_CALL = ToolCall("call_a1b2c3d4", "get_weather", '{"city": "Paris"}')
OPENAI_CALL = ToolCall("call_abc123", "get_weather", '{"city":"Paris"}')
KIMI_CALL = replace(OPENAI_CALL, id="get_weather:0")


def said(
    content: str,
    tokens: tuple[int | None, int | None] = (None, None),
    reasoning: str | None = None,
    *,
    finish: FinishReason = STOP,
    calls: tuple[ToolCall, ...] = (),
    cost: float | None = None,
) -> ChatResponse:
    """The expected answer, with tokens in and out."""
    return ChatResponse(content, finish, reasoning, calls, *tokens, cost_usd=cost)


CENT = 2.1e-05

#: Every example answer, and what a caller gets.
ANSWERS = {
    "kimi/chat.json_object.json": said(PARIS_JSON, (14, 20), "JSON wanted."),
    "kimi/chat.length_empty.json": said("", (14, 10), "The user asks for", finish=LENGTH),
    "kimi/chat.ok.json": said("Paris", (14, 15), "One word: Paris."),
    "kimi/chat.thinking.json": said("Paris", (14, 9), "Short."),
    "kimi/chat.tool_call.json": said(
        "", (80, 30), "Need the tool.", finish=TOOLS, calls=(KIMI_CALL,)
    ),
    "kimi/chat.tool_result.json": said("18C and clear.", (110, 18), "Report it."),
    "ollama/chat.cloud_stub.json": said("Paris", (26, 9)),
    # Counts of zero are left out on the wire, so that nothing is known of them.
    "ollama/chat.counts_absent.json": said(""),
    # gpt-oss thinks whatever is asked; the trace stays apart from the answer.
    "ollama/chat.gptoss_think_false.json": said("Paris", (26, 19), "The trace is still produced."),
    "ollama/chat.image.json": said("Transparent.", (280, 4)),
    "ollama/chat.json_format.json": said('{"capital": "Paris"}', (18, 11)),
    "ollama/chat.json_schema.json": said(PARIS_JSON, (16, 10)),
    "ollama/chat.length_empty.json": said(
        "", (17, 10), "Okay, the user asks me to score the", finish=LENGTH
    ),
    "ollama/chat.length_partial.json": said("Paris is the capital and", (26, 6), finish=LENGTH),
    "ollama/chat.low_budget_think_false.json": said("4", (17, 2)),
    # Without `done` the server broke off.
    "ollama/chat.not_done.json": said("ha ha ha ha ha ha", finish=LENGTH),
    "ollama/chat.ok.json": said("Paris", (26, 9)),
    "ollama/chat.think_level.json": said("Paris", (26, 14), "Short answer."),
    "ollama/chat.thinking.json": said(
        "Paris", (26, 41), "The user wants one word. Capital of France is Paris."
    ),
    "ollama/chat.tool_call.json": said("", (140, 22), finish=TOOLS, calls=(NATIVE_CALL,)),
    "ollama/chat.tool_result.json": said("It is 18C and clear in Paris.", (176, 11)),
    "ollama_cloud/chat.ok.json": said("Paris", (26, 9)),
    "ollama_cloud/chat.tool_call.json": said("", (140, 22), finish=TOOLS, calls=(NATIVE_CALL,)),
    "ollama_cloud/generate.length_empty.json": said("", (24, 10), "The user asks", finish=LENGTH),
    "ollama_cloud/generate.ok.json": said("Paris", (24, 5)),
    "ollama_cloud/generate.system_field.json": said("Paris", (24, 5)),
    "ollama_cloud/generate.thinking.json": said("Paris", (24, 12), "One word."),
    "opencode/chat.go.json": said("Paris", (14, 4), cost=0.0),
    "opencode/chat.json_object.json": said('{"capital": "Paris"}', (14, 8), cost=4e-05),
    "opencode/chat.length_empty.json": said(
        "", (14, 10), "The user asks", finish=LENGTH, cost=4e-05
    ),
    "opencode/chat.no_usage.json": said("Paris"),
    "opencode/chat.null_finish.json": said("Paris", (14, 4), cost=2e-05),
    "opencode/chat.ok.json": said("Paris", (14, 4), cost=CENT),
    "opencode/chat.reasoning.json": said("Paris", (14, 12), "One word.", cost=5e-05),
    "opencode/chat.tool_call.json": said(
        "", (80, 16), finish=TOOLS, calls=(OPENAI_CALL,), cost=18e-05
    ),
    "openrouter/chat.content_filter.json": said(
        "", (14, 0), finish=FinishReason.CONTENT_FILTER, cost=CENT
    ),
    "openrouter/chat.image.json": said("Transparent.", (300, 3), cost=CENT),
    "openrouter/chat.json_object.json": said(PARIS_JSON, (14, 8), cost=CENT),
    "openrouter/chat.json_schema.json": said(PARIS_JSON, (14, 8), cost=CENT),
    "openrouter/chat.length_empty.json": said(
        "", (14, 10), "The user wants", finish=LENGTH, cost=CENT
    ),
    "openrouter/chat.ok.json": said("Paris", (14, 4), cost=CENT),
    "openrouter/chat.reasoning.json": said("Paris", (14, 18), "One word: Paris.", cost=CENT),
    "openrouter/chat.reasoning_off.json": said("Paris", (14, 4), cost=CENT),
    "openrouter/chat.tool_call.json": said(
        "", (80, 16), finish=TOOLS, calls=(OPENAI_CALL,), cost=CENT
    ),
    "openrouter/chat.tool_result.json": said("18C and clear.", (104, 6), cost=CENT),
}

#: Every example answer that is a failure in spite of its 200: class, retryable, billed, words.
FAILURES = {
    "ollama/chat.json_format_not_applied.json": (
        UpstreamProtocolError,
        False,
        Billed.YES,
        "set format.*not JSON: The capital of France",
    ),
    "ollama/chat.load_only.json": (
        UpstreamProtocolError,
        False,
        Billed.NO,
        "generated nothing.*empty prompt",
    ),
    # Fenced JSON is not JSON, and the cloud does not enforce the format.
    "ollama_cloud/generate.json_format.json": (
        UpstreamProtocolError,
        False,
        Billed.YES,
        "set format.*not JSON",
    ),
    "openrouter/chat.error_in_200.json": (
        UpstreamUnavailable,
        True,
        Billed.MAYBE,
        "answered 502.*Provider returned error",
    ),
    "openrouter/chat.error_in_choice.json": (
        UpstreamUnavailable,
        True,
        Billed.MAYBE,
        "answered 502.*disconnected mid-stream",
    ),
    # A provider that is still starting: not billed, and worth another try.
    "openrouter/chat.no_content.json": (
        UpstreamUnavailable,
        True,
        Billed.NO,
        "without text, tool call or reason",
    ),
    "openrouter/chat.no_choices_key.json": (
        UpstreamProtocolError,
        False,
        Billed.MAYBE,
        "without any choice",
    ),
    "openrouter/chat.null_choices.json": (
        UpstreamProtocolError,
        False,
        Billed.MAYBE,
        "without any choice",
    ),
    "openrouter/chat.zero_choices.json": (
        UpstreamProtocolError,
        False,
        Billed.MAYBE,
        "without any choice",
    ),
}

#: The answers that every provider can show; what is padded is an answer in OpenAI's shape.
COMMON = ("common/ok.200.empty.json", "common/ok.200.html.json", "common/ok.200.truncated.json")
PADDED = "common/ok.200.padded.json"


def the_request_for(file: str) -> ChatRequest:
    """The request of the same name if there is one, else a plain question."""
    request_file = f"{file.removesuffix('.json')}.req.json"
    if request_file in request_files():
        return request_of(request_file)
    return plain_request(file.partition("/")[0])


def the_api_for(file: str) -> str:
    """The call whose answers ``file`` is about; only Ollama Cloud has two."""
    return "chat" if file.startswith("ollama_cloud/chat.") else "auto"


def test_every_example_answer_is_in_one_of_the_tables() -> None:
    """A payload that is added without an expectation fails here."""
    common = {file for file in common_files() if "/ok." in file}

    assert sorted([*ANSWERS, *FAILURES]) == answer_files()
    assert {*COMMON, PADDED} == common


@pytest.mark.parametrize("file", ANSWERS)
def test_an_answer_is_read(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], file: str
) -> None:
    """Text, reasoning, tool calls, finish reason, tokens and cost are those of the example."""
    upstream.always(Answer.payload(load(file)))
    provider = make_provider(file.partition("/")[0], upstream, api=the_api_for(file))

    response = call(provider, the_request_for(file))

    assert response == ANSWERS[file]


@pytest.mark.parametrize("file", FAILURES)
def test_a_failure_inside_a_200_is_an_error(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], file: str
) -> None:
    """A status of 200 alone makes no answer."""
    upstream.always(Answer.payload(load(file)))
    kind, retryable, billed, words = FAILURES[file]
    provider = make_provider(file.partition("/")[0], upstream, api=the_api_for(file))

    with pytest.raises(UpstreamError, match=words) as caught:
        call(provider, the_request_for(file))

    assert type(caught.value) is kind
    assert (caught.value.retryable, caught.value.billed) == (retryable, billed)
    assert caught.value.upstream_status in (200, 502)


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("file", COMMON)
def test_a_200_that_is_no_json_object_is_a_protocol_error(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], name: str, file: str
) -> None:
    """An empty body, a sign-in page and half a JSON text are no answers."""
    upstream.always(Answer.payload(load(file)))

    with pytest.raises(UpstreamProtocolError, match=f"{name} answered 200 with a body") as caught:
        call(make_provider(name, upstream), plain_request(name))

    assert not caught.value.retryable
    assert caught.value.billed is Billed.MAYBE
    assert caught.value.upstream_status == 200


@pytest.mark.parametrize("name", ["openrouter", "opencode", "kimi"])
def test_leading_white_space_is_legal(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], name: str
) -> None:
    """Proxies send it to keep the connection alive while a model thinks."""
    upstream.always(Answer.payload(load(PADDED)))

    assert call(make_provider(name, upstream), plain_request(name)) == said("ok", (1, 1))


@pytest.mark.parametrize("name", ["ollama", "ollama_cloud"])
def test_an_answer_of_another_protocol_is_told_as_such(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], name: str
) -> None:
    """OpenAI's shape from what should be Ollama: the field that is missing is named."""
    upstream.always(Answer.payload(load(PADDED)))

    with pytest.raises(UpstreamProtocolError, match=r"(message|response) is missing.*base URL"):
        call(make_provider(name, upstream), plain_request(name))


def test_chat_low_budget_think_false(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider]
) -> None:
    """A judge with max_tokens=10 gets text, since thinking is off unless it is asked for.

    The upstream here behaves as a model that can think: without ``think: false`` it spends the ten
    tokens on thinking and has no text.
    """
    thinks = Answer.payload(load("ollama/chat.length_empty.json"))
    answers = Answer.payload(load("ollama/chat.low_budget_think_false.json"))
    upstream.always(lambda sent: answers if sent.json().get("think") is False else thinks)
    judge = ChatRequest("qwen3:8b", (Message(Role.USER, "Score 1-5: good match?"),), max_tokens=10)

    response = call(make_provider("ollama", upstream), judge)

    assert (response.content, response.finish_reason) == ("4", STOP)


@pytest.mark.parametrize("name", PROVIDERS)
def test_json_is_read_whatever_the_content_type_says(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], name: str
) -> None:
    """OpenCode, for one, sends JSON as text; a byte order mark is let pass as well."""
    files = {"ollama_cloud": "ollama_cloud/generate.ok.json"}
    body = load(files.get(name, f"{name}/chat.ok.json"))["body"]
    text = b"\xef\xbb\xbf" + json.dumps(body).encode()
    upstream.always(Answer.of(text, headers={"content-type": "text/plain; charset=ISO-8859-1"}))

    assert call(make_provider(name, upstream), plain_request(name)).content == "Paris"
