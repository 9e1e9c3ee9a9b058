"""Answers of Chat Completions piece by piece, as OpenRouter, OpenCode and Kimi send them.

Source: OpenRouter docs, api_reference/streaming; routes/zen/util/handler.ts of anomalyco/opencode;
kosong/chat_provider/openai_common.py of MoonshotAI/kimi-cli.
"""

from __future__ import annotations

from chat.providers.assembly import Assembly, Shown
from chat.providers.fields import Fields
from chat.providers.framing import EventStream
from chat.types import JSON, Delta, DeltaKind, Deltas

__all__ = ["ChunkStream"]

#: What a tool call takes beside the text of its arguments, roughly.
_CALL_BYTES = 500

#: What a chunk can say of its choice beside the pieces in it; Kimi may have its usage there.
_OF_THE_CHOICE = ("finish_reason", "error", "usage")


class ChunkStream(Assembly):
    """An answer of /chat/completions.

    Usage comes with the last chunks or behind them, and OpenCode's cost behind ``[DONE]``.
    """

    framing = EventStream
    end = b"[DONE]"

    def __init__(self, deltas: Deltas) -> None:
        super().__init__(deltas)
        self._bill: JSON = {}
        self._choice: JSON | None = None
        self._refusal: list[str] = []
        self._calls = _Calls()

    def take(self, record: Fields) -> None:
        """A chunk. Only the first choice is looked at, since no other is asked for."""
        self.take_behind(record)
        for choice in record.children("choices")[:1]:
            self._take_choice(choice)

    def take_behind(self, record: Fields) -> None:
        """Usage and cost; what is neither a sum nor a count says nothing of either."""
        usage = record.values.get("usage")
        if usage and isinstance(usage, dict):
            self._bill["usage"] = usage
        if "cost" in record:
            self._bill["cost"] = record.values["cost"]

    def _take_choice(self, choice: Fields) -> None:
        if self._choice is None:
            self._choice = {}
        delta = choice.child("delta")
        # OpenRouter's name; some endpoints behind it give the other one as well.
        key = "reasoning" if delta.text("reasoning") else "reasoning_content"
        self._say(DeltaKind.REASONING, delta, key)
        self._say(DeltaKind.CONTENT, delta, "content")
        # It stands for the text where there is none, which is not known before the end.
        refusal = delta.unmasked().text("refusal")
        if refusal:
            self._refusal.append(refusal)
            self._kept += len(refusal)
        for wire in delta.children("tool_calls"):
            for piece in self._calls.take(wire):
                self._hand_over(piece)
        for name in _OF_THE_CHOICE:
            if choice.values.get(name):
                self._choice[name] = choice.values[name]
        if "finish_reason" in self._choice:
            self.complete = True
        if "error" in self._choice or self._choice.get("finish_reason") == "error":
            self.complete = self.over = True

    def break_off(self) -> None:
        """Texts, and the arguments of tool calls."""
        super().break_off()
        for piece in self._calls.last():
            self._hand_over(piece)

    @property
    def kept(self) -> int:
        """Texts, and tool calls."""
        return self._kept + self._calls.kept

    @property
    def output_tokens(self) -> int | None:
        """What the last usage says, wherever it stood."""
        usage = self._bill.get("usage") or (self._choice or {}).get("usage")
        return Fields("", 0, usage).count("completion_tokens") if isinstance(usage, dict) else None

    def whole(self) -> JSON:
        """All of the first choice, if there was one, with usage and cost."""
        if self._choice is None:
            return {**self._bill, "choices": []}
        message = {
            "content": self._said(DeltaKind.CONTENT),
            "reasoning": self._said(DeltaKind.REASONING),
            "refusal": "".join(self._refusal),
            "tool_calls": self._calls.whole(),
        }
        return {**self._bill, "choices": [{**self._choice, "message": message}]}


class _Call:
    """A tool call on its way: number ``place`` of its answer.

    ``waiting`` is what of its arguments can be shown and was not handed on yet.
    """

    def __init__(self, place: int, secret: str | None) -> None:
        self.place = place
        self.id = self.name = ""
        self.arguments: list[str] = []
        self._waiting: list[str] = []
        self._shown = Shown(secret)

    def more(self, text: str) -> None:
        """Take a piece of the arguments."""
        self.arguments.append(text)
        self._waiting.append(self._shown.more(text))

    def piece(self) -> Delta | None:
        """What was waiting, if it was anything."""
        text = "".join(self._waiting)
        self._waiting.clear()
        return Delta(DeltaKind.TOOL_CALL, text, self.place) if text else None

    def last_piece(self) -> Delta | None:
        """What was kept back, if it can be shown."""
        self._waiting.append(self._shown.last())
        return self.piece()

    def first_piece(self) -> Delta | None:
        """The beginning of the call, if it is known whose it is."""
        if not (self.id and self.name):
            return None
        text = "".join(self._waiting)
        self._waiting.clear()
        return Delta(DeltaKind.TOOL_CALL, text, self.place, self.id, self.name)


class _Calls:
    """The tool calls of one answer; ``kept``: about as many bytes as are kept of them.

    They are handed on in the order in which they have come up, whatever their numbers are, and each
    once its id and its name are there. One that never gets an id has to wait for the end of all.
    """

    def __init__(self) -> None:
        self.kept = 0
        self._calls: list[_Call] = []
        self._numbered: dict[int | None, _Call] = {}
        self._begun = 0

    def take(self, wire: Fields) -> list[Delta]:
        """Take a piece of a call; returns what can be handed on now."""
        function = wire.child("function")
        id_, name = wire.text("id") or "", function.text("name") or ""
        call = self._call(wire, id_, name)
        call.id, call.name = call.id or id_, call.name or name
        arguments = function.unmasked().object_text("arguments")
        if arguments:
            call.more(arguments)
            self.kept += len(arguments)
        if call.place < self._begun:
            piece = call.piece()
            return [piece] if piece else []
        return self._first_pieces()

    def last(self) -> list[Delta]:
        """What can still be handed on of the calls that have begun, when nothing more comes."""
        pieces = (call.last_piece() for call in self._calls[: self._begun])
        return [piece for piece in pieces if piece is not None]

    def whole(self) -> list[JSON]:
        """All of them, as in an answer that came at once."""
        return [
            {
                "id": call.id,
                "function": {"name": call.name, "arguments": "".join(call.arguments)},
            }
            for call in self._calls
        ]

    def _first_pieces(self) -> list[Delta]:
        pieces: list[Delta] = []
        while self._begun < len(self._calls):
            piece = self._calls[self._begun].first_piece()
            if piece is None:
                break
            pieces.append(piece)
            self._begun += 1
        return pieces

    def _call(self, wire: Fields, id_: str, name: str) -> _Call:
        """The call that ``wire`` is a piece of.

        Some servers number all calls 0, or none: what has another id and a name begins another.
        """
        number = wire.values.get("index")
        if not isinstance(number, int):
            number = None
        call = self._numbered.get(number)
        if call is None or (id_ and name and call.id and call.id != id_):
            call = self._numbered[number] = _Call(len(self._calls), wire.secret)
            self._calls.append(call)
            self.kept += _CALL_BYTES
        return call
