"""The values that travel through chatd, and the one interface a provider has to offer.

Everything here is plain and frozen. Dictionaries exist only at the wire: each value has one
``to_wire`` and one ``from_wire``, and what they exchange is JSON-ready.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from json import JSONEncoder, encoder
from typing import Any, Protocol, Self

__all__ = [
    "JSON",
    "Billed",
    "Cancelled",
    "ChatRequest",
    "ChatResponse",
    "Deadline",
    "Delta",
    "DeltaKind",
    "Deltas",
    "FinishReason",
    "Lane",
    "Message",
    "Provider",
    "Role",
    "ToolCall",
    "compact_json",
    "json_writer",
]

JSON = dict[str, Any]
"""A decoded JSON object."""


def json_writer(described: JSONEncoder) -> Callable[[Any], str]:
    """``described.encode``, made once.

    json makes what does the work anew for each value, which takes longer than a small value does.
    What contains itself raises ``RecursionError`` here.
    """
    make = getattr(encoder, "c_make_encoder", None)
    if make is None:  # A Python without it.
        return described.encode
    text = encoder.encode_basestring_ascii if described.ensure_ascii else encoder.encode_basestring
    pieces = make(
        None,
        described.default,
        text,
        described.indent,
        described.key_separator,
        described.item_separator,
        described.sort_keys,
        described.skipkeys,
        described.allow_nan,
    )
    return lambda value: "".join(pieces(value, 0))


#: JSON without spaces, not only in ASCII.
compact_json = json_writer(JSONEncoder(ensure_ascii=False, separators=(",", ":")))


class Role(StrEnum):
    """Who speaks in a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Lane(StrEnum):
    """Whether somebody waits for the job (interactive) or not (batch)."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


class FinishReason(StrEnum):
    """Why the model stopped. Empty content is never silent: this says why."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


class Billed(StrEnum):
    """What is known about the bill of one upstream call."""

    YES = "yes"
    NO = "no"
    MAYBE = "maybe"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One function call a model asks for.

    ``arguments`` is JSON text, as OpenAI has it, so that nothing is lost when a model writes
    broken JSON. Ollama wants an object on its wire; its provider converts both ways.
    """

    id: str
    name: str
    arguments: str

    def to_wire(self) -> JSON:
        """OpenAI's shape: ``{"id", "type", "function": {"name", "arguments"}}``."""
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }

    @classmethod
    def from_wire(cls, wire: JSON) -> Self:
        """Read what ``to_wire`` wrote."""
        function = wire["function"]
        return cls(id=wire["id"], name=function["name"], arguments=function["arguments"])


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    ``images`` are base64 without a ``data:`` prefix; ``name`` tells speakers of one role apart.
    """

    role: Role
    content: str
    images: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None
    name: str | None = None

    def to_wire(self) -> JSON:
        """JSON-ready form; empty fields are left out."""
        wire: JSON = {"role": self.role.value, "content": self.content}
        if self.images:
            wire["images"] = list(self.images)
        if self.tool_calls:
            wire["tool_calls"] = [call.to_wire() for call in self.tool_calls]
        if self.tool_call_id is not None:
            wire["tool_call_id"] = self.tool_call_id
        if self.reasoning is not None:
            wire["reasoning"] = self.reasoning
        if self.name is not None:
            wire["name"] = self.name
        return wire

    @classmethod
    def from_wire(cls, wire: JSON) -> Self:
        """Read what ``to_wire`` wrote."""
        return cls(
            role=Role(wire["role"]),
            content=wire["content"],
            images=tuple(wire.get("images", ())),
            tool_calls=tuple(ToolCall.from_wire(call) for call in wire.get("tool_calls", ())),
            tool_call_id=wire.get("tool_call_id"),
            reasoning=wire.get("reasoning"),
            name=wire.get("name"),
        )


#: Fields of a request that are JSON already.
_PLAIN = (
    "max_tokens",
    "temperature",
    "top_p",
    "seed",
    "format",
    "think",
    "tool_choice",
    "parallel_tool_calls",
    "schema_info",
)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What one upstream call is asked to do.

    ``model`` is the name as the caller wrote it until a worker replaces it by the upstream id.
    ``format`` is ``None``, ``"json"`` or a JSON Schema. ``think`` is ``None`` when the caller did
    not say: both Ollama flavours then switch thinking off, other providers keep their default.
    ``schema_info`` is what OpenAI's format says beside a schema: its ``name``, ``description``, and
    whether it is ``strict``. ``stream``: the caller wants the answer piece by piece, as it comes.
    """

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    format: str | JSON | None = None
    think: bool | str | None = None
    tools: tuple[JSON, ...] = ()
    tool_choice: str | JSON | None = None
    parallel_tool_calls: bool | None = None
    schema_info: JSON | None = None
    stream: bool = False

    def to_wire(self) -> JSON:
        """JSON-ready form; fields that were not given are left out."""
        wire: JSON = {"model": self.model, "messages": [m.to_wire() for m in self.messages]}
        for name in _PLAIN:
            value = getattr(self, name)
            if value is not None:
                wire[name] = value
        if self.stop:
            wire["stop"] = list(self.stop)
        if self.tools:
            wire["tools"] = list(self.tools)
        if self.stream:
            wire["stream"] = True
        return wire

    @classmethod
    def from_wire(cls, wire: JSON) -> Self:
        """Read what ``to_wire`` wrote."""
        return cls(
            model=wire["model"],
            messages=tuple(Message.from_wire(m) for m in wire["messages"]),
            max_tokens=wire.get("max_tokens"),
            temperature=wire.get("temperature"),
            top_p=wire.get("top_p"),
            seed=wire.get("seed"),
            stop=tuple(wire.get("stop", ())),
            format=wire.get("format"),
            think=wire.get("think"),
            tools=tuple(wire.get("tools", ())),
            tool_choice=wire.get("tool_choice"),
            parallel_tool_calls=wire.get("parallel_tool_calls"),
            schema_info=wire.get("schema_info"),
            stream=wire.get("stream", False),
        )


@dataclass(frozen=True, slots=True)
class ChatResponse:
    """What an upstream call answered.

    ``latency_ms`` is the upstream call alone. A token count is ``None`` when the provider did not
    send one. ``cost_usd`` is the provider's own figure, else that of the configured prices.
    ``provider``, ``upstream_model`` and ``latency_ms`` are filled in by the registry, so
    that no provider can forget them.
    """

    content: str
    finish_reason: FinishReason
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    provider: str = ""
    upstream_model: str = ""
    latency_ms: int = 0

    def to_wire(self) -> JSON:
        """JSON-ready form with every field of the answer; ``cost_usd`` only when known."""
        wire: JSON = {
            "provider": self.provider,
            "upstream_model": self.upstream_model,
            "content": self.content,
            "reasoning": self.reasoning,
            "tool_calls": [call.to_wire() for call in self.tool_calls],
            "finish_reason": self.finish_reason.value,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "latency_ms": self.latency_ms,
        }
        if self.cost_usd is not None:
            wire["cost_usd"] = self.cost_usd
        return wire


class DeltaKind(StrEnum):
    """What a piece of an answer is a piece of."""

    CONTENT = "content"
    REASONING = "reasoning"
    TOOL_CALL = "tool_call"


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer that is on its way.

    ``text`` is a piece of the content, of the reasoning, or of the arguments of the answer's tool
    call number ``index``, whose ``id`` and ``name`` come with its first piece and with no other.
    """

    kind: DeltaKind
    text: str
    index: int = 0
    id: str | None = None
    name: str | None = None

    def joined(self, following: Self) -> Self | None:
        """Both as one piece, or ``None`` where they are pieces of different things."""
        if (
            following.kind is not self.kind
            or following.index != self.index
            or following.id is not None
        ):
            return None
        return replace(self, text=self.text + following.text)

    def to_wire(self) -> JSON:
        """JSON-ready form: ``{"content": text}``, ``{"reasoning": text}`` or ``{"tool_call": …}``.

        The last has ``{"index", "arguments"}``, with ``id`` and ``name`` in a call's first piece.
        """
        if self.kind is not DeltaKind.TOOL_CALL:
            return {self.kind.value: self.text}
        call: JSON = {"index": self.index, "arguments": self.text}
        if self.id is not None:
            call |= {"id": self.id, "name": self.name}
        return {self.kind.value: call}

    @classmethod
    def from_wire(cls, wire: JSON) -> Self:
        """Read what ``to_wire`` wrote."""
        [(kind, value)] = wire.items()
        if kind != DeltaKind.TOOL_CALL:
            return cls(DeltaKind(kind), value)
        return cls(
            DeltaKind.TOOL_CALL,
            value["arguments"],
            value["index"],
            value.get("id"),
            value.get("name"),
        )


Deltas = Callable[[Delta], None]
"""What takes the pieces of an answer, in their order. It must not block and must not raise."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on this process's monotonic clock by which a call has to be over."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """The moment ``seconds`` from now."""
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float:
        """Seconds left; negative once it has passed."""
        return self.at - time.monotonic()


class Cancelled:
    """A switch that stops one upstream call from another thread.

    ``set`` runs every callback given to ``on_set`` exactly once; a callback given after the switch
    was set runs at once. Callbacks must not block and must not raise.
    """

    __slots__ = ("_callbacks", "reason")

    def __init__(self) -> None:
        self.reason: str | None = None
        self._callbacks: list[Callable[[], None]] = []

    def set(self, reason: str) -> None:
        """Stop the call. The first reason stays."""
        if self.reason is None:
            self.reason = reason
        self._call_back()

    def is_set(self) -> bool:
        """Whether the call has been told to stop."""
        return self.reason is not None

    def on_set(self, callback: Callable[[], None]) -> None:
        """Run ``callback`` when the switch is set."""
        # In this order, and the other one in `set`: whoever comes second finds what the first did.
        self._callbacks.append(callback)
        if self.reason is not None:
            self._call_back()

    def _call_back(self) -> None:
        # Nobody else can take one that was taken out: a lock would cost more than all of this.
        while self._callbacks:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:  # Another thread was quicker.
                return
            callback()


class Provider(Protocol):
    """The one seam between chatd and an upstream."""

    name: str

    def chat(
        self,
        request: ChatRequest,
        *,
        deadline: Deadline,
        cancelled: Cancelled,
        deltas: Deltas | None = None,
    ) -> ChatResponse:
        """Make exactly one upstream call; ``request.model`` is the upstream's own id.

        With ``deltas`` the answer is asked for piece by piece. Each piece is handed over as soon as
        it is there, and what is returned is all of them together.

        Raises an ``UpstreamError`` of ``chat.errors`` for whatever goes wrong upstream,
        ``UpstreamTimeout`` when ``deadline`` passes and ``JobCancelled`` when ``cancelled`` is set.
        """
        ...
