"""Ollama's ``POST /api/chat`` as the demo's model server reads it, and what llama.cpp is asked.

Pure functions and values. Error texts and statuses follow Ollama's server/routes.go and
api/types.go, mistakes included: a wrong option or format is a 500 there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MODEL", "ChatCall", "WireError", "parse_chat"]

#: The model's name in Ollama's library; its weights here are the Q4_1 quantisation.
MODEL = "smollm2:135m"

#: Ollama's option names with the JSON type it demands, and llama.cpp's names for the same.
_NUMBERS = {
    "num_predict": ("integer", "max_tokens"),
    "seed": ("integer", "seed"),
    "top_k": ("integer", "top_k"),
    "temperature": ("float32", "temperature"),
    "top_p": ("float32", "top_p"),
    "min_p": ("float32", "min_p"),
    "repeat_penalty": ("float32", "repeat_penalty"),
}


class WireError(Exception):
    """A refusal: an HTTP status and the text of ``{"error": …}``."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A checked request. ``sampling`` has llama.cpp's names; ``format`` is Ollama's own value."""

    messages: tuple[dict[str, str], ...]
    stream: bool
    sampling: dict[str, Any] = field(default_factory=dict)
    format: Any = None

    def to_llama(self) -> dict[str, Any]:
        """The body for llama.cpp's chat completions, always as a stream that ends with counts."""
        body: dict[str, Any] = {
            "messages": list(self.messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.sampling,
        }
        if self.format == "json":
            body["response_format"] = {"type": "json_object"}
        elif self.format:
            schema = {"name": "answer", "schema": self.format}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body


def parse_chat(body: bytes) -> ChatCall:
    """Read a request body; raises ``WireError`` with Ollama's status and text."""
    if not body:
        raise WireError(400, "missing request body")
    try:
        request = json.loads(body)
    except ValueError as error:
        raise WireError(400, str(error)) from error
    if not isinstance(request, dict):
        raise WireError(400, f"the body is a JSON {type(request).__name__}, not an object")
    _check_model(request)
    return ChatCall(
        messages=_messages(request.get("messages") or []),
        stream=request.get("stream") is not False,
        sampling=_sampling(request.get("options") or {}),
        format=_format(request.get("format")),
    )


def _check_model(request: dict[str, Any]) -> None:
    """That the model exists and can do what is asked of it: it neither thinks nor calls tools."""
    name = request.get("model")
    if not isinstance(name, str) or not name.strip():
        raise WireError(400, "model is required")
    if name.strip() != MODEL:
        raise WireError(404, f"model '{name.strip()}' not found")
    if request.get("think"):
        raise WireError(400, f'"{MODEL}" does not support thinking')
    if request.get("tools"):
        raise WireError(400, f"{MODEL} does not support tools")


def _messages(value: Any) -> tuple[dict[str, str], ...]:
    if not isinstance(value, list):
        raise WireError(400, "messages is not an array")
    return tuple(_message(item) for item in value)


def _message(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise WireError(400, "a message is not an object")
    role, content = value.get("role"), value.get("content", "")
    if not isinstance(role, str) or not isinstance(content, str):
        raise WireError(400, "a message's role and content are strings")
    if value.get("images"):
        raise WireError(400, f'"{MODEL}" does not support images')
    return {"role": role.lower(), "content": content}


def _sampling(options: Any) -> dict[str, Any]:
    """The options under llama.cpp's names; unknown ones are ignored, as Ollama does."""
    if not isinstance(options, dict):
        raise WireError(400, "options is not an object")
    sampling: dict[str, Any] = {}
    for name, (kind, llama_name) in _NUMBERS.items():
        value = options.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WireError(500, f'option "{name}" must be of type {kind}')
        sampling[llama_name] = int(value) if kind == "integer" else value
    if sampling.get("max_tokens", 1) < 1:
        del sampling["max_tokens"]  # Ollama's -1 and -2: as much as the context holds.
    stop = options.get("stop")
    if stop is not None:
        if not isinstance(stop, list) or not all(isinstance(word, str) for word in stop):
            raise WireError(500, 'option "stop" must be of an array of strings')
        sampling["stop"] = stop
    return sampling


def _format(value: Any) -> Any:
    if value in (None, "", "json") or isinstance(value, dict):
        return value
    raise WireError(
        500, f'invalid format: {json.dumps(value)}; expected "json" or a valid JSON Schema object'
    )
