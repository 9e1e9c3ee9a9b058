"""Calls whose answers come piece by piece, and what their pieces come to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from chat.errors import ChatError
from chat.partial import Partial
from chat.registry import Registry, Route
from chat.types import Cancelled, ChatResponse, Deadline, Delta, Provider
from tests.wire.providers import MODELS, plain_request

__all__ = ["KINDS", "Pieces", "kind_of", "outcome_of", "records_of"]

#: The content types of the two framings.
KINDS = {"ndjson": "application/x-ndjson", "sse": "text/event-stream"}


def kind_of(file: str) -> str:
    """The content type of an example stream."""
    return KINDS[file.rpartition(".")[2]]


def records_of(body: bytes) -> list[bytes]:
    """A stream cut behind each of its records; comments are records here."""
    end = b"\n\n" if body.startswith((b"data:", b":")) else b"\n"
    return [record + end for record in body.split(end) if record]


@dataclass
class Pieces:
    """Takes the pieces of one answer; ``when`` is told of each, with how many there are now."""

    when: Callable[[int], None] = lambda _: None
    taken: list[Delta] = field(default_factory=list)

    def __call__(self, delta: Delta) -> None:
        self.taken.append(delta)
        self.when(len(self.taken))

    @property
    def together(self) -> Partial:
        """All of them."""
        return together(self.taken)


def together(pieces: Iterable[Delta]) -> Partial:
    """What ``pieces`` come to."""
    partial = Partial()
    for piece in pieces:
        partial.add(piece)
    return partial


def outcome_of(
    provider: Provider,
    pieces: Pieces | None,
    *,
    within_s: float = 30.0,
    cancelled: Cancelled | None = None,
) -> ChatResponse | ChatError:
    """What becomes of a plain question, as a worker asks it."""
    try:
        return Registry({provider.name: provider}, clock=lambda: 0.0).chat(
            Route(provider.name, MODELS[provider.name]),
            plain_request(provider.name),
            deadline=Deadline.after(within_s),
            cancelled=cancelled or Cancelled(),
            deltas=pieces,
        )
    except ChatError as error:
        return error
