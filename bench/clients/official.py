"""OpenAI's own client, synchronous and asynchronous.

python -m bench.clients.official URL MODEL scripted|real
"""

from __future__ import annotations

import asyncio
import json
from importlib.metadata import version
from typing import Any

import openai

from bench.clients.transcript import CITY, ROME, TOOL, Asking, Transcript, main_of, text_of

__all__ = ["build"]


def _client(asking: Asking) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{asking.url}/v1", api_key="none")


def _messages(text: str) -> Any:
    return [{"role": "user", "content": text}]


def _chat(asking: Asking) -> str:
    script = asking.script()
    answer = _client(asking).chat.completions.create(
        model=asking.model, messages=_messages(asking.question(script)), max_tokens=24
    )
    return asking.check(script, answer.choices[0].message.content or "")


def _stream(asking: Asking) -> str:
    script = asking.script(pieces=60)
    chunks = list(
        _client(asking).chat.completions.create(
            model=asking.model,
            messages=_messages(asking.question(script)),
            max_tokens=24,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    usage = chunks[-1].usage
    assert usage is not None, "no usage in the last chunk"
    told = asking.check(script, text_of(chunks))
    return f"{told}, {len(chunks)} chunks, {usage.prompt_tokens} + {usage.completion_tokens} tokens"


def _asynchronous(asking: Asking) -> str:
    scripts = [asking.script() for _ in range(8)]

    async def one(client: openai.AsyncOpenAI, text: str) -> str:
        stream = await client.chat.completions.create(
            model=asking.model, messages=_messages(text), max_tokens=8, stream=True
        )
        return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

    async def every() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{asking.url}/v1", api_key="none") as client:
            return await asyncio.gather(*(one(client, asking.question(s)) for s in scripts))

    for script, text in zip(scripts, asyncio.run(every()), strict=True):
        asking.check(script, text)
    return f"{len(scripts)} at once"


def _helper(asking: Asking) -> str:
    script = asking.script()
    # Without a limit: the helper raises an error for an answer that was cut by one.
    with _client(asking).chat.completions.stream(
        model=asking.model, messages=_messages(asking.question(script))
    ) as stream:
        kinds = {event.type for event in stream}
        content = stream.get_final_completion().choices[0].message.content
    return f"{asking.check(script, content or '')}, {', '.join(sorted(kinds))}"


def _tools(asking: Asking) -> str:
    client = _client(asking)
    script = asking.script(tool={"name": "weather", "arguments": ROME})
    messages = _messages(script.question)
    tools: Any = [TOOL]
    with client.chat.completions.stream(
        model=asking.model, messages=messages, tools=tools
    ) as stream:
        list(stream)
        message = stream.get_final_completion().choices[0].message
    (call,) = message.tool_calls or []
    assert json.loads(call.function.arguments) == ROME, call
    after = asking.script()
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": after.question}]
    chunks = client.chat.completions.create(
        model=asking.model, messages=messages, tools=tools, stream=True
    )
    return f"called with {call.function.arguments}, then {asking.check(after, text_of(chunks))}"


def _json(asking: Asking) -> str:
    script = asking.script(text=CITY)
    chunks = _client(asking).chat.completions.create(
        model=asking.model,
        messages=_messages(asking.question(script, "Name a city. Answer in JSON.")),
        response_format={"type": "json_object"},
        max_tokens=200,
        stream=True,
    )
    return json.dumps(json.loads(text_of(chunks)))


def _refused(asking: Asking) -> str:
    try:
        _client(asking).chat.completions.create(
            model=asking.model, messages=_messages("hi"), n=2, stream=True
        )
    except openai.BadRequestError as error:
        return f"{type(error).__name__} {error.code}: {error.message[:70]}"
    raise AssertionError("nothing was raised")


def _before(asking: Asking) -> str:
    script = asking.script(status=404)
    try:
        _client(asking).chat.completions.create(
            model=asking.model, messages=_messages(script.question), stream=True
        )
    except openai.NotFoundError as error:
        return f"{type(error).__name__} {error.code}"
    raise AssertionError("nothing was raised")


def _middle(asking: Asking) -> str:
    script = asking.script(fails="error", fails_after=5)
    chunks: list[Any] = []
    try:
        chunks.extend(
            _client(asking).chat.completions.create(
                model=asking.model, messages=_messages(script.question), stream=True
            )
        )
    except openai.APIError as error:
        assert text_of(chunks) == "".join(script.said()[:5]), "another text before the error"
        return f"5 pieces, then {type(error).__name__} {error.code}"
    raise AssertionError("nothing was raised")


def build(transcript: Transcript) -> None:
    """What is asked."""
    transcript.step("chat", _chat)
    transcript.step("stream, with usage", _stream)
    transcript.step("streams of the asynchronous client", _asynchronous)
    transcript.step("the client's own helper", _helper)
    transcript.step("tools, streamed, and their answer", _tools, scripted=True)
    transcript.step("JSON mode, streamed", _json, scripted=True)
    transcript.step("a request that is refused", _refused)
    transcript.step("an upstream error before the first piece", _before, scripted=True)
    transcript.step("an upstream error in mid-stream", _middle, scripted=True)


if __name__ == "__main__":
    main_of(f"openai {version('openai')}", build)
