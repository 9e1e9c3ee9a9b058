"""How the pieces of many calls get to Redis, with a store that does as told."""

from __future__ import annotations

import logging
import threading

import pytest

from chat.errors import QueueUnavailable
from chat.store import Grant
from chat.types import Cancelled, ChatRequest, Delta, DeltaKind
from tests.waiting import eventually
from workers.outbox import Outbox

SECRET = "nobody is to read this in a log"


class Store:
    """Notes what it is asked to deliver; does nothing while ``open`` is cleared."""

    def __init__(self):
        self.asked = []
        self.trouble = []
        self.unwanted = []
        self.open = threading.Event()
        self.open.set()

    def deliver(self, pieces):
        self.asked.append(list(pieces))
        assert self.open.wait(30)
        if self.trouble:
            raise self.trouble.pop(0)
        return self.unwanted

    def texts(self):
        """What went along each time, with the numbers."""
        return [[(piece.number, piece.delta.text) for piece in pieces] for pieces in self.asked]

    def whole(self, grant):
        """The text of a call, from pieces whose numbers have no gap."""
        mine = [one for pieces in self.asked for one in pieces if one.job_id == grant.job_id]
        assert [one.number for one in mine] == list(range(1, len(mine) + 1))
        return "".join(one.delta.text for one in mine)


def grant(name="a"):
    request = ChatRequest("m", (), stream=True)
    return Grant(f"job_{name}", f"token-{name}", 2, request, "m", "m", 60_000, 0, "{}")


def content(text):
    return Delta(DeltaKind.CONTENT, text)


def away():
    return QueueUnavailable("Redis is away")


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def outbox(store, monkeypatch):
    monkeypatch.setattr("workers.outbox._PAUSE_S", 0.001)
    outbox = Outbox(store)
    yield outbox
    store.open.set()
    outbox.close()
    if outbox._thread is not None:
        outbox._thread.join(10)
        assert not outbox._thread.is_alive()


@pytest.fixture
def call(outbox):
    return outbox.open(grant(), Cancelled())


def held(store, call, text="first"):
    """Send one piece, with which the sender does not come back before the store opens."""
    store.open.clear()
    before = len(store.asked)
    call(content(text))
    eventually(lambda: len(store.asked) > before, what="the sender is on its way")


def test_what_gathers_meanwhile_is_joined(store, call):
    """The first piece goes at once, and later ones of one kind are one."""
    held(store, call)
    for delta in (content("b"), content("c"), Delta(DeltaKind.REASONING, "r"), content("d")):
        call(delta)
    store.open.set()
    call.close()

    assert store.texts() == [[(1, "first")], [(2, "bc"), (3, "r"), (4, "d")]]
    assert (store.asked[1][0].token, store.asked[1][0].attempt) == ("token-a", 2)


def test_the_first_piece_of_a_call_waits_for_nobody(store, outbox, call, monkeypatch):
    """Later ones wait for the next round trip, which it is; the end of a call is one as well."""
    monkeypatch.setattr("workers.outbox._TICK_S", 3600)
    other = outbox.open(grant("b"), Cancelled())
    call(content("a"))
    eventually(lambda: store.asked, what="the first of one call")
    call(content("b"))
    other(content("x"))
    eventually(lambda: len(store.asked) == 2, what="the first of another")
    call(content("c"))
    call.close()

    assert store.texts() == [[(1, "a")], [(2, "b"), (1, "x")], [(3, "c")]]


def test_the_pieces_of_all_calls_travel_together(store, outbox, call):
    """One round trip, whoever they belong to."""
    others = [outbox.open(grant(name), Cancelled()) for name in "bcd"]
    held(store, call)
    for other in others:
        other(content("x"))
    store.open.set()
    for other in others:
        other.close()

    assert [piece.job_id for piece in store.asked[1]] == ["job_b", "job_c", "job_d"]
    assert len(store.asked) == 2


def test_one_round_trip_takes_only_so_many(store, outbox, call):
    """Redis does nothing else meanwhile; all others follow in their order."""
    many = [content, lambda text: Delta(DeltaKind.REASONING, text)]
    other = outbox.open(grant("b"), Cancelled())
    held(store, call)
    for number in range(150):
        call(many[number % 2](f"{number} "))
    other(content("other"))
    store.open.set()
    call.close()
    other.close()

    assert [len(pieces) for pieces in store.asked] == [1, 64, 64, 23]
    assert store.whole(grant()) == "first" + "".join(f"{number} " for number in range(150))
    assert store.whole(grant("b")) == "other"


def test_one_round_trip_takes_only_so_much(store, outbox, call):
    """A long piece travels alone, or is the last."""
    others = [outbox.open(grant(name), Cancelled()) for name in "bcd"]
    held(store, call)
    for other in others:
        other(content("x" * 20_000))
    store.open.set()
    for other in others:
        other.close()

    assert [len(pieces) for pieces in store.asked] == [1, 2, 1]


def test_after_trouble_the_same_is_sent_again(store, call):
    """Redis may have it: what came meanwhile is another piece, whatever its kind."""
    store.trouble = [away(), away()]
    held(store, call)
    call(content("b"))
    call(content("c"))
    store.open.set()
    call.close()

    assert store.texts() == [[(1, "first")]] * 3 + [[(2, "bc")]]


def test_an_outage_is_told_once(store, call, caplog):
    """And its end; what is in the pieces is nobody's business."""
    caplog.set_level(logging.DEBUG)
    store.trouble = [away(), away(), away()]
    call(content(SECRET))
    call.close()

    assert [(record.levelname, record.msg[:34]) for record in caplog.records] == [
        ("WARNING", "pieces of answers wait for Redis: "),
        ("INFO", "pieces of answers reach Redis again"[:34]),
    ]
    assert SECRET not in caplog.text


def test_a_fault_of_ours_ends_no_other_stream(store, outbox, call, caplog):
    """What could not be sent comes with the answer; the log has the traceback."""
    store.trouble = [ZeroDivisionError("by zero")]
    call(content(SECRET))
    eventually(lambda: "ZeroDivisionError" in caplog.text, what="the fault is logged")
    assert SECRET not in caplog.text
    other = outbox.open(grant("b"), Cancelled())
    other(content("b"))
    other.close()

    assert store.whole(grant("b")) == "b"


def test_a_call_that_nobody_wants_is_stopped(store, outbox):
    """Nothing more of it is sent, and its end does not wait."""
    stopped, goes_on = Cancelled(), Cancelled()
    calls = [outbox.open(grant(), stopped), outbox.open(grant("b"), goes_on)]
    store.unwanted = [("job_a", "token-a"), ("job_gone", "t")]
    held(store, calls[0])
    calls[0](content("b"))
    store.open.set()
    eventually(stopped.is_set, what="the call is stopped")
    store.unwanted = []
    calls[0](content("c"))
    calls[1](content("goes on"))
    for call in calls:
        call.close()

    assert (stopped.reason, goes_on.is_set()) == ("superseded", False)
    assert (store.whole(grant()), store.whole(grant("b"))) == ("first", "goes on")


def test_the_end_of_a_call_waits_for_its_last_pieces(store, call):
    """They come before the end is told."""
    call(content("a"))
    eventually(lambda: store.asked, what="the first is on its way")
    call(content("b"))
    call(content("c"))
    call.close()

    assert store.whole(grant()) == "abc"
    assert call.delivered


def test_a_call_without_pieces_has_delivered_nothing(store, call):
    """It may be tried again."""
    call.close()

    assert not call.delivered
    assert store.asked == []


def test_the_end_of_a_call_does_not_wait_for_ever(store, outbox, call, monkeypatch):
    """Its piece may have come to Redis, and is tried for as long as the call is not over."""
    monkeypatch.setattr("workers.outbox._PATIENCE_S", 0.01)
    store.trouble = [away()] * 100_000
    call(content("a"))
    eventually(lambda: len(store.asked) > 3, what="it is tried again")
    call.close()
    tried = len(store.asked)
    eventually(lambda: len(store.asked) > tried, what="it is tried once more")
    outbox.forget(grant())
    other = outbox.open(grant("b"), Cancelled())
    other(content("b"))
    eventually(lambda: store.asked[-1][0].job_id == "job_b", what="the sender goes on")
    store.trouble = []
    other.close()

    assert call.delivered


def test_what_was_never_on_its_way_is_not_sent_after_the_end(store, outbox, call, monkeypatch):
    """Its call may be tried again: nobody has seen anything of it."""
    monkeypatch.setattr("workers.outbox._PATIENCE_S", 0.01)
    second = outbox.open(grant("b"), Cancelled())
    held(store, call)
    second(content("b"))
    second.close()
    delivered = second.delivered
    store.open.set()
    call(content("c"))
    call.close()

    assert (delivered, second.delivered) == (False, False)
    assert (store.whole(grant()), store.whole(grant("b"))) == ("firstc", "")


def test_a_process_without_streams_has_no_thread(outbox):
    """The first call begins it, and the second has the same."""
    before = outbox._thread
    outbox.open(grant(), Cancelled())
    thread = outbox._thread
    outbox.open(grant("b"), Cancelled())

    assert before is None
    assert thread is outbox._thread
    assert thread.is_alive()
