"""What one reader is given of a job's pieces: each once, in order, none left out."""

from __future__ import annotations

import pytest

from chat.errors import QueueUnavailable
from chat.follower import START, Follower, Place
from chat.types import Delta
from tests.events import call, say

TEXTS = ["a", "b", "c", "d", "e", "f"]


class Kept:
    """The pieces that Redis keeps of one job; each of them is ``told`` to followers by hand."""

    def __init__(self, texts=(), attempt=1):
        self.entries = [(f"{attempt}-{n}", say(text)) for n, text in enumerate(texts, 1)]
        self.asked = []
        self.trouble = False

    def __call__(self, after):
        self.asked.append(after)
        if self.trouble:
            message = "away"
            raise QueueUnavailable(message)
        if after == "-":
            return list(self.entries)
        return [one for one in self.entries if Place.of(one[0]) > Place.of(after)]


def answer(text):
    return {"content": text, "reasoning": None, "tool_calls": []}


def texts(taken):
    return [delta.text for _, delta in taken]


def tell(follower, *numbers, attempt=1):
    for number in numbers:
        follower.push(attempt, number, say(TEXTS[number - 1]).to_wire())


def test_pieces_are_given_as_they_are_told():
    """Nobody asks Redis for them."""
    kept = Kept()
    follower = Follower(kept)
    tell(follower, 1, 2)
    first = follower.take()
    tell(follower, 3)

    assert first == [(Place(1, 1), say("a")), (Place(1, 2), say("b"))]
    assert follower.take() == [(Place(1, 3), say("c"))]
    assert (follower.take(), kept.asked) == ([], [])
    assert follower.rest_of(answer("abcd")) == [say("d")]


def test_what_is_told_twice_is_given_once():
    """Two watches of one channel, a script that was sent twice, a message after a read."""
    follower = Follower(Kept())
    tell(follower, 1, 1, 2)
    first = follower.take()
    tell(follower, 2, 1, 3)

    assert (texts(first), texts(follower.take())) == (["a", "b"], ["c"])


def test_the_first_piece_may_be_of_any_attempt():
    """Those before it came to nothing."""
    follower = Follower(Kept())
    tell(follower, 1, 2, attempt=3)

    assert [place for place, _ in follower.take()] == [Place(3, 1), Place(3, 2)]


def test_a_gap_is_filled_from_redis():
    """And what was told behind it is not given twice."""
    kept = Kept("abcd")
    follower = Follower(kept)
    tell(follower, 1, 4)

    assert texts(follower.take()) == ["a", "b", "c", "d"]
    assert kept.asked == ["1-1"]


def test_a_piece_too_large_to_be_told_is_read():
    """Its place is told."""
    kept = Kept("abc")
    follower = Follower(kept)
    tell(follower, 1)
    follower.push(1, 2, None)
    tell(follower, 3)

    assert texts(follower.take()) == ["a", "b", "c"]


def test_what_was_told_before_anybody_listened_is_read():
    """A joined job, or a new subscription."""
    kept = Kept("ab")
    joined = Follower(kept, begun=True)
    first = joined.take()
    kept.entries.append(("1-3", say("c")))
    joined.look_again()

    assert (texts(first), texts(joined.take())) == (["a", "b"], ["c"])
    assert kept.asked == ["-", "1-2"]


def test_a_reader_who_comes_back_is_given_what_follows():
    """All of it counts to what it has, for the completion at the end."""
    follower = Follower(Kept("abcd"), Place(1, 2), begun=True)

    assert texts(follower.take()) == ["c", "d"]
    assert follower.rest_of(answer("abcdef")) == [say("ef")]


def test_a_reader_who_has_begun_with_the_rest_is_given_no_more_pieces():
    """Told ones would stand in the rest as well."""
    follower = Follower(Kept("abcd"), Place(1, 2), begun=True, ended=True)
    tell(follower, 3)
    follower.look_again()

    assert (follower.take(), follower.torn) == ([], False)
    assert follower.rest_of(answer("abcdef")) == [say("cdef")]


def test_pieces_that_nobody_has_any_more_end_the_giving():
    """The whole answer has the rest, and the text is not torn."""
    follower = Follower(Kept())
    tell(follower, 1, 3)
    first = follower.take()
    tell(follower, 4)

    assert (texts(first), follower.take(), follower.torn) == (["a"], [], True)
    assert not follower.lost
    assert follower.rest_of(answer("abcd")) == [say("bcd")]
    assert follower.rest_of(answer("xyz")) is None


@pytest.mark.parametrize(
    "entries",
    [[("1-3", say("c"))], [("1-1", say("a")), ("1-3", say("c"))]],
    ids=["the beginning is gone", "one is missing"],
)
def test_a_reader_who_comes_back_too_late_is_not_completed(entries):
    """What it has is not known."""
    kept = Kept()
    kept.entries = entries
    follower = Follower(kept, Place(1, 2), begun=True)

    assert (follower.take(), follower.torn, follower.lost) == ([], True, True)
    assert follower.rest_of(answer("abcd")) is None


def test_a_place_that_never_was_is_not_completed():
    """Nor is anything given that might have been had."""
    follower = Follower(Kept("ab"), Place(7, 3), begun=True)

    assert (follower.take(), follower.rest_of(answer("ab"))) == ([], None)


def test_without_redis_nothing_is_lost():
    """What was taken up before it went away is given with the next."""
    kept = Kept("abcd")
    follower = Follower(kept)
    kept.trouble = True
    tell(follower, 1, 3)
    with pytest.raises(QueueUnavailable):
        follower.take()
    with pytest.raises(QueueUnavailable):
        follower.take()
    kept.trouble = False

    assert texts(follower.take()) == ["a", "b", "c", "d"]


def test_a_reader_who_takes_nothing_costs_no_more_than_so_much(monkeypatch):
    """Redis has the pieces that were not kept."""
    monkeypatch.setattr("chat.follower._MOST_KEPT", 2)
    follower = Follower(Kept("abcdef"))
    tell(follower, 1, 2, 3, 4, 5)

    assert len(follower._come) == 2
    assert texts(follower.take()) == TEXTS


def test_a_piece_of_a_call_that_never_began_ends_the_giving():
    """It would be a call without a name."""
    follower = Follower(Kept())
    follower.push(1, 1, call("{").to_wire())

    assert (follower.take(), follower.torn, follower.place) == ([], True, START)


@pytest.mark.parametrize("place", [Place(1, 57), START])
def test_a_place_is_read_as_it_is_written(place):
    """It is the id of an entry, and of an event."""
    assert Place.of(str(place)) == place


def test_only_the_next_piece_comes_next():
    """Of the same attempt, but for the first."""
    assert START.before(Place(4, 1))
    assert not START.before(Place(1, 2))
    assert Place(1, 2).before(Place(1, 3))
    assert not Place(1, 2).before(Place(2, 1))
    assert not Place(1, 2).before(Place(1, 4))


def test_pieces_have_the_kind_they_were_told_with():
    """As ``Delta.to_wire`` wrote them."""
    follower = Follower(Kept())
    pieces: list[Delta] = [call("{", 0, "c1", "f"), call("}", 0)]
    for number, piece in enumerate(pieces, 1):
        follower.push(1, number, piece.to_wire())

    assert [delta for _, delta in follower.take()] == pieces
