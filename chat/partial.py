"""What has come of an answer that comes piece by piece."""

from __future__ import annotations

from chat.types import JSON, Delta, DeltaKind, ToolCall

__all__ = ["Partial"]


class Partial:
    """The pieces of one answer, put together as they come."""

    def __init__(self) -> None:
        self.pieces = 0
        self._texts: dict[DeltaKind, list[str]] = {
            DeltaKind.CONTENT: [],
            DeltaKind.REASONING: [],
        }
        #: By index: id, name and pieces of the arguments.
        self._calls: dict[int, tuple[str, str, list[str]]] = {}

    def add(self, delta: Delta) -> None:
        """Take the piece that comes next. Raises ``ValueError`` for one of a call not begun."""
        self.pieces += 1
        if delta.kind is not DeltaKind.TOOL_CALL:
            self._texts[delta.kind].append(delta.text)
            return
        if delta.id is not None:
            self._calls[delta.index] = delta.id, delta.name or "", []
        if delta.index not in self._calls:
            msg = f"a piece of tool call {delta.index}, which has not begun"
            raise ValueError(msg)
        self._calls[delta.index][2].append(delta.text)

    @property
    def content(self) -> str:
        """The text of the answer so far."""
        return "".join(self._texts[DeltaKind.CONTENT])

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        return "".join(self._texts[DeltaKind.REASONING])

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls so far; the last one may lack a part of its arguments."""
        return tuple(
            ToolCall(id_, name, "".join(pieces))
            for _, (id_, name, pieces) in sorted(self._calls.items())
        )

    def to_wire(self) -> JSON:
        """``{"content", "reasoning", "tool_calls"}``, each as in a whole answer."""
        return {
            "content": self.content,
            "reasoning": self.reasoning or None,
            "tool_calls": [call.to_wire() for call in self.tool_calls],
        }

    def rest_of(self, answer: JSON) -> list[Delta] | None:
        """The pieces that ``answer`` has beyond these; ``None`` if it does not begin with these.

        ``answer`` has the three fields of ``to_wire``.
        """
        rest: list[Delta] = []
        known = self.tool_calls
        calls = [ToolCall.from_wire(call) for call in answer["tool_calls"]]
        texts = (
            (DeltaKind.REASONING, self.reasoning, answer["reasoning"] or ""),
            (DeltaKind.CONTENT, self.content, answer["content"]),
        )
        for kind, here, whole in texts:
            if not whole.startswith(here):
                return None
            if len(whole) > len(here):
                rest.append(Delta(kind, whole[len(here) :]))
        if len(known) > len(calls):
            return None
        for index, call in enumerate(calls):
            if index >= len(known):
                rest.append(Delta(DeltaKind.TOOL_CALL, call.arguments, index, call.id, call.name))
                continue
            begun = known[index]
            same = begun.id == call.id and begun.name == call.name
            if not same or not call.arguments.startswith(begun.arguments):
                return None
            if len(call.arguments) > len(begun.arguments):
                text = call.arguments[len(begun.arguments) :]
                rest.append(Delta(DeltaKind.TOOL_CALL, text, index))
        return rest
