"""The wire of Ollama, local or in the cloud. Source: api/types.go and docs/api of ollama/ollama."""

from __future__ import annotations

import json
from collections.abc import Iterable

from chat.errors import InvalidRequest, UpstreamProtocolError
from chat.providers.fields import Fields, parse_json
from chat.types import (
    JSON,
    Billed,
    ChatRequest,
    ChatResponse,
    FinishReason,
    Message,
    Role,
    ToolCall,
)

__all__ = ["call_from_wire", "chat_body", "chat_response", "generate_response", "settings"]

#: What stands for no word on thinking, and for levels that Ollama does not have: the nearest one.
_THINK: dict[bool | str | None, bool | str] = {None: False, "minimal": "low", "xhigh": "high"}


def settings(request: ChatRequest) -> JSON:
    """What /api/chat and /api/generate take alike.

    ``think`` is always sent: left out, models that can think do so, and spend a small token limit
    on it before the first word of the answer.
    """
    wire: JSON = {
        "model": request.model,
        "stream": False,
        "think": _THINK.get(request.think, request.think),
    }
    options = {
        "num_predict": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": list(request.stop) or None,
    }
    known = {name: value for name, value in options.items() if value is not None}
    if known:
        wire["options"] = known
    if request.format is not None:
        wire["format"] = request.format
    return wire


def chat_body(request: ChatRequest) -> JSON:
    """The body of /api/chat.

    Raises InvalidRequest for what Ollama cannot express: a forced tool choice, one tool call at a
    time, or tool arguments that are not a JSON object.
    """
    wire = settings(request)
    wire["messages"] = _messages(request.messages)
    if request.tools and _may_call_tools(request):
        wire["tools"] = list(request.tools)
    return wire


def _may_call_tools(request: ChatRequest) -> bool:
    """Ollama has no ``tool_choice``: the model always decides, so that two wishes can be met."""
    choice = request.tool_choice
    if choice not in (None, "auto", "none"):
        raise InvalidRequest(
            f"tool_choice {json.dumps(choice)}: Ollama cannot make a model call a tool; "
            'use "auto" or "none"',
            param="tool_choice",
        )
    if choice == "none":
        return False
    if request.parallel_tool_calls is False:
        raise InvalidRequest(
            "parallel_tool_calls false: Ollama cannot keep a model from calling several tools at "
            "once; leave it out",
            param="parallel_tool_calls",
        )
    return True


def _messages(messages: Iterable[Message]) -> list[JSON]:
    tool_names: dict[str, str] = {}
    wire = []
    for message in messages:
        tool_names.update((call.id, call.name) for call in message.tool_calls)
        wire.append(_message(message, tool_names))
    return wire


def _message(message: Message, tool_names: dict[str, str]) -> JSON:
    """One message. A tool result also has the tool's name, which Ollama's templates ask for."""
    wire: JSON = {"role": message.role.value, "content": message.content}
    if message.reasoning:
        wire["thinking"] = message.reasoning
    if message.images:
        wire["images"] = list(message.images)
    if message.tool_calls:
        wire["tool_calls"] = [
            _tool_call(index, call) for index, call in enumerate(message.tool_calls)
        ]
    if message.role is Role.TOOL and message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
        if message.tool_call_id in tool_names:
            wire["tool_name"] = tool_names[message.tool_call_id]
    return wire


def _tool_call(index: int, call: ToolCall) -> JSON:
    """A tool call; unlike OpenAI, Ollama wants the arguments as an object."""
    try:
        arguments = parse_json(call.arguments)
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequest(
            f"tool call {call.id!r} of {call.name!r}: its arguments are not a JSON object, "
            "and Ollama takes nothing else; correct them or leave the call out",
            param="messages",
        )
    return {
        "id": call.id,
        "function": {"index": index, "name": call.name, "arguments": arguments},
    }


def chat_response(answer: Fields) -> ChatResponse:
    """Read an answer of /api/chat."""
    if "message" not in answer:
        raise answer.fault("message", "an object")
    message = answer.child("message")
    calls = tuple(
        call_from_wire(index, call) for index, call in enumerate(message.children("tool_calls"))
    )
    return _response(answer, message, "content", calls)


def generate_response(answer: Fields) -> ChatResponse:
    """Read an answer of /api/generate."""
    if "response" not in answer:
        raise answer.fault("response", "a string")
    return _response(answer, answer, "response", ())


def _response(
    answer: Fields, source: Fields, text: str, calls: tuple[ToolCall, ...]
) -> ChatResponse:
    content = source.text(text) or ""
    return ChatResponse(
        content=content,
        finish_reason=_finish_reason(answer, content, calls),
        reasoning=source.text("thinking") or None,
        tool_calls=calls,
        input_tokens=answer.count("prompt_eval_count"),
        output_tokens=answer.count("eval_count"),
    )


def _finish_reason(answer: Fields, content: str, calls: tuple[ToolCall, ...]) -> FinishReason:
    """Why the model stopped.

    ``done_reason`` stays ``stop`` when tools are called. Without ``done`` the server broke off, for
    instance when the model repeated itself (server/routes.go). ``load`` and ``unload`` are the
    answers to an empty prompt: the model was loaded, and nothing was generated.
    """
    if calls:
        return FinishReason.TOOL_CALLS
    reason = answer.text("done_reason")
    if reason in ("load", "unload") and not content:
        raise UpstreamProtocolError(
            f"{answer.provider} only did a model {reason} and generated nothing, which is how it "
            "takes an empty prompt; send a message with text",
            provider=answer.provider,
            upstream_status=answer.status,
            billed=Billed.NO,
        )
    if reason == "length" or not answer.flag("done"):
        return FinishReason.LENGTH
    return FinishReason.STOP


def call_from_wire(index: int, call: Fields) -> ToolCall:
    """A tool call; daemons from before ids existed send none, so the position makes one."""
    function = call.child("function")
    name = function.text("name")
    if not name:
        raise function.fault("name", "the name of a tool")
    arguments = function.object_text("arguments") or "{}"
    return ToolCall(id=call.text("id") or f"call_{index}", name=name, arguments=arguments)
