"""The parts of the tables of streams that need no process: bytes, events, texts and times."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.streams.answers import WIRES
from bench.streams.decoding import Event, Response
from bench.streams.figures import late_ms
from bench.streams.lanes import Streamed
from bench.streams.reading import Reading
from bench.streams.script import Script
from bench.streams.upstream import Call

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
SCRIPT = Script(name="a", pieces=40)
names = st.text(st.characters(codec="ascii", categories=["Ll", "Nd"]), min_size=1, max_size=8)


def event(value, id_="", name=""):
    return Event(json.dumps(value, ensure_ascii=False), id_, name)


def read(form, *events):
    reading = Reading(form)
    for each in events:
        reading.take(each)
    return reading


def chat(*, ids=("1-1", "1-2", "end-0"), text="ab", answer="ab"):
    """Two pieces and the answer in chatd's format."""
    pieces = [({"content": text[0]}, "delta"), ({"content": text[1]}, "delta")]
    values = [*pieces, ({"content": answer, "finish_reason": "stop"}, "answer")]
    return [event(value, i, name) for (value, name), i in zip(values, ids, strict=True)]


@given(names, st.integers(1, 60))
def test_both_ends_know_the_same_text(name, pieces):
    """The question is all that passes between them; no piece is empty."""
    script = Script(name=name, pieces=pieces)
    other = Script.of(script.question)

    assert other == script
    assert len(other.said()) == pieces
    assert all(other.said())


def test_any_other_question_is_an_echo():
    """So that a person's request is answered as well."""
    assert Script.of("hello").whole() == "echo: hello"
    assert Script.of('{"a": 1}').whole() == 'echo: {"a": 1}'


@given(st.lists(st.integers(1, 9), max_size=300))
def test_events_do_not_depend_on_how_the_bytes_are_cut(sizes):
    """Not in the middle of a character, of a chunk's head, or of an event."""
    texts = Script(name="cut", pieces=8).said()
    body = b"".join(
        f"id: 1-{n}\nevent: delta\ndata: {json.dumps(t, ensure_ascii=False)}\n\n".encode()
        for n, t in enumerate(texts, 1)
    )
    raw = HEAD + b"".join(
        b"%x\r\n%b\r\n" % (len(body[at : at + 11]), body[at : at + 11])
        for at in range(0, len(body), 11)
    )
    raw += b"0\r\n\r\n"
    found: list[Event] = []
    response, at = Response(), 0
    for size in [*sizes, len(raw)]:
        found += response.feed(raw[at : at + size])
        at += size

    assert [json.loads(each.data) for each in found] == texts
    assert [each.id for each in found] == [f"1-{n}" for n in range(1, 9)]
    assert (response.status, response.over) == (200, True)


def test_a_body_without_framing_ends_with_its_connection():
    """Others that end so are cut."""
    told = Response()
    cut = Response()
    events = list(told.feed(b"HTTP/1.0 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n{}\n"))
    list(cut.feed(HEAD + b"5\r\nabc"))
    before = told.over
    told.closed()
    cut.closed()

    assert [each.data for each in events] == ["{}"]
    assert (before, told.over, cut.over) == (False, True, False)


def test_a_body_that_is_no_stream_is_kept():
    """As an error before the first piece is."""
    response = Response()
    raw = b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    for at in range(len(raw)):
        assert not response.over
        assert list(response.feed(raw[at : at + 1])) == []

    assert (response.status, response.over, response.body) == (404, True, b"{}")


@pytest.mark.parametrize(
    ("events", "verdict"),
    [
        pytest.param(chat(), "right", id="right"),
        pytest.param(chat()[:2], "no end", id="cut"),
        pytest.param(chat(text="ax"), "wrong text", id="another text"),
        pytest.param(chat(answer="abc"), "wrong answer at the end", id="another answer"),
        pytest.param(chat(ids=("1-1", "1-1", "end-0")), "id 1-1 after 1-1", id="twice"),
        pytest.param(chat(ids=("1-2", "1-1", "end-0")), "id 1-1 after 1-2", id="order"),
        pytest.param(chat(ids=("2-9", "1-10", "end-0")), "id 1-10 after 2-9", id="attempt"),
        pytest.param(chat(ids=("1-1", "1-1.1", "end-0")), "right", id="what the pieces lack"),
        pytest.param(
            chat(ids=("1-1.2", "1-1.1", "end-0")), "id 1-1.1 after 1-1.2", id="lack order"
        ),
        pytest.param(chat(ids=("1-1", "end-0", "1-2")), "id 1-2 after end-0", id="after the end"),
        pytest.param([*chat(), *chat()], "an event after the end", id="end twice"),
        pytest.param(
            [*chat()[:1], event({"error": {"code": "x"}}, "end-0", "error")], "error x", id="error"
        ),
    ],
)
def test_a_stream_is_right_only_if_all_of_it_is(events, verdict):
    """And the first thing that is wrong is named."""
    assert read("chat", *events).verdict("ab") == verdict


@pytest.mark.parametrize("path", [b"/api/chat", b"/chat/completions"], ids=["NDJSON", "SSE"])
def test_what_the_upstream_says_is_read_as_the_script(path):
    """The bytes of its answers, by the client of the same tables."""
    wire = WIRES[path]
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {wire.content_type}\r\nContent-Length: "
    body = b"".join(wire.pieces(SCRIPT, "m")) + wire.end(SCRIPT, "m")
    response = Response()
    reading = Reading("ollama" if path == b"/api/chat" else "openai")
    for each in response.feed(f"{head}{len(body)}\r\n\r\n".encode() + body):
        reading.take(each)

    assert reading.verdict(SCRIPT.whole()) == "right"
    assert len(reading.texts) == len(SCRIPT.said())


def test_a_piece_is_late_by_the_event_that_ends_it():
    """However pieces were joined on the way."""
    first, second, third = Script(name="late", pieces=3).said()
    call = Call("late", streamed=True, asked_at=0.0, sent=[1.0, 2.0, 3.0])
    size = len(first) + len(second)
    streamed = Streamed("late", 0.0, [(2.5, size), (3.5, size + len(third))], "right")

    assert late_ms(streamed, call) == [1500.0, 500.0, 500.0]
