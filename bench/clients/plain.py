"""A program of a few lines on nothing but HTTP: chatd's own format, read with ``requests``.

python -m bench.clients.plain URL MODEL scripted|real
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

import requests

from bench.clients.transcript import CITY, ROME, TOOL, Asking, Transcript, main_of

__all__ = ["build"]


def _post(
    asking: Asking, text: str, headers: Mapping[str, str] | None = None, **fields: Any
) -> requests.Response:
    messages = [{"role": "user", "content": text}]
    body = {"model": asking.model, "messages": messages, "stream": True, **fields}
    session = requests.Session()
    session.trust_env = False
    return session.post(
        f"{asking.url}/v1/chat", json=body, headers=headers, stream=True, timeout=300
    )


def _events(reply: requests.Response) -> Iterator[tuple[str, str, Any]]:
    """Id, name and data of each event."""
    found: dict[str, str] = {}
    for line in reply.iter_lines():
        name, _, value = line.decode().partition(": ")
        if line:
            found[name] = value
        elif "data" in found:
            yield found["id"], found["event"], json.loads(found["data"])
            found = {}


def _stream(asking: Asking) -> str:
    script = asking.script(pieces=60)
    events = list(_events(_post(asking, asking.question(script), max_tokens=24)))
    *deltas, (_, name, answer) = events
    assert name == "answer", answer
    text = "".join(data.get("content", "") for _, _, data in deltas)
    assert text == answer["content"], "the pieces are not the answer"
    return f"{asking.check(script, text)}, {len(events)} events"


def _resume(asking: Asking) -> str:
    script = asking.script(pieces=60, every_ms=10.0)
    key = {"Idempotency-Key": script.name}
    question = asking.question(script)
    had: list[tuple[str, str, Any]] = []
    with _post(asking, question, max_tokens=24, headers=key) as reply:
        for event in _events(reply):
            had.append(event)
            if len(had) == 3:
                break
    left_at = had[-1][0]
    again = _post(asking, question, max_tokens=24, headers={**key, "Last-Event-ID": left_at})
    had += _events(again)
    ids = [event_id for event_id, _, _ in had]
    assert len(ids) == len(set(ids)), "an event came twice"
    text = "".join(data["content"] for _, name, data in had if name == "delta")
    return f"left after {left_at}, {asking.check(script, text)}"


def _tools(asking: Asking) -> str:
    script = asking.script(tool={"name": "weather", "arguments": ROME})
    *_, (_, name, answer) = _events(_post(asking, script.question, tools=[TOOL]))
    assert name == "answer", answer
    (call,) = answer["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == ROME, call
    return json.dumps(call["function"])


def _json(asking: Asking) -> str:
    script = asking.script(text=CITY)
    question = asking.question(script, "Name a city. Answer in JSON.")
    *_, (_, name, answer) = _events(_post(asking, question, format="json", max_tokens=200))
    assert name == "answer", answer
    return json.dumps(json.loads(answer["content"]))


def _before(asking: Asking) -> str:
    reply = _post(asking, asking.script(status=404).question)
    return f"{reply.status_code} {reply.json()['error']['code']}"


def _middle(asking: Asking) -> str:
    script = asking.script(fails="error", fails_after=5)
    *deltas, (_, name, data) = _events(_post(asking, script.question))
    text = "".join(data["content"] for _, _, data in deltas)
    assert (name, text) == ("error", "".join(script.said()[:5])), (name, text)
    return f"{len(deltas)} events, then error {data['error']['code']}"


def build(transcript: Transcript) -> None:
    """What is asked."""
    transcript.step("stream", _stream)
    transcript.step("left, and resumed with the same key", _resume)
    transcript.step("tools, streamed", _tools, scripted=True)
    transcript.step("JSON mode, streamed", _json, scripted=True)
    transcript.step("an upstream error before the first piece", _before, scripted=True)
    transcript.step("an upstream error in mid-stream", _middle, scripted=True)


if __name__ == "__main__":
    main_of(f"requests {version('requests')}, chatd's format", build)
