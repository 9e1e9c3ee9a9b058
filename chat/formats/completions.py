"""A request in the format of OpenAI's Chat Completions, as the chat call that it asks for.

It becomes a body of ``POST /v1/chat`` and is read as one, so that the rules that join several
fields exist once; what that body has no word for is put into the request afterwards.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass, replace

from chat.errors import InvalidRequest
from chat.formats.chat import ChatCall, read_chat
from chat.formats.completion_body import (
    IGNORED,
    CompletionBody,
    CompletionMessageBody,
    PartBody,
    ResponseFormatBody,
)
from chat.formats.strict_json import parse_object, shown
from chat.formats.validation import validated
from chat.types import JSON

__all__ = ["CompletionCall", "parse_completion", "read_completion"]

#: What has the same name and the same values in both formats.
_SHARED = (
    "model",
    "temperature",
    "top_p",
    "seed",
    "stop",
    "tools",
    "tool_choice",
    "metadata",
    "stream",
    "timeout_s",
    "lane",
)


@dataclass(frozen=True, slots=True)
class CompletionCall(ChatCall):
    """A valid request; ``ignored`` names what it has that is not passed on to any provider.

    ``include_usage``: the last chunk of its stream is to have the usage. The job is the same.
    """

    ignored: tuple[str, ...] = ()
    include_usage: bool = False


@dataclass(frozen=True, slots=True)
class _Turn:
    """A text and the images that follow it."""

    text: str = ""
    images: tuple[str, ...] = ()


def parse_completion(raw: bytes, *, max_timeout_s: float) -> CompletionCall:
    """The chat call that a request body asks for; see ``read_completion``."""
    return read_completion(parse_object(raw), max_timeout_s=max_timeout_s)


def read_completion(value: JSON, *, max_timeout_s: float) -> CompletionCall:
    """The chat call that a decoded body asks for.

    ``max_timeout_s`` is the most that ``timeout_s`` may be. Raises ``InvalidRequest`` that names
    the field, the value, the rule and the way out.
    """
    body = validated(CompletionBody, value)
    turns = [_turns(f"messages[{i}]", message) for i, message in enumerate(body.messages)]
    call = read_chat(_native(value, body, turns), max_timeout_s=max_timeout_s)
    request = replace(
        call.request,
        messages=tuple(
            replace(message, content=turn.text, images=turn.images, name=own.name)
            for own, message, its in zip(body.messages, call.request.messages, turns, strict=True)
            for turn in its
        ),
        think=_think(body),
        schema_info=_schema_info(body.response_format),
        # Without tools there is nothing to choose, and some providers refuse a choice.
        tool_choice=call.request.tool_choice if call.request.tools else None,
        parallel_tool_calls=body.parallel_tool_calls if call.request.tools else None,
    )
    return CompletionCall(
        request, call.lane, call.timeout_s, call.metadata, _ignored(body), _include_usage(body)
    )


def _native(value: JSON, body: CompletionBody, turns: list[list[_Turn]]) -> JSON:
    """The same request as ``POST /v1/chat`` has it, but for what only OpenAI's format can say."""
    return {
        **{name: value[name] for name in _SHARED if name in value},
        "messages": [
            _native_message(message, its[0].text)
            for message, its in zip(body.messages, turns, strict=True)
        ],
        "max_tokens": _max_tokens(body),
        "format": _format(body.response_format),
    }


def _native_message(body: CompletionMessageBody, text: str) -> JSON:
    said = body.content is not None or body.refusal is not None
    return {
        "role": "system" if body.role == "developer" else body.role,
        "content": text if said else None,
        "tool_calls": [
            call.model_dump(exclude={"index": True, "function": {"parsed_arguments"}})
            for call in body.tool_calls or ()
        ],
        "tool_call_id": body.tool_call_id,
        "reasoning": body.reasoning_content,
    }


def _turns(where: str, body: CompletionMessageBody) -> list[_Turn]:
    """What a message says, as one turn or, so that texts and images keep their order, as several.

    A provider gets the text of a message before its images, whatever their order here. That is all
    the same with one text, but not with pairs of a text and the image it is about.
    """
    if body.refusal is not None and body.role != "assistant":
        raise _misplaced(f"{where}.refusal", "a refusal", body.role, "an assistant's")
    parts: list[tuple[str, str | None]]
    if body.content is None or isinstance(body.content, str):
        parts = [(body.content or "", None)]
    else:
        parts = [
            _part(f"{where}.content[{i}]", body.role, part) for i, part in enumerate(body.content)
        ]
    parts.append((body.refusal or "", None))
    turns = [_Turn()]
    for text, image in parts:
        last = turns[-1]
        if image is not None:
            turns[-1] = replace(last, images=(*last.images, image))
        elif text and last.images:
            turns.append(_Turn(text))
        elif text:
            turns[-1] = replace(last, text=f"{last.text}\n{text}" if last.text else text)
    texts = [turn.text for turn in turns if turn.text]
    if len(texts) > 1:
        return turns
    return [_Turn("".join(texts), tuple(image for turn in turns for image in turn.images))]


def _part(where: str, role: str, part: PartBody) -> tuple[str, str | None]:
    """The text of a part, or its image in base64."""
    content = {"text": part.text, "image_url": part.image_url, "refusal": part.refusal}
    if content[part.type] is None:
        raise InvalidRequest(
            f'{where}.{part.type} is missing; a part of type "{part.type}" must have it',
            param=f"{where}.{part.type}",
        )
    for name, found in content.items():
        if name != part.type and found is not None:
            raise InvalidRequest(
                f'{where}.{name} stands in a part of type "{part.type}"; make it a part of its own',
                param=f"{where}.{name}",
            )
    if part.type == "refusal" and role != "assistant":
        raise _misplaced(where, "a refusal", role, "an assistant's")
    if part.image_url is None:
        return part.text or part.refusal or "", None
    if role != "user":
        raise _misplaced(where, "an image", role, "a user's")
    return "", _image(f"{where}.image_url.url", part.image_url.url)


def _misplaced(where: str, what: str, role: str, owner: str) -> InvalidRequest:
    return InvalidRequest(
        f"{where} is {what} in a message of role {shown(role)}, but only {owner} message may have "
        "one; leave it out or correct the role",
        param=where,
    )


def _image(where: str, url: str) -> str:
    """The base64 text of a data URL."""
    head, _, data = url.partition(",")
    media_type = head.lower()
    if media_type.startswith(("http:", "https:")):
        raise InvalidRequest(
            f"{where} is {shown(url)}, but chatd fetches nothing; send the image itself in a data "
            'URL: "data:image/png;base64,…"',
            param=where,
        )
    if not (media_type.startswith("data:image/") and media_type.endswith(";base64")):
        raise InvalidRequest(
            f"{where} is {shown(url)}, but must be a data URL of an image in base64: "
            '"data:image/png;base64,…"',
            param=where,
        )
    try:
        decoded = binascii.a2b_base64(data, strict_mode=True)
    except ValueError as error:
        raise InvalidRequest(
            f"{where} is {shown(url)}, but what follows the comma is not base64 ({error}); encode "
            "the image with padding and without line breaks",
            param=where,
        ) from error
    if not decoded:
        raise InvalidRequest(
            f"{where} is {shown(url)}, which is an empty image; put its bytes in base64 after the "
            "comma",
            param=where,
        )
    return data


def _max_tokens(body: CompletionBody) -> int | None:
    old, new = body.max_tokens, body.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise InvalidRequest(
            f"max_tokens is {old} and max_completion_tokens is {new}, but they are two names of "
            "one limit; send one of them",
            param="max_completion_tokens",
        )
    return old if new is None else new


def _format(body: ResponseFormatBody | None) -> str | JSON | None:
    if body is None:
        return None
    if body.type == "json_schema":
        if body.json_schema is None:
            raise InvalidRequest(
                "response_format.json_schema is missing; with type json_schema it must be an "
                'object {"name", "schema", "strict", "description"}',
                param="response_format.json_schema",
            )
        return body.json_schema.schema_
    if body.json_schema is not None:
        raise InvalidRequest(
            f'response_format.json_schema stands beside type "{body.type}", which has no schema; '
            "set type to json_schema or leave the schema out",
            param="response_format.json_schema",
        )
    return "json" if body.type == "json_object" else None


def _schema_info(body: ResponseFormatBody | None) -> JSON | None:
    """What is said about the schema; a schema is strict only if it says so, as with OpenAI."""
    if body is None or body.json_schema is None:
        return None
    schema = body.json_schema
    info: JSON = {"name": schema.name, "strict": bool(schema.strict)}
    if schema.description is not None:
        info["description"] = schema.description
    return info


def _think(body: CompletionBody) -> bool | str | None:
    if body.reasoning_effort is None:
        return body.think
    effort = False if body.reasoning_effort == "none" else body.reasoning_effort
    if body.think is not None and body.think != effort:
        raise InvalidRequest(
            f"reasoning_effort is {shown(body.reasoning_effort)} and think is {shown(body.think)}, "
            "but both say how much to think; send one of them",
            param="think",
        )
    return effort


def _include_usage(body: CompletionBody) -> bool:
    options = body.stream_options
    if options is not None and not body.stream:
        raise InvalidRequest(
            "stream_options is about a stream, but stream is not true; set stream to true or leave "
            "stream_options out",
            param="stream_options",
        )
    return options is not None and bool(options.include_usage)


def _ignored(body: CompletionBody) -> tuple[str, ...]:
    """Each field once, without the places in lists."""
    parts = [
        part
        for message in body.messages
        if isinstance(message.content, list)
        for part in message.content
    ]
    calls = [call for message in body.messages for call in message.tool_calls or ()]
    inside = {
        "messages.annotations": any(message.annotations for message in body.messages),
        "messages.parsed": any(message.parsed is not None for message in body.messages),
        "messages.tool_calls.index": any(call.index is not None for call in calls),
        "messages.tool_calls.function.parsed_arguments": any(
            call.function.parsed_arguments is not None for call in calls
        ),
        "messages.content.image_url.detail": any(
            part.image_url is not None and part.image_url.detail in {"low", "high"}
            for part in parts
        ),
        "messages.content.prompt_cache_breakpoint": any(
            part.prompt_cache_breakpoint is not None for part in parts
        ),
        "stream_options.include_obfuscation": (
            body.stream_options is not None and bool(body.stream_options.include_obfuscation)
        ),
    }
    return (
        *(name for name in IGNORED if getattr(body, name) is not None),
        *(name for name, there in inside.items() if there),
    )
