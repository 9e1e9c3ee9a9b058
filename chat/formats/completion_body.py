"""The body of OpenAI's Chat Completions, as far as chatd can do what it asks for.

Every field of OpenAI's is known here (openai/openai-openapi, ``CreateChatCompletionRequest``, of
August 2026). Some are passed on. Those of ``IGNORED`` cannot change an answer; they are accepted,
and the caller is told that they were not passed on. The rest accept only the value that asks for
nothing, and their description, of which the message of the 400 is made, says why.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from chat.formats.chat import (
    Body,
    CalledFunctionBody,
    MetadataKey,
    MetadataValue,
    ModelName,
    Name,
    Text,
    ToolBody,
    ToolCallBody,
    ToolChoiceBody,
)
from chat.formats.shapes import COMPLETION_MESSAGE, IMAGE_URL, PART, RESPONSE_FORMAT, STREAMED

__all__ = ["IGNORED", "CompletionBody", "CompletionMessageBody", "PartBody"]

#: Accepted and not passed on: about the caller's end user, a provider's cache or speed.
IGNORED = (
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "prediction",
)


def _off(switch: bool) -> bool:  # noqa: FBT001 - pydantic passes it by place
    if switch:
        raise ValueError
    return switch


#: Not ``Literal[False]``, which takes 0 as well.
Off = Annotated[bool, AfterValidator(_off), Field(json_schema_extra={"const": False})]


class ImageUrlBody(Body):
    """An image, in the URL itself."""

    url: str = Field(
        description='a data URL: "data:image/png;base64,…"',
        json_schema_extra={"pattern": IMAGE_URL},
    )
    detail: Literal["auto", "low", "high"] | None = Field(
        None, description='"auto", "low" or "high"; not passed on'
    )


class PartBody(Body):
    """A part of a message's content."""

    model_config = ConfigDict(json_schema_extra=PART)

    type: Literal["text", "image_url", "refusal"] = Field(
        description='"text", "image_url" or "refusal": chatd carries text and images only'
    )
    text: str | None = Field(None, description="a string")
    image_url: ImageUrlBody | None = Field(None, description='an object {"url", "detail"}')
    refusal: str | None = Field(None, description="a string")
    input_audio: None = Field(None, description="null: chatd carries text and images only")
    file: None = Field(None, description="null: chatd carries text and images only")
    prompt_cache_breakpoint: dict[str, Any] | None = Field(
        None, description="an object; not passed on"
    )


class CompletionFunctionBody(CalledFunctionBody):
    """A called function; OpenAI's Python client leaves what it has parsed in its own messages."""

    parsed_arguments: Any = Field(None, description="anything; not passed on, arguments has it")


class CompletionCallBody(ToolCallBody):
    """A function call that the model asked for earlier in the conversation.

    OpenAI's Python client leaves its place in a stream in the messages that it puts together.
    """

    index: int | None = Field(None, ge=0, description="an integer from 0 up; not passed on")
    function: CompletionFunctionBody = Field(description='an object {"name", "arguments"}')


class CompletionMessageBody(Body):
    """One turn of the conversation; the message of an answer can stand here as it came."""

    model_config = ConfigDict(json_schema_extra=COMPLETION_MESSAGE)

    role: Literal["developer", "system", "user", "assistant", "tool"] = Field(
        description='one of "developer", "system", "user", "assistant", "tool"'
    )
    content: str | Annotated[list[PartBody], Field(min_length=1)] | None = Field(
        None,
        description="a string, or a non-empty list of parts; null only in an assistant message "
        "with tool_calls",
    )
    name: Name | None = Field(None, description="a string of 1 to 128 characters")
    tool_calls: list[CompletionCallBody] | None = Field(
        None, description='a list of {"id", "type": "function", "function": {"name", "arguments"}}'
    )
    tool_call_id: Name | None = Field(None, description="a string of 1 to 128 characters")
    refusal: str | None = Field(None, description="a string: a refusal of an earlier answer")
    reasoning_content: str | None = Field(
        None, description="a string: the reasoning of an earlier answer"
    )
    annotations: list[dict[str, Any]] | None = Field(
        None, description="a list of objects; not passed on"
    )
    parsed: Any = Field(None, description="anything; not passed on, content has it")
    function_call: None = Field(None, description="null: use tool_calls")
    audio: None = Field(None, description="null: chatd carries text and images only")


class JsonSchemaBody(Body):
    """A JSON Schema and what is said about it."""

    name: Name = Field(description="a string of 1 to 128 characters")
    # Pydantic's own models have a method of that name.
    schema_: dict[str, Any] = Field(alias="schema", description="an object: a JSON Schema")
    description: str | None = Field(None, description="a string that tells the model what it is")
    strict: bool | None = Field(None, description="true or false")


class ResponseFormatBody(Body):
    """The form of the answer."""

    model_config = ConfigDict(json_schema_extra=RESPONSE_FORMAT)

    type: Literal["text", "json_object", "json_schema"] = Field(
        description='"text", "json_object" or "json_schema"'
    )
    json_schema: JsonSchemaBody | None = Field(
        None, description='an object {"name", "schema", "strict", "description"}'
    )


class StreamOptionsBody(Body):
    """What comes beside the pieces of a stream."""

    include_usage: bool | None = Field(
        None, description="true for a chunk with the usage before the end, else false"
    )
    include_obfuscation: bool | None = Field(
        None, description="true or false; not passed on, chunks have no padding"
    )


class CompletionBody(Body):
    """The body of ``POST /v1/chat/completions``."""

    model_config = ConfigDict(json_schema_extra=STREAMED)

    model: ModelName = Field(
        description="a string of 1 to 256 characters without control characters "
        "or surrounding spaces"
    )
    messages: list[CompletionMessageBody] = Field(
        min_length=1, description="a non-empty list of messages"
    )
    max_completion_tokens: int | None = Field(
        None, ge=1, le=2**31 - 1, description="an integer from 1 to 2147483647"
    )
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
    response_format: ResponseFormatBody | None = Field(
        None, description='an object {"type", "json_schema"}'
    )
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        Field(
            None,
            description='one of "none", "minimal", "low", "medium", "high", "xhigh", "max"',
        )
    )
    tools: list[ToolBody] | None = Field(
        None, description='a list of {"type": "function", "function": {"name", …}}'
    )
    tool_choice: Literal["auto", "none", "required"] | ToolChoiceBody | None = Field(
        None,
        description='"auto", "none", "required" or {"type": "function", "function": {"name"}}',
    )
    parallel_tool_calls: bool | None = Field(None, description="true or false")
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] | None = Field(
        None,
        description="an object of at most 16 strings; keys of 1 to 64 characters, "
        "values of at most 512",
    )
    stream: bool | None = Field(
        None, description="true for the answer piece by piece as it comes, else false"
    )
    stream_options: StreamOptionsBody | None = Field(
        None, description='an object {"include_usage"}, only beside "stream": true'
    )
    # chatd's own.
    timeout_s: float | None = Field(
        None, ge=0, description="a number of seconds from 0 up, where 0 is the default"
    )
    lane: Literal["interactive", "batch"] | None = Field(
        None, description='"interactive" or "batch"'
    )
    think: bool | Literal["low", "medium", "high", "max"] | None = Field(
        None, description='true, false, or one of "low", "medium", "high", "max"'
    )
    # Accepted and not passed on.
    user: str | None = Field(None, description="a string; not passed on")
    safety_identifier: str | None = Field(None, description="a string; not passed on")
    prompt_cache_key: str | None = Field(None, description="a string; not passed on")
    prompt_cache_options: dict[str, Any] | None = Field(
        None, description="an object; not passed on"
    )
    prompt_cache_retention: str | None = Field(None, description="a string; not passed on")
    prediction: dict[str, Any] | None = Field(None, description="an object; not passed on")
    # Accepted where they ask for nothing.
    n: int | None = Field(None, ge=1, le=1, description="1; for more answers, send more requests")
    logprobs: Off | None = Field(None, description="false: chatd has no log probabilities")
    top_logprobs: int | None = Field(
        None, ge=0, le=0, description="0: chatd has no log probabilities"
    )
    frequency_penalty: float | None = Field(
        None, ge=0, le=0, description="0: chatd passes no penalties on"
    )
    presence_penalty: float | None = Field(
        None, ge=0, le=0, description="0: chatd passes no penalties on"
    )
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = Field(
        None, description="an empty object: chatd passes no biases on"
    )
    modalities: list[Literal["text"]] | None = Field(
        None, description='["text"]: chatd has no other answers'
    )
    audio: None = Field(None, description="null: chatd has text answers only")
    verbosity: Literal["medium"] | None = Field(
        None, description='"medium", the usual one; ask for more or less in the prompt'
    )
    service_tier: Literal["auto", "default"] | None = Field(
        None, description='"auto" or "default"; chatd\'s own way to wait is "lane": "batch"'
    )
    store: Off | None = Field(
        None, description="false: chatd keeps the job's record for a while and nothing else"
    )
    moderation: None = Field(None, description="null: chatd does not moderate")
    web_search_options: None = Field(
        None, description="null: chatd does not search; some models of OpenRouter do"
    )
    functions: None = Field(None, description="null: use tools")
    function_call: None = Field(None, description="null: use tool_choice")
