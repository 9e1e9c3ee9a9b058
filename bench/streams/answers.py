"""The answers of a scripted upstream on Ollama's and on OpenAI's wire, whole and piece by piece."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.streams.script import Script

__all__ = ["WIRES", "Wire"]

_INPUT_TOKENS = 7


@dataclass(frozen=True, slots=True)
class Wire:
    """One format: how an answer looks in it.

    ``pieces`` are the lines or events of a stream without its end, ``end`` is what follows them,
    ``error`` is an error in the middle, ``whole`` the answer of a call that wants no stream.
    ``streams_by_default`` says what a call gets that does not say.
    """

    content_type: str
    pieces: Callable[[Script, str], Iterator[bytes]]
    end: Callable[[Script, str], bytes]
    error: bytes
    whole: Callable[[Script, str], dict[str, Any]]
    streams_by_default: bool


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _counts(script: Script) -> dict[str, int]:
    return {"prompt_eval_count": _INPUT_TOKENS, "eval_count": len(script.said())}


def _ollama_line(model: str, message: dict[str, Any], **further: Any) -> bytes:
    line = {
        "model": model,
        "created_at": "2026-11-20T10:00:00.123456789Z",
        "message": {"role": "assistant", **message},
        "done": False,
        **further,
    }
    return _json(line) + b"\n"


def _ollama_call(script: Script) -> dict[str, Any]:
    tool = script.tool or {}
    call = {"id": "call_7", "function": {"index": 0, **tool}}
    return {"content": "", "tool_calls": [call]}


def _ollama_pieces(script: Script, model: str) -> Iterator[bytes]:
    if script.thinking:
        yield _ollama_line(model, {"content": "", "thinking": script.thinking})
    for piece in () if script.tool else script.said():
        yield _ollama_line(model, {"content": piece})
    if script.tool:
        yield _ollama_line(model, _ollama_call(script))


def _ollama_end(script: Script, model: str) -> bytes:
    return _ollama_line(model, {"content": ""}, done=True, done_reason="stop", **_counts(script))


def _ollama_whole(script: Script, model: str) -> dict[str, Any]:
    message = _ollama_call(script) if script.tool else {"content": script.whole()}
    if script.thinking:
        message["thinking"] = script.thinking
    return {
        "model": model,
        "message": {"role": "assistant", **message},
        "done": True,
        "done_reason": "stop",
        **_counts(script),
    }


def _chunk(model: str, **further: Any) -> bytes:
    head = {"id": "gen-1", "object": "chat.completion.chunk", "created": 1760000000, "model": model}
    return b"data: " + _json({**head, **further}) + b"\n\n"


def _delta(model: str, delta: dict[str, Any], finish: str | None = None) -> bytes:
    return _chunk(model, choices=[{"index": 0, "delta": delta, "finish_reason": finish}])


def _openai_call(script: Script) -> tuple[str, str]:
    tool = script.tool or {}
    return tool["name"], json.dumps(tool["arguments"])


def _openai_pieces(script: Script, model: str) -> Iterator[bytes]:
    if script.thinking:
        yield _delta(model, {"reasoning_content": script.thinking})
    for piece in () if script.tool else script.said():
        yield _delta(model, {"content": piece})
    if not script.tool:
        return
    name, arguments = _openai_call(script)
    begun = {"index": 0, "id": "call_7", "type": "function"}
    yield _delta(model, {"tool_calls": [{**begun, "function": {"name": name, "arguments": ""}}]})
    for at in range(0, len(arguments), 5):
        function = {"arguments": arguments[at : at + 5]}
        yield _delta(model, {"tool_calls": [{"index": 0, "function": function}]})


def _usage(script: Script) -> dict[str, int]:
    said = len(script.said())
    counts = {"prompt_tokens": _INPUT_TOKENS, "completion_tokens": said}
    return {**counts, "total_tokens": _INPUT_TOKENS + said}


def _openai_end(script: Script, model: str) -> bytes:
    finish = "tool_calls" if script.tool else "stop"
    usage = _chunk(model, choices=[], usage=_usage(script))
    return _delta(model, {}, finish) + usage + b"data: [DONE]\n\n"


def _openai_whole(script: Script, model: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": script.whole()}
    if script.tool:
        name, arguments = _openai_call(script)
        call = {"type": "function", "function": {"name": name, "arguments": arguments}}
        message = {"role": "assistant", "content": None, "tool_calls": [{"id": "call_7", **call}]}
    if script.thinking:
        message["reasoning_content"] = script.thinking
    finish = "tool_calls" if script.tool else "stop"
    return {
        "id": "gen-1",
        "object": "chat.completion",
        "created": 1760000000,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": _usage(script),
    }


_OLLAMA = Wire(
    "application/x-ndjson",
    _ollama_pieces,
    _ollama_end,
    b'{"error":"an error was encountered while running the model"}\n',
    _ollama_whole,
    streams_by_default=True,
)
_OPENAI = Wire(
    "text/event-stream",
    _openai_pieces,
    _openai_end,
    b'data: {"error":{"code":502,"message":"the provider lost the model"}}\n\n',
    _openai_whole,
    streams_by_default=False,
)

#: By the path that is asked.
WIRES = {
    b"/api/chat": _OLLAMA,
    b"/v1/chat/completions": _OPENAI,
    b"/chat/completions": _OPENAI,
}
