"""LiteLLM as a library, synchronous and asynchronous, with chatd as an OpenAI of its own URL.

    python -m bench.clients.lite URL MODEL scripted|real

It runs in the environment that ``python -m bench.clients install litellm`` makes.
"""

from __future__ import annotations

import asyncio
import json
from importlib.metadata import version
from typing import Any

import litellm

from bench.clients.transcript import CITY, ROME, TOOL, Asking, Transcript, main_of, text_of

__all__ = ["build"]


def _options(asking: Asking, text: str, **further: Any) -> dict[str, Any]:
    return {
        "model": f"openai/{asking.model}",
        "api_base": f"{asking.url}/v1",
        "api_key": "none",
        "messages": [{"role": "user", "content": text}],
        "num_retries": 0,
        **further,
    }


def _chat(asking: Asking) -> str:
    script = asking.script()
    answer = litellm.completion(**_options(asking, asking.question(script), max_tokens=24))
    return asking.check(script, answer.choices[0].message.content or "")


def _stream(asking: Asking) -> str:
    script = asking.script(pieces=60)
    chunks = list(
        litellm.completion(
            **_options(asking, asking.question(script), max_tokens=24),
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    told = asking.check(script, text_of(chunks))
    usage = getattr(chunks[-1], "usage", None)
    assert usage is not None, "no usage in the last chunk"
    built = litellm.stream_chunk_builder(chunks)
    asking.check(script, built.choices[0].message.content)
    return f"{told}, {len(chunks)} chunks, {usage.prompt_tokens} + {usage.completion_tokens} tokens"


def _asynchronous(asking: Asking) -> str:
    scripts = [asking.script() for _ in range(8)]

    async def one(text: str) -> str:
        stream = await litellm.acompletion(**_options(asking, text, max_tokens=8), stream=True)
        return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

    async def every() -> list[str]:
        return await asyncio.gather(*(one(asking.question(script)) for script in scripts))

    for script, text in zip(scripts, asyncio.run(every()), strict=True):
        asking.check(script, text)
    return f"{len(scripts)} at once"


def _tools(asking: Asking) -> str:
    script = asking.script(tool={"name": "weather", "arguments": ROME})
    chunks = list(
        litellm.completion(**_options(asking, script.question, tools=[TOOL]), stream=True)
    )
    message = litellm.stream_chunk_builder(chunks).choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments) == ROME, call
    after = asking.script()
    options = _options(asking, script.question, tools=[TOOL])
    result = {"role": "tool", "tool_call_id": call.id, "content": after.question}
    options["messages"] += [message.model_dump(), result]
    again = litellm.completion(**options, stream=True)
    return f"called with {call.function.arguments}, then {asking.check(after, text_of(again))}"


def _json(asking: Asking) -> str:
    script = asking.script(text=CITY)
    question = asking.question(script, "Name a city. Answer in JSON.")
    options = _options(asking, question, max_tokens=200, response_format={"type": "json_object"})
    return json.dumps(json.loads(text_of(litellm.completion(**options, stream=True))))


def _refused(asking: Asking) -> str:
    try:
        litellm.completion(**_options(asking, "hi", n=2), stream=True)
    except litellm.BadRequestError as error:
        return f"{type(error).__name__}: {str(error)[:110]}"
    raise AssertionError("nothing was raised")


def _before(asking: Asking) -> str:
    script = asking.script(status=404)
    try:
        litellm.completion(**_options(asking, script.question), stream=True)
    except litellm.NotFoundError as error:
        return f"{type(error).__name__}: {str(error)[:110]}"
    raise AssertionError("nothing was raised")


def _middle(asking: Asking) -> str:
    script = asking.script(fails="error", fails_after=5)
    chunks: list[Any] = []
    try:
        chunks.extend(litellm.completion(**_options(asking, script.question), stream=True))
    except Exception as error:  # noqa: BLE001 - what it is, is told
        text = text_of(chunks)
        said = "".join(script.said()[:5])
        assert said.startswith(text), "another text before the error"
        return f"{len(text)} of {len(said)} characters, then {type(error).__name__}"
    raise AssertionError("nothing was raised")


def build(transcript: Transcript) -> None:
    """What is asked."""
    litellm.suppress_debug_info = True
    transcript.step("chat", _chat)
    transcript.step("stream, with usage", _stream)
    transcript.step("streams of acompletion", _asynchronous)
    transcript.step("tools, streamed, and their answer", _tools, scripted=True)
    transcript.step("JSON mode, streamed", _json, scripted=True)
    transcript.step("a request that is refused", _refused)
    transcript.step("an upstream error before the first piece", _before, scripted=True)
    transcript.step("an upstream error in mid-stream", _middle, scripted=True)


if __name__ == "__main__":
    main_of(f"litellm {version('litellm')}", build)
