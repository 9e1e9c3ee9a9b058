"""Ollama's answers piece by piece, of /api/chat and of /api/generate.

Source: docs/api/streaming.mdx and server/routes.go of ollama/ollama. Each line is shaped as a whole
answer; the last one has ``done`` and the counts, and may have text as well.
"""

from __future__ import annotations

from typing import Any

from chat.providers.assembly import Assembly
from chat.providers.fields import Fields
from chat.providers.framing import JsonLines
from chat.providers.ollama_wire import call_from_wire
from chat.types import JSON, Delta, DeltaKind, Deltas

__all__ = ["ChatStream", "GenerateStream"]

#: What a tool call takes beside the text of its arguments, roughly.
_CALL_BYTES = 500


class _NativeStream(Assembly):
    """What both have in common."""

    framing = JsonLines

    def __init__(self, deltas: Deltas) -> None:
        super().__init__(deltas)
        self._last: JSON = {}

    @property
    def output_tokens(self) -> int | None:
        """Told with the last record."""
        return Fields("", 0, self._last).count("eval_count")

    def _take_rest(self, record: Fields) -> None:
        """What says how the answer stands: the last one to say it counts."""
        self._last = record.values
        if record.flag("done"):
            self.complete = self.over = True


class ChatStream(_NativeStream):
    """An answer of /api/chat. Tool calls come whole, any number in a record."""

    def __init__(self, deltas: Deltas) -> None:
        super().__init__(deltas)
        self._calls: list[Any] = []

    def take(self, record: Fields) -> None:
        """Text, thinking and tool calls."""
        if "message" not in record and not record.flag("done"):
            raise record.fault("message", "an object")
        message = record.child("message")
        self._say(DeltaKind.REASONING, message, "thinking")
        self._say(DeltaKind.CONTENT, message, "content")
        for wire in message.children("tool_calls"):
            index = len(self._calls)
            call = call_from_wire(index, wire)
            self._calls.append(wire.values)
            self._kept += _CALL_BYTES + len(call.arguments)
            self._hand_over(Delta(DeltaKind.TOOL_CALL, call.arguments, index, call.id, call.name))
        self._take_rest(record)

    def whole(self) -> JSON:
        """The last record with all of the message."""
        message = {
            "content": self._said(DeltaKind.CONTENT),
            "thinking": self._said(DeltaKind.REASONING),
            "tool_calls": self._calls,
        }
        return {**self._last, "message": message}


class GenerateStream(_NativeStream):
    """An answer of /api/generate."""

    def take(self, record: Fields) -> None:
        """Text and thinking."""
        if "response" not in record and not record.flag("done"):
            raise record.fault("response", "a string")
        self._say(DeltaKind.REASONING, record, "thinking")
        self._say(DeltaKind.CONTENT, record, "response")
        self._take_rest(record)

    def whole(self) -> JSON:
        """The last record with all of the text."""
        return {
            **self._last,
            "response": self._said(DeltaKind.CONTENT),
            "thinking": self._said(DeltaKind.REASONING),
        }
