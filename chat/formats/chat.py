"""The chat request as HTTP has it: what is accepted, and why something is not.

Every 400 about a body is decided here or in ``chat.formats.strict_json``. Nothing is coerced:
``"1"`` is not 1 and ``true`` is not 1. A field's description is its rule; the OpenAPI document and
the error messages are both made of it, so that they cannot disagree.
"""

from __future__ import annotations

import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
)

from chat.errors import InvalidRequest
from chat.formats.shapes import BASE64, MESSAGE, NAMED
from chat.formats.strict_json import parse_object, shown
from chat.formats.validation import validated
from chat.types import JSON, ChatRequest, Lane, Message, Role, ToolCall, compact_json

__all__ = ["LONGEST_MODEL", "ChatBody", "ChatCall", "parse_chat", "read_chat"]


#: Characters of a model name; the longest ones in use are paths below hf.co.
LONGEST_MODEL = 256


def _model_name(name: str) -> str:
    if not name or len(name) > LONGEST_MODEL or name != name.strip() or not name.isprintable():
        raise ValueError
    return name


def _base64(text: str) -> str:
    if not text:
        raise ValueError
    binascii.a2b_base64(text, strict_mode=True)
    return text


ModelName = Annotated[
    str,
    AfterValidator(_model_name),
    Field(json_schema_extra={"maxLength": LONGEST_MODEL, "pattern": NAMED}),
]
Base64 = Annotated[
    str,
    AfterValidator(_base64),
    Field(json_schema_extra={"contentEncoding": "base64", "pattern": BASE64}),
]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Text = Annotated[str, StringConstraints(min_length=1)]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class Body(BaseModel):
    """Base of everything a caller sends: strict types and no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class CalledFunctionBody(Body):
    """Which function the model called, and with what."""

    name: Name = Field(description="a string of 1 to 128 characters")
    arguments: str | dict[str, Any] = Field(
        description="a JSON object, or a string that holds one (OpenAI sends a string)"
    )


class ToolCallBody(Body):
    """A function call that the model asked for earlier in the conversation."""

    id: Name = Field(description="a string of 1 to 128 characters")
    type: Literal["function"] = Field("function", description='"function"')
    function: CalledFunctionBody = Field(description='an object {"name", "arguments"}')


class MessageBody(Body):
    """One turn of the conversation."""

    model_config = ConfigDict(json_schema_extra=MESSAGE)

    role: Literal["system", "user", "assistant", "tool"] = Field(
        description='one of "system", "user", "assistant", "tool"'
    )
    content: str | None = Field(
        None, description="a string; null only in an assistant message with tool_calls"
    )
    images: list[Base64] | None = Field(
        None, description='a list of base64 strings without a "data:" prefix or line breaks'
    )
    tool_calls: list[ToolCallBody] | None = Field(
        None, description='a list of {"id", "type": "function", "function": {"name", "arguments"}}'
    )
    tool_call_id: Name | None = Field(None, description="a string of 1 to 128 characters")
    reasoning: str | None = Field(None, description="a string: the reasoning of an earlier answer")


class FunctionBody(Body):
    """A function the model may call."""

    name: Name = Field(description="a string of 1 to 128 characters")
    description: str | None = Field(None, description="a string that tells the model what it does")
    parameters: dict[str, Any] | None = Field(
        None, description="an object: the JSON Schema of the arguments"
    )
    strict: bool | None = Field(None, description="true or false")


class ToolBody(Body):
    """A tool the model may use; functions are the only kind."""

    type: Literal["function"] = Field(description='"function"')
    function: FunctionBody = Field(
        description='an object {"name", "description", "parameters", "strict"}'
    )


class ChosenFunctionBody(Body):
    """The name of the function that has to be called."""

    name: Name = Field(description="a string of 1 to 128 characters")


class ToolChoiceBody(Body):
    """One function that has to be called."""

    type: Literal["function"] = Field(description='"function"')
    function: ChosenFunctionBody = Field(description='an object {"name"}')


class ChatBody(Body):
    """The body of ``POST /v1/chat`` and ``POST /v1/jobs``."""

    model: ModelName = Field(
        description="a string of 1 to 256 characters without control characters "
        "or surrounding spaces"
    )
    messages: list[MessageBody] = Field(min_length=1, description="a non-empty list of messages")
    max_tokens: int | None = Field(
        None, ge=1, le=2**31 - 1, description="an integer from 1 to 2147483647"
    )
    temperature: float | None = Field(None, ge=0, le=2, description="a number from 0 to 2")
    top_p: float | None = Field(None, gt=0, le=1, description="a number above 0 and at most 1")
    seed: int | None = Field(
        None, ge=-(2**63), le=2**63 - 1, description="an integer of at most 64 bits"
    )
    stop: Text | Annotated[list[Text], Field(max_length=16)] | None = Field(
        None, description="a non-empty string, or a list of at most 16 of them"
    )
    format: Literal["json"] | dict[str, Any] | None = Field(
        None, description='"json", or an object: the JSON Schema of the answer'
    )
    think: bool | Literal["low", "medium", "high", "max"] | None = Field(
        None, description='true, false, or one of "low", "medium", "high", "max"'
    )
    tools: list[ToolBody] | None = Field(
        None, description='a list of {"type": "function", "function": {"name", …}}'
    )
    tool_choice: Literal["auto", "none", "required"] | ToolChoiceBody | None = Field(
        None,
        description='"auto", "none", "required" or {"type": "function", "function": {"name"}}',
    )
    timeout_s: float | None = Field(
        None, ge=0, description="a number of seconds from 0 up, where 0 is the default"
    )
    lane: Literal["interactive", "batch"] | None = Field(
        None, description='"interactive" or "batch"'
    )
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] | None = Field(
        None,
        description="an object of at most 16 strings; keys of 1 to 64 characters, "
        "values of at most 512",
    )
    stream: bool | None = Field(
        None, description="true for the answer piece by piece as it comes, else false"
    )


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A valid chat request; ``lane`` and ``timeout_s`` are ``None`` if the caller said nothing."""

    request: ChatRequest
    lane: Lane | None
    timeout_s: float | None
    metadata: dict[str, str]

    @property
    def body_hash(self) -> str:
        """What an Idempotency-Key is compared by: equal for bodies that ask for the same.

        Layout, key order and fields that only repeat a default of this format make no difference.
        """
        asked = {
            "request": self.request.to_wire(),
            "lane": self.lane,
            "timeout_s": self.timeout_s,
            "metadata": self.metadata,
        }
        canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    @classmethod
    def from_body(cls, body: ChatBody) -> Self:
        """The call that a body of valid shape asks for.

        Raises ``InvalidRequest`` for the rules that join several fields.
        """
        _check_tool_choice(body)
        return cls(
            request=ChatRequest(
                model=body.model,
                messages=tuple(_message(i, m) for i, m in enumerate(body.messages)),
                max_tokens=body.max_tokens,
                temperature=body.temperature,
                top_p=body.top_p,
                seed=body.seed,
                stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
                format=body.format,
                think=body.think,
                tools=tuple(tool.model_dump(exclude_none=True) for tool in body.tools or ()),
                tool_choice=(
                    body.tool_choice.model_dump()
                    if isinstance(body.tool_choice, ToolChoiceBody)
                    else body.tool_choice
                ),
                stream=bool(body.stream),
            ),
            lane=None if body.lane is None else Lane(body.lane),
            timeout_s=body.timeout_s or None,
            metadata=body.metadata or {},
        )


def parse_chat(raw: bytes, *, max_timeout_s: float) -> ChatCall:
    """The chat call that a request body asks for; see ``read_chat``."""
    return read_chat(parse_object(raw), max_timeout_s=max_timeout_s)


def read_chat(value: JSON, *, max_timeout_s: float) -> ChatCall:
    """The chat call that a decoded body asks for.

    ``max_timeout_s`` is the most that ``timeout_s`` may be. Raises ``InvalidRequest`` that names
    the field, the value, the rule and the way out.
    """
    body = validated(ChatBody, value)
    if body.timeout_s is not None and body.timeout_s > max_timeout_s:
        raise InvalidRequest(
            f"timeout_s is {shown(value['timeout_s'])}, but at most {max_timeout_s:g} is allowed "
            "(max_timeout_s in lakehouse.toml); ask for less",
            param="timeout_s",
        )
    return ChatCall.from_body(body)


def _check_tool_choice(body: ChatBody) -> None:
    names = [tool.function.name for tool in body.tools or ()]
    if body.tool_choice == "required" and not names:
        raise InvalidRequest(
            'tool_choice is "required", but there are no tools; send tools or leave it out',
            param="tool_choice",
        )
    if isinstance(body.tool_choice, ToolChoiceBody):
        chosen = body.tool_choice.function.name
        if chosen not in names:
            raise InvalidRequest(
                f"tool_choice.function.name is {shown(chosen)}, but tools has no such function; "
                "add it to tools or choose one of them",
                param="tool_choice.function.name",
            )


def _message(index: int, body: MessageBody) -> Message:
    where = f"messages[{index}]"
    if body.tool_calls and body.role != "assistant":
        raise InvalidRequest(
            f"{where}.tool_calls stands in a message of role {shown(body.role)}, but only an "
            "assistant calls tools; leave it out or correct the role",
            param=f"{where}.tool_calls",
        )
    if body.content is None and not body.tool_calls:
        raise InvalidRequest(
            f"{where}.content is missing or null, but must be a string unless an assistant message "
            'has tool_calls; send "" for an empty one',
            param=f"{where}.content",
        )
    if body.role == "tool" and body.tool_call_id is None:
        raise InvalidRequest(
            f"{where}.tool_call_id is missing; a message of role tool answers one call: "
            "send the id of that call",
            param=f"{where}.tool_call_id",
        )
    if body.role != "tool" and body.tool_call_id is not None:
        raise InvalidRequest(
            f"{where}.tool_call_id stands in a message of role {shown(body.role)}, but only a "
            "message of role tool answers a call; leave it out or correct the role",
            param=f"{where}.tool_call_id",
        )
    calls = body.tool_calls or ()
    return Message(
        role=Role(body.role),
        content=body.content or "",
        images=tuple(body.images or ()),
        tool_calls=tuple(
            _tool_call(f"{where}.tool_calls[{number}]", call) for number, call in enumerate(calls)
        ),
        tool_call_id=body.tool_call_id,
        reasoning=body.reasoning,
    )


def _tool_call(where: str, body: ToolCallBody) -> ToolCall:
    arguments = body.function.arguments
    if isinstance(arguments, dict):
        text = compact_json(arguments)
    elif arguments.strip():
        text = arguments
        _check_arguments(f"{where}.function.arguments", text)
    else:
        # Some models write nothing at all when a function takes no argument.
        text = "{}"
    return ToolCall(id=body.id, name=body.function.name, arguments=text)


def _check_arguments(where: str, text: str) -> None:
    try:
        parse_object(text.encode())
    except InvalidRequest as error:
        raise InvalidRequest(
            f"{where} is {shown(text)}, but must be a string that holds a JSON object: "
            f"{error.message.replace('the body', 'it')}",
            param=where,
        ) from error
