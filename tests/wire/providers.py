"""The five providers as the wire tests build them, and the example payloads they are held to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chat.keys import Secret
from chat.providers.ollama import Ollama
from chat.providers.ollama_cloud import OllamaCloud
from chat.providers.openai_compat import kimi, opencode, openrouter
from chat.providers.upstream import Upstream
from chat.types import (
    Cancelled,
    ChatRequest,
    ChatResponse,
    Deadline,
    Deltas,
    Message,
    Provider,
    Role,
    ToolCall,
)

__all__ = [
    "MODELS",
    "NOW",
    "PROVIDERS",
    "SECRETS",
    "answer_files",
    "call",
    "common_files",
    "error_files",
    "load",
    "plain_request",
    "provider_at",
    "request_files",
    "request_of",
    "stream_api",
    "stream_files",
    "stream_of",
]

PROVIDERS = ("ollama", "ollama_cloud", "openrouter", "opencode", "kimi")

#: The keys of the example requests.
SECRETS = {
    "ollama": None,
    "ollama_cloud": Secret("ok_test_0000"),
    "openrouter": Secret("sk-or-v1-test"),
    "opencode": Secret("sk-test-opencode"),
    "kimi": Secret("sk-kimi-test"),
}

MODELS = {
    "ollama": "qwen3:8b",
    "ollama_cloud": "kimi-k2.6",
    "openrouter": "moonshotai/kimi-k2.6",
    "opencode": "glm-5.2",
    "kimi": "kimi-for-coding",
}

#: The clock of the calls, in seconds since the epoch; the examples' time limits count from here.
NOW = 1_790_000_000.0

_PAYLOADS = Path(__file__).parent / "payloads"


def provider_at(name: str, upstream: Callable[[str], Upstream], *, api: str = "auto") -> Provider:
    """A provider; ``upstream`` makes the Upstream for the path of a base URL."""
    match name:
        case "ollama":
            return Ollama(upstream(""))
        case "ollama_cloud":
            return OllamaCloud(upstream(""), api)
        case "openrouter":
            return openrouter(upstream("/api/v1"))
        case "opencode":
            return opencode(upstream("/zen/v1"), upstream("/zen/go/v1"))
        case "kimi":
            return kimi(upstream("/coding/v1"))
    raise AssertionError(name)


def call(
    provider: Provider,
    request: ChatRequest,
    *,
    within_s: float = 60.0,
    deltas: Deltas | None = None,
) -> ChatResponse:
    """One call that nobody cancels."""
    return provider.chat(
        request, deadline=Deadline.after(within_s), cancelled=Cancelled(), deltas=deltas
    )


def plain_request(name: str) -> ChatRequest:
    """A question in one turn, for ``name``."""
    return ChatRequest(MODELS[name], (Message(Role.USER, "Capital of France?"),))


def load(file: str) -> dict[str, Any]:
    """An example payload by its path, such as ``kimi/chat.ok.json``."""
    payload: dict[str, Any] = json.loads((_PAYLOADS / file).read_text("utf-8"))
    return payload


def stream_of(file: str) -> bytes:
    """The body of an example answer that comes in records."""
    return (_PAYLOADS / file).read_bytes()


def stream_files() -> list[str]:
    """The example answers that come in records."""
    return [file for suffix in ("ndjson", "sse") for file in _files(suffix)]


def stream_api(file: str) -> str:
    """The call whose answers an example stream is about."""
    return "generate" if "/stream.generate" in file else "chat"


def request_files() -> list[str]:
    """The example requests."""
    return [file for file in _files() if file.endswith(".req.json")]


def answer_files() -> list[str]:
    """The example answers of single providers that are no error answers."""
    return [
        file
        for file in _files()
        if not file.endswith(".req.json") and "/error." not in file and not _is_common(file)
    ]


def error_files() -> list[str]:
    """The example error answers of single providers."""
    return [file for file in _files() if "/error." in file and not _is_common(file)]


def common_files() -> list[str]:
    """The example answers that every provider can show."""
    return [file for file in _files() if _is_common(file)]


def _is_common(file: str) -> bool:
    return file.startswith("common/")


def _files(suffix: str = "json") -> list[str]:
    paths = _PAYLOADS.rglob(f"*.{suffix}")
    return sorted(path.relative_to(_PAYLOADS).as_posix() for path in paths)


def request_of(file: str) -> ChatRequest:
    """The ChatRequest that should be sent as the example request ``file``."""
    payload = load(file)
    body = payload["body"]
    model = body["model"]
    if "/zen/go/" in payload["url"]:
        model = f"opencode-go/{model}"
    if "prompt" in body:
        return _from_native(model, _unflattened(body), body)
    if payload["url"].endswith("/api/chat"):
        messages = tuple(_native_message(message) for message in body["messages"])
        return _from_native(model, messages, body)
    return _from_openai(model, body)


def _from_native(model: str, messages: tuple[Message, ...], body: dict[str, Any]) -> ChatRequest:
    """Ollama's own shape; ``think: false`` is what chatd sends when nobody asks for anything."""
    options = body.get("options", {})
    return ChatRequest(
        model,
        messages,
        max_tokens=options.get("num_predict"),
        temperature=options.get("temperature"),
        top_p=options.get("top_p"),
        seed=options.get("seed"),
        stop=tuple(options.get("stop", ())),
        format=body.get("format"),
        think=body.get("think") or None,
        tools=tuple(body.get("tools", ())),
    )


def _unflattened(body: dict[str, Any]) -> tuple[Message, ...]:
    prompt = body["prompt"]
    if "system" in body:
        return (Message(Role.SYSTEM, body["system"]), Message(Role.USER, prompt))
    if not prompt.startswith("System: "):
        return (Message(Role.USER, prompt),)
    system, user, cue = prompt.split("\n\n")
    assert cue == "Assistant:"
    return (
        Message(Role.SYSTEM, system.removeprefix("System: ")),
        Message(Role.USER, user.removeprefix("User: ")),
    )


def _native_message(wire: dict[str, Any]) -> Message:
    calls = tuple(
        ToolCall(call["id"], call["function"]["name"], json.dumps(call["function"]["arguments"]))
        for call in wire.get("tool_calls", ())
    )
    return Message(
        Role(wire["role"]),
        wire["content"],
        images=tuple(wire.get("images", ())),
        tool_calls=calls,
        tool_call_id=wire.get("tool_call_id"),
    )


def _from_openai(model: str, body: dict[str, Any]) -> ChatRequest:
    wanted = body.get("response_format")
    wanted_format = None
    if wanted is not None:
        is_schema = wanted["type"] == "json_schema"
        wanted_format = wanted["json_schema"]["schema"] if is_schema else "json"
    return ChatRequest(
        model,
        tuple(_openai_message(message) for message in body["messages"]),
        max_tokens=body.get("max_tokens", body.get("max_completion_tokens")),
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        seed=body.get("seed"),
        stop=tuple(body.get("stop", ())),
        format=wanted_format,
        think=_openai_think(body),
        tools=tuple(body.get("tools", ())),
        tool_choice=body.get("tool_choice"),
    )


def _openai_think(body: dict[str, Any]) -> bool | str | None:
    effort: str | None = body.get("reasoning", body.get("thinking", {})).get("effort")
    return False if effort == "none" else effort


def _openai_message(wire: dict[str, Any]) -> Message:
    content = wire.get("content") or ""
    images: list[str] = []
    if isinstance(content, list):
        images = [
            part["image_url"]["url"].partition("base64,")[2]
            for part in content
            if part["type"] == "image_url"
        ]
        content = "".join(part["text"] for part in content if part["type"] == "text")
    return Message(
        Role(wire["role"]),
        content,
        images=tuple(images),
        tool_calls=tuple(ToolCall.from_wire(call) for call in wire.get("tool_calls", ())),
        tool_call_id=wire.get("tool_call_id"),
        reasoning=wire.get("reasoning_content"),
    )
