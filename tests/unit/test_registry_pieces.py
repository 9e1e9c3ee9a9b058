"""What the registry adds to a call whose answer comes piece by piece."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from chat.errors import (
    ChatError,
    UpstreamProtocolError,
    UpstreamRateLimited,
    error_classes,
)
from chat.registry import Registry, Route
from chat.types import (
    Billed,
    Cancelled,
    ChatRequest,
    ChatResponse,
    Deadline,
    Delta,
    DeltaKind,
    Deltas,
    FinishReason,
    Message,
    Role,
)

REQUEST = ChatRequest(model="strong", messages=(Message(Role.USER, "hello"),))
PIECES = (
    Delta(DeltaKind.REASONING, "Short."),
    Delta(DeltaKind.CONTENT, "Pa"),
    Delta(DeltaKind.CONTENT, "ris"),
)


class Streaming:
    """A provider that hands on ``pieces`` to whoever wants them, and then answers or raises."""

    name = "kimi"

    def __init__(self, outcome: ChatError | ChatResponse, pieces: Sequence[Delta] = PIECES) -> None:
        self.outcome, self.pieces = outcome, pieces

    def chat(
        self,
        request: ChatRequest,
        *,
        deadline: Deadline,
        cancelled: Cancelled,
        deltas: Deltas | None = None,
    ) -> ChatResponse:
        assert (request.model, deadline.at, cancelled.is_set()) == ("k3", 1e12, False)
        assert deltas is not None
        for piece in self.pieces:
            deltas(piece)
        if isinstance(self.outcome, ChatError):
            raise self.outcome
        return self.outcome


def call(provider: Streaming, taken: list[Delta] | None = None) -> ChatError | ChatResponse:
    """What becomes of a call whose pieces go to ``taken``."""
    try:
        return Registry({"kimi": provider}).chat(
            Route("kimi", "k3"),
            REQUEST,
            deadline=Deadline(at=1e12),
            cancelled=Cancelled(),
            deltas=([] if taken is None else taken).append,
        )
    except ChatError as error:
        return error


def test_pieces_go_on_as_they_are() -> None:
    """In their order; the answer is the provider's."""
    taken: list[Delta] = []
    answer = call(Streaming(ChatResponse("Paris", FinishReason.STOP, "Short.")), taken)

    assert isinstance(answer, ChatResponse)
    assert (answer.content, answer.provider) == ("Paris", "kimi")
    assert tuple(taken) == PIECES


@pytest.mark.parametrize("error_class", error_classes(), ids=lambda cls: cls.__name__)
def test_an_error_after_pieces_says_what_had_come(error_class: type[ChatError]) -> None:
    """Whatever error it is, the call may have been billed; a piece counts as a token."""
    given = error_class("no")
    billed = given.billed
    error = call(Streaming(given))

    assert error is given
    assert error.partial == {
        "content": "Paris",
        "reasoning": "Short.",
        "tool_calls": [],
        "output_tokens": 3,
    }
    assert error.billed is (Billed.MAYBE if billed is Billed.NO else billed)
    assert error.to_wire()["partial"] == error.partial
    assert (error.provider, error.upstream_model) == ("kimi", "k3")


def test_what_is_known_of_the_bill_stays_known() -> None:
    """It is not forgotten for what had come."""
    error = UpstreamProtocolError("no", billed=Billed.YES)
    call(Streaming(error))

    assert error.billed is Billed.YES


def test_the_upstreams_own_count_of_tokens_goes_before() -> None:
    """The provider leaves it in the error's partial."""
    error = UpstreamProtocolError("no", partial={"output_tokens": 9})
    call(Streaming(error))

    assert error.partial is not None
    assert (error.partial["content"], error.partial["output_tokens"]) == ("Paris", 9)


def test_an_error_before_the_first_piece_has_nothing_of_it() -> None:
    """It is what it would be of an answer at once, so that the call can be made again."""
    error = UpstreamRateLimited("no", partial={"output_tokens": 9})
    call(Streaming(error, ()))

    assert error.partial is None
    assert error.billed is Billed.NO
