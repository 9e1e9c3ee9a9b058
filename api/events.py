"""The events of a stream as they are written: in chatd's own form, and in OpenAI's.

Source: WHATWG HTML, Server-sent events; ``chat.formats.completion_answers`` for OpenAI's chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from api.output import encoded
from chat.errors import ChatError
from chat.formats.completion_answers import Chunks, completion_error
from chat.formats.errors import error_body
from chat.jobs import made_at
from chat.types import JSON, Delta

__all__ = ["CompletionEvents", "Events", "OurEvents", "comment"]


class Events(Protocol):
    """One form of a stream, for one job. ``place`` is the id by which a client goes on later."""

    #: What ends a stream that has told how its job ended.
    last: bytes

    def piece(self, place: str, delta: Delta, *, first: bool) -> bytes:
        """The event of a piece; ``first`` if the client has had none before."""

    def ends(self, answer: JSON, *, first: bool) -> Sequence[bytes]:
        """The events after the last piece of an answer, each without its place."""

    def error(self, error: ChatError) -> bytes:
        """The event of an error, without a place."""


class OurEvents:
    """``delta`` for each piece, then ``answer`` with all of the answer, or ``error``."""

    last = b""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id

    def piece(self, place: str, delta: Delta, *, first: bool) -> bytes:  # noqa: ARG002 - see Events
        """``Delta.to_wire``."""
        return b"id: %s\nevent: delta\n%s" % (place.encode(), _data(delta.to_wire()))

    def ends(self, answer: JSON, *, first: bool) -> Sequence[bytes]:  # noqa: ARG002 - see Events
        """The answer as it is without a stream."""
        return [b"event: answer\n" + _data({"id": self._job_id, **answer})]

    def error(self, error: ChatError) -> bytes:
        """As in the body of an answer that is an error."""
        return b"event: error\n" + _data(_without_partial(error_body(error)))


class CompletionEvents:
    """Chunks, and ``[DONE]`` at the end of an answer. With ``usage`` the last one has the usage."""

    last = b"data: [DONE]\n\n"

    def __init__(self, job_id: str, model: str, *, usage: bool) -> None:
        created = (made_at(job_id) or 0) // 1000
        self._chunks = Chunks(job_id, created, model, usage=usage)

    def piece(self, place: str, delta: Delta, *, first: bool) -> bytes:
        """One chunk."""
        return b"id: %s\n%s" % (place.encode(), _data(self._chunks.piece(delta, first=first)))

    def ends(self, answer: JSON, *, first: bool) -> Sequence[bytes]:
        """The reason to end, and the usage."""
        return [_data(chunk) for chunk in self._chunks.ends(answer, first=first)]

    def error(self, error: ChatError) -> bytes:
        """OpenAI's clients raise what has an ``error``."""
        _, body = completion_error(error)
        return _data(_without_partial(body))


def comment(text: str) -> bytes:
    """A line that clients leave alone: it shows that the stream is still there.

    No empty line follows. OpenAI's client keeps the last id for what comes, and would take the line
    for the end of an event without data, and fail.
    """
    return f": {text}\n".encode()


def _data(payload: JSON) -> bytes:
    return b"data: %s\n\n" % encoded(payload)


def _without_partial(body: JSON) -> JSON:
    """Whoever reads the stream has had it, piece by piece."""
    body["error"].pop("partial", None)
    return body
