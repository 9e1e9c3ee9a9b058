"""What one asker has of its answer, over all connections that brought pieces of it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from bench.streams.decoding import Event

__all__ = ["FORMS", "Form", "Reading"]


@dataclass(frozen=True, slots=True)
class Form:
    """How a stream is asked for: at which path, by which model, in which format it comes."""

    path: str
    format: str
    model: str = "echo"

    def body(self, question: str, **further: Any) -> bytes:
        """A request in this form."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "stream": True,
            **further,
        }
        return json.dumps(body).encode()


#: ``ollama`` and ``openai`` are asked of the upstream itself, the others of chatd. Those that end
#: in ``sse`` have the upstream that speaks SSE behind chatd.
FORMS = {
    "ollama": Form("/api/chat", "ollama"),
    "openai": Form("/v1/chat/completions", "openai"),
    "chat": Form("/v1/chat", "chat"),
    "completion": Form("/v1/chat/completions", "openai"),
    "chat-sse": Form("/v1/chat", "chat", "openrouter/v/echo"),
    "completion-sse": Form("/v1/chat/completions", "openai", "openrouter/v/echo"),
}


@dataclass(slots=True)
class Reading:
    """The pieces of an answer, in whatever format they come.

    ``arrivals`` has for each piece when it came (monotonic) and how many characters there were
    with it. ``answer`` is the whole answer at the end of chatd's own format. ``ended`` is set by
    what the format ends with, ``error`` by its error event. ``faults`` are breaches of the format.
    """

    format: str
    texts: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    comments: list[tuple[float, str]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    finish: str = ""
    answer: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    ended: bool = False
    faults: list[str] = field(default_factory=list)
    _characters: int = 0

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.texts)

    @property
    def last_id(self) -> str:
        """The id of the last event, which a client that resumes names."""
        return self.ids[-1] if self.ids else ""

    def verdict(self, text: str) -> str:
        """``right`` if all came, once, and its text is this one; else what is wrong with it."""
        if self.faults:
            return self.faults[0]
        if self.error is not None:
            return f"error {self.error.get('code')}"
        if not self.ended:
            return "no end"
        if self.text != text:
            return "wrong text"
        if self.format == "chat" and (self.answer or {}).get("content") != text:
            return "wrong answer at the end"
        return "right"

    def take(self, event: Event) -> None:
        """Take the event that comes next."""
        now = time.monotonic()
        if event.comment:
            self.comments.append((now, event.comment))
        if not event.data:
            return
        if self.ended or self.error is not None:
            self.faults.append("an event after the end")
        if event.id:
            if _place(event.id) <= _place(self.last_id):
                self.faults.append(f"id {event.id} after {self.last_id}")
            self.ids.append(event.id)
        elif self.ids and event.data != "[DONE]":
            self.faults.append("an event without an id")
        before = len(self.texts)
        getattr(self, f"_{self.format}")(event)
        if len(self.texts) > before:
            self._characters += len(self.texts[-1])
            self.arrivals.append((now, self._characters))

    def _ollama(self, event: Event) -> None:
        line = json.loads(event.data)
        if "error" in line:
            self.error = {"code": line["error"]}
            return
        self._text(line["message"]["content"])
        self.ended = line["done"]

    def _chat(self, event: Event) -> None:
        value = json.loads(event.data)
        if event.name == "error":
            self.error = value["error"]
        elif event.name == "answer":
            self.answer, self.ended, self.finish = value, True, value["finish_reason"]
        elif event.name != "delta":
            self.faults.append(f"an event {event.name!r}")
        elif "content" in value:
            self._text(value["content"])
        elif "reasoning" in value:
            self.thinking.append(value["reasoning"])
        else:
            self._tool_call(value["tool_call"]["index"], value["tool_call"])

    def _openai(self, event: Event) -> None:
        if event.data == "[DONE]":
            self.ended = True
            return
        chunk = json.loads(event.data)
        if "error" in chunk:
            self.error = chunk["error"]
            return
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk["choices"]:
            delta = choice["delta"]
            self._text(delta.get("content") or "")
            if delta.get("reasoning_content"):
                self.thinking.append(delta["reasoning_content"])
            for call in delta.get("tool_calls") or ():
                self._tool_call(call["index"], {**call, **call["function"]})
            self.finish = choice.get("finish_reason") or self.finish

    def _text(self, text: str) -> None:
        if text:
            self.texts.append(text)

    def _tool_call(self, index: int, piece: dict[str, Any]) -> None:
        call = self.calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
        for name in call:
            call[name] += piece.get(name) or ""


def _place(event_id: str) -> tuple[bool, list[int]]:
    """Where an event stands among all: pieces by attempt and number, then those of the end.

    What an answer has beyond the pieces that came has a further number.
    """
    if not event_id:
        return False, []
    first, *numbers = event_id.replace(".", "-").split("-")
    ends = first == "end"
    return ends, [0 if ends else int(first), *map(int, numbers)]
