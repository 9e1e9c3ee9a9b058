"""What each provider sends: every example request, to the byte of its JSON."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from chat.errors import InvalidRequest
from chat.providers.ollama_cloud import OllamaCloud
from chat.providers.upstream import Upstream
from chat.types import ChatRequest, Message, Provider, Role, ToolCall
from tests.upstream import Answer, ScriptedUpstream
from tests.wire.providers import (
    MODELS,
    PROVIDERS,
    SECRETS,
    call,
    load,
    plain_request,
    request_files,
    request_of,
)

_LEFT_OUT = object()

#: Where the body differs from the example on purpose.
_BODY_DIFFERENCES: dict[str, dict[str, object]] = {
    # How long a model stays loaded is the daemon's own setting.
    "ollama/chat.ok.req.json": {"keep_alive": _LEFT_OUT},
    # These show what happens without `think`; chatd always says it.
    "ollama/chat.length_empty.req.json": {"think": False},
    "ollama/chat.load_only.req.json": {"think": False},
    # Zen asks for the counts by itself only where it passes a request through.
    "opencode/stream.ok.req.json": {"stream_options": {"include_usage": True}},
    # The other way to give /api/generate a system message; chatd flattens, so that the order of
    # messages is kept whatever they are.
    "ollama_cloud/generate.system_field.req.json": {
        "system": _LEFT_OUT,
        "prompt": "System: Answer in one word.\n\nUser: Capital of France?\n\nAssistant:",
    },
    # A ChatRequest carries a schema without a name.
    "openrouter/chat.json_schema.req.json": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "answer",
                "strict": True,
                "schema": {
                    "type": "object",
                    "properties": {"capital": {"type": "string"}},
                    "required": ["capital"],
                    "additionalProperties": False,
                },
            },
        }
    },
}

#: And where a header does: chatd names itself, and has no address to refer to.
_HEADER_DIFFERENCES = {"http-referer": None, "x-openrouter-title": "chatd"}

_ANSWERS = {
    "/api/chat": {"message": {"role": "assistant", "content": "{}"}, "done": True},
    "/api/generate": {"response": "{}", "done": True},
    "/chat/completions": {
        "choices": [{"message": {"role": "assistant", "content": "{}"}, "finish_reason": "stop"}]
    },
}


@pytest.fixture
def answering(upstream: ScriptedUpstream) -> ScriptedUpstream:
    """An upstream with an answer for every path."""
    upstream.always(
        lambda request: Answer.json(
            next(answer for path, answer in _ANSWERS.items() if request.path.endswith(path))
        )
    )
    return upstream


@pytest.mark.parametrize("file", request_files())
def test_the_request_is_the_one_of_the_example(
    answering: ScriptedUpstream, make_provider: Callable[..., Provider], file: str
) -> None:
    """Method, path, headers and body are the example's, apart from the listed differences."""
    example = load(file)
    name = file.partition("/")[0]
    streamed = example["body"].get("stream", False)
    expected = {**example["body"], "stream": streamed, **_BODY_DIFFERENCES.get(file, {})}
    expected = {key: value for key, value in expected.items() if value is not _LEFT_OUT}

    # Left alone, Ollama Cloud would take its other call for a system message and a question.
    api = "chat" if file == "ollama_cloud/chat.ok.req.json" else "auto"

    deltas = (lambda _: None) if streamed else None
    call(make_provider(name, answering, api=api), request_of(file), deltas=deltas)

    [sent] = answering.requests
    assert sent.method == example["method"]
    assert sent.path == urlsplit(example["url"]).path
    assert sent.json() == expected
    for header, value in example["headers"].items():
        assert sent.headers.get(header) == _HEADER_DIFFERENCES.get(header, value)


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_caller_is_named_honestly_and_compression_is_declined(
    answering: ScriptedUpstream, make_provider: Callable[..., Provider], name: str
) -> None:
    """The User-Agent is our own; the body has a length; nothing else identifies a product."""
    call(make_provider(name, answering), plain_request(name))

    headers = answering.requests[0].headers
    assert headers["user-agent"].startswith("chatd/")
    assert headers["accept-encoding"] == "identity"
    assert headers["content-type"] == "application/json"
    assert "transfer-encoding" not in headers


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_key_goes_into_the_header_and_nowhere_else(
    answering: ScriptedUpstream, make_provider: Callable[..., Provider], name: str
) -> None:
    """A provider with a key sends it as a bearer token; local Ollama sends none."""
    provider = make_provider(name, answering)
    call(provider, plain_request(name))

    [sent] = answering.requests
    secret = SECRETS[name]
    if secret is None:
        assert "authorization" not in sent.headers
    else:
        key = secret.reveal()
        others = {k: v for k, v in sent.headers.items() if k != "authorization"}
        assert sent.headers["authorization"] == f"Bearer {key}"
        assert key not in f"{sent.path} {others} {sent.body!r} {provider!r} {vars(provider)!r}"


def test_opencode_go_has_its_own_base_url(
    answering: ScriptedUpstream, make_provider: Callable[..., Provider]
) -> None:
    """The prefix chooses the catalogue and does not go upstream; other ids go to Zen."""
    provider = make_provider("opencode", answering)
    message = (Message(Role.USER, "hello"),)
    call(provider, ChatRequest("opencode-go/kimi-k2.6", message))
    call(provider, ChatRequest("kimi-k2.6", message))

    sent = [(request.path, request.json()["model"]) for request in answering.requests]
    assert sent == [
        ("/zen/go/v1/chat/completions", "kimi-k2.6"),
        ("/zen/v1/chat/completions", "kimi-k2.6"),
    ]


_USER = Message(Role.USER, "hello")
_SYSTEM = Message(Role.SYSTEM, "be kind")
_TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
_PICTURE = Message(Role.USER, "what is this?", images=("iVBORw0KGgo=",))


@pytest.mark.parametrize(
    ("api", "request_", "path"),
    [
        pytest.param("auto", ChatRequest("m", (_USER,)), "/api/generate", id="auto: one turn"),
        pytest.param(
            "auto", ChatRequest("m", (_SYSTEM, _USER)), "/api/generate", id="auto: system and user"
        ),
        pytest.param(
            "auto", ChatRequest("m", (_USER, _USER)), "/api/chat", id="auto: two user turns"
        ),
        pytest.param(
            "auto",
            ChatRequest("m", (_USER, Message(Role.ASSISTANT, "hi"))),
            "/api/chat",
            id="auto: an assistant turn",
        ),
        pytest.param(
            "auto", ChatRequest("m", (_USER,), tools=(_TOOL,)), "/api/chat", id="auto: tools"
        ),
        pytest.param("auto", ChatRequest("m", (_PICTURE,)), "/api/chat", id="auto: an image"),
        pytest.param(
            "generate", ChatRequest("m", (_USER, _USER)), "/api/generate", id="generate: two turns"
        ),
        pytest.param(
            "generate", ChatRequest("m", (_PICTURE,)), "/api/generate", id="generate: an image"
        ),
        pytest.param("chat", ChatRequest("m", (_USER,)), "/api/chat", id="chat: one turn"),
    ],
)
def test_ollama_cloud_takes_the_call_that_keeps_what_the_request_has(
    answering: ScriptedUpstream,
    make_upstream: Callable[..., Upstream],
    api: str,
    request_: ChatRequest,
    path: str,
) -> None:
    """With "auto", only a request that flattening would harm goes to /api/chat."""
    call(OllamaCloud(make_upstream(answering.url, "ollama_cloud"), api), request_)

    assert answering.requests[0].path == path


def test_nothing_is_sent_when_generate_is_forced_and_tools_are_wanted(
    answering: ScriptedUpstream, make_upstream: Callable[..., Upstream]
) -> None:
    """The error names the setting and the way out."""
    provider = OllamaCloud(make_upstream(answering.url, "ollama_cloud"), "generate")

    with pytest.raises(InvalidRequest, match=r'ollama_cloud_api = "generate".*"auto"') as caught:
        call(provider, ChatRequest("m", (_USER,), tools=(_TOOL,)))

    assert caught.value.param == "tools"
    assert answering.requests == []


@pytest.mark.parametrize("name", PROVIDERS)
def test_half_a_surrogate_pair_in_a_prompt_is_no_fault(
    answering: ScriptedUpstream, make_provider: Callable[..., Provider], name: str
) -> None:
    """JSON can carry it as an escape, though UTF-8 cannot."""
    call(
        make_provider(name, answering),
        ChatRequest(MODELS[name], (Message(Role.USER, "broken \ud83d here"),)),
    )

    assert rb"broken \ud83d here" in answering.requests[0].body


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_request_that_is_no_json_is_refused_before_anything_is_sent(
    answering: ScriptedUpstream, make_provider: Callable[..., Provider], name: str
) -> None:
    """NaN in a tool's schema would be invalid JSON on the wire."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"x": float("nan")}}}

    with pytest.raises(InvalidRequest, match="NaN"):
        call(make_provider(name, answering), ChatRequest("m", (_USER,), tools=(tool,)))

    assert answering.requests == []


def test_ollama_refuses_tool_arguments_that_are_no_object(
    answering: ScriptedUpstream, make_provider: Callable[..., Provider]
) -> None:
    """Ollama's wire has an object where OpenAI's has text, and a broken text has no object."""
    asked = Message(Role.ASSISTANT, "", tool_calls=(ToolCall("c1", "f", "{broken"),))

    with pytest.raises(InvalidRequest, match="'c1' of 'f'"):
        call(make_provider("ollama", answering), ChatRequest("m", (_USER, asked)))

    assert answering.requests == []
