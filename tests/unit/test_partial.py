"""Pieces of an answer, put together."""

from __future__ import annotations

import random

import pytest

from chat.partial import Partial
from chat.types import Delta, DeltaKind

CONTENT, REASONING, TOOL_CALL = DeltaKind
ANSWER = {
    "reasoning": "Well, élan…",
    "content": "Paris 🗼 is it.",
    "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}},
    ],
}
PIECES = [
    Delta(REASONING, "Well, "),
    Delta(REASONING, "élan…"),
    Delta(CONTENT, "Paris 🗼"),
    Delta(CONTENT, " is it."),
    Delta(TOOL_CALL, "", 0, "c1", "f"),
    Delta(TOOL_CALL, '{"a"', 0),
    Delta(TOOL_CALL, ": 1}", 0),
    Delta(TOOL_CALL, "", 1, "c2", "g"),
]


def of(pieces):
    partial = Partial()
    for piece in pieces:
        partial.add(piece)
    return partial


def test_all_pieces_are_the_answer():
    partial = of(PIECES)

    assert partial.to_wire() == ANSWER
    assert partial.pieces == len(PIECES)
    assert partial.rest_of(ANSWER) == []


@pytest.mark.parametrize("count", range(len(PIECES) + 1))
def test_what_has_come_and_the_rest_are_the_answer(count):
    partial = of(PIECES[:count])

    rest = partial.rest_of(ANSWER)

    assert rest is not None
    for piece in rest:
        partial.add(piece)
    assert partial.to_wire() == ANSWER


@pytest.mark.parametrize(
    "piece",
    [
        Delta(CONTENT, "London"),
        Delta(REASONING, "No"),
        Delta(TOOL_CALL, "", 0, "c1", "h"),
        Delta(TOOL_CALL, "[", 0, "c1", "f"),
        Delta(CONTENT, f"{ANSWER['content']}!"),
    ],
)
def test_another_answer_is_no_continuation(piece):
    assert of([piece]).rest_of(ANSWER) is None


def test_more_tool_calls_than_the_answer_has():
    assert of(PIECES).rest_of({**ANSWER, "tool_calls": []}) is None


def test_a_piece_of_a_call_that_has_not_begun():
    with pytest.raises(ValueError, match="tool call 3"):
        of([Delta(TOOL_CALL, "{", 3)])


def test_pieces_of_one_thing_join_and_others_do_not():
    joined: list[Delta] = []
    for piece in PIECES:
        both = joined[-1].joined(piece) if joined else None
        joined[-1:] = [both] if both else [*joined[-1:], piece]

    assert [piece.kind for piece in joined] == [REASONING, CONTENT, TOOL_CALL, TOOL_CALL]
    assert of(joined).to_wire() == ANSWER


def test_the_wire_of_a_piece():
    random.seed(4)
    for piece in random.sample(PIECES, len(PIECES)):
        assert Delta.from_wire(piece.to_wire()) == piece
    assert PIECES[4].to_wire() == {
        "tool_call": {"index": 0, "arguments": "", "id": "c1", "name": "f"}
    }
    assert PIECES[3].to_wire() == {"content": " is it."}
