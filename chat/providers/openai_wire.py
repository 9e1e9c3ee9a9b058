"""The wire of Chat Completions, as OpenRouter, OpenCode and Kimi have it."""

from __future__ import annotations

from chat.errors import InvalidRequest, UpstreamProtocolError, UpstreamUnavailable
from chat.providers.dialects import Dialect
from chat.providers.fields import Fields
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

__all__ = ["chat_body", "chat_response", "failed_choice"]

#: How the base64 text of an image begins, by its format's first bytes.
_IMAGE_TYPES = {
    "iVBORw0KGgo": "image/png",
    "/9j/": "image/jpeg",
    "R0lGOD": "image/gif",
    "UklGR": "image/webp",
}


def chat_body(dialect: Dialect, request: ChatRequest) -> JSON:
    """The body of /chat/completions.

    Raises InvalidRequest for an image of a format that these providers do not take.
    """
    wire: JSON = {
        "model": request.model,
        "messages": [_message(dialect, message) for message in request.messages],
        "stream": False,
    }
    fixed = dialect.fixed_sampling(request.model)
    optional = {
        dialect.token_limit: request.max_tokens,
        "temperature": None if fixed else request.temperature,
        "top_p": None if fixed else request.top_p,
        "seed": request.seed,
        "stop": list(request.stop) or None,
        "tools": list(request.tools) or None,
        "tool_choice": request.tool_choice,
        "parallel_tool_calls": request.parallel_tool_calls,
    }
    wire.update((name, value) for name, value in optional.items() if value is not None)
    if request.think is not None:
        wire.update(dialect.thinking(request.think))
    if request.format is not None:
        wire.update(_response_format(dialect, request.format, request.schema_info))
    return wire


def _response_format(dialect: Dialect, wanted: str | JSON, info: JSON | None) -> JSON:
    if isinstance(wanted, str):
        return {"response_format": {"type": "json_object"}}
    schema = {"name": "answer", "strict": True, **(info or {}), "schema": wanted}
    wire: JSON = {"response_format": {"type": "json_schema", "json_schema": schema}}
    if dialect.demands_parameters:
        wire["provider"] = {"require_parameters": True}
    return wire


def _message(dialect: Dialect, message: Message) -> JSON:
    wire: JSON = {"role": message.role.value, "content": _content(message)}
    if message.name is not None:
        wire["name"] = message.name
    if message.role is Role.TOOL:
        wire["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        wire["tool_calls"] = [call.to_wire() for call in message.tool_calls]
        if not message.content:
            wire["content"] = None
            if dialect.omits_empty_content:
                del wire["content"]
        if dialect.echoes_reasoning and message.reasoning:
            wire["reasoning_content"] = message.reasoning
    return wire


def _content(message: Message) -> str | list[JSON]:
    """Plain text, or parts where there are images; an empty text is no part."""
    if not message.images:
        return message.content
    parts: list[JSON] = [{"type": "text", "text": message.content}] if message.content else []
    return parts + [
        {"type": "image_url", "image_url": {"url": _data_url(image)}} for image in message.images
    ]


def _data_url(image: str) -> str:
    for beginning, media_type in _IMAGE_TYPES.items():
        if image.startswith(beginning):
            return f"data:{media_type};base64,{image}"
    raise InvalidRequest(
        f"image {image[:12]}…: this is no PNG, JPEG, GIF or WebP in base64, and the provider takes "
        "nothing else; convert it",
        param="messages",
    )


def chat_response(answer: Fields) -> ChatResponse:
    """Read an answer of /chat/completions whose first choice did not fail.

    Raises UpstreamUnavailable if nothing was generated, as happens while a provider behind
    OpenRouter starts a model (guides/features/zero-completion-insurance), and
    UpstreamProtocolError if there is no choice at all.
    """
    choice = _first_choice(answer)
    message = choice.child("message")
    calls = tuple(_tool_call(i, call) for i, call in enumerate(message.children("tool_calls")))
    refusal = message.text("refusal")
    content = message.text("content") or refusal or ""
    usage = answer.child("usage") if "usage" in answer else choice.child("usage")
    reasoning = message.text("reasoning") or message.text("reasoning_content") or None
    output_tokens = usage.count("completion_tokens")
    reason = FinishReason.CONTENT_FILTER if refusal else _finish_reason(choice, content, calls)
    if reason is None:
        raise _nothing_generated(answer, spent=bool(reasoning or output_tokens))
    return ChatResponse(
        content=content,
        finish_reason=reason,
        reasoning=reasoning,
        tool_calls=calls,
        input_tokens=usage.count("prompt_tokens"),
        output_tokens=output_tokens,
        cost_usd=_cost(answer, usage),
    )


def failed_choice(answer: Fields) -> Fields | None:
    """The first choice, if generating it failed half-way inside a 200 answer."""
    choice = _first_choice(answer)
    failed = bool(choice.values.get("error")) or choice.text("finish_reason") == "error"
    return choice if failed else None


def _first_choice(answer: Fields) -> Fields:
    choices = answer.children("choices")
    if not choices:
        raise UpstreamProtocolError(
            f"{answer.provider} answered {answer.status} without any choice; try another model",
            provider=answer.provider,
            upstream_status=answer.status,
        )
    return choices[0]


def _finish_reason(
    choice: Fields, content: str, calls: tuple[ToolCall, ...]
) -> FinishReason | None:
    """Why the model stopped; ``None`` if it said nothing and did not tell why.

    A reason that is ``null`` (OpenCode, when it translates) or unknown to us counts as ``stop``
    where there is something to show.
    """
    told = choice.text("finish_reason")
    if told == "length":
        return FinishReason.LENGTH
    if told == "content_filter":
        return FinishReason.CONTENT_FILTER
    if calls:
        return FinishReason.TOOL_CALLS
    return FinishReason.STOP if content or told == "stop" else None


def _nothing_generated(answer: Fields, *, spent: bool) -> UpstreamUnavailable:
    return UpstreamUnavailable(
        f"{answer.provider} answered without text, tool call or reason to stop, as it does while a "
        "model starts; try again later",
        provider=answer.provider,
        upstream_status=answer.status,
        billed=Billed.MAYBE if spent else Billed.NO,
    )


def _cost(answer: Fields, usage: Fields) -> float | None:
    """US dollars: OpenRouter's ``usage.cost``, a number, or OpenCode's ``cost``, a string."""
    cost = usage.amount("cost")
    return answer.amount("cost") if cost is None else cost


def _tool_call(index: int, call: Fields) -> ToolCall:
    function = call.child("function")
    name = function.text("name")
    if not name:
        raise function.fault("name", "the name of a tool")
    return ToolCall(
        id=call.text("id") or f"call_{index}",
        name=name,
        arguments=function.object_text("arguments") or "{}",
    )
