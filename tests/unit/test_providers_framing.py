"""Cutting an answer into records, wherever its bytes are cut on their way."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.providers import framing
from chat.providers.framing import EventStream, Framing, JsonLines, first_line
from chat.providers.limits import AnswerTooLarge


def cut(body: bytes, places: list[int]) -> list[bytes]:
    """``body`` cut at ``places``; pieces may be empty."""
    at = sorted(place % (len(body) + 1) for place in places)
    return [body[start:end] for start, end in itertools.pairwise([0, *at, len(body)])]


def records(kind: type[Framing], *pieces: bytes, longest: int = 10_000) -> list[bytes]:
    """The records in ``pieces``."""
    return list(kind(longest).records(pieces))


@pytest.mark.parametrize(
    ("body", "found"),
    [
        pytest.param(b'{"a": 1}\n{"b": 2}\n', [b'{"a": 1}', b'{"b": 2}'], id="LF"),
        pytest.param(b"{}\r\n{}\r\n", [b"{}", b"{}"], id="CR LF"),
        pytest.param(b"\n \n{}\n\n\n{}", [b"{}", b"{}"], id="empty lines, and no end"),
        pytest.param(b"\xef\xbb\xbf{}\n", [b"{}"], id="BOM"),
        pytest.param(b"\xef\xbb\xbf{}", [b"{}"], id="BOM, and no end"),
        pytest.param(
            b'{"a": "\xc3\xa9\xe2\x80\xa8"}\n', [b'{"a": "\xc3\xa9\xe2\x80\xa8"}'], id="text"
        ),
        pytest.param(b"", [], id="nothing"),
    ],
)
def test_lines(body: bytes, found: list[bytes]) -> None:
    """A record a line; what Unicode alone calls the end of a line is text."""
    assert records(JsonLines, body) == found


@pytest.mark.parametrize(
    ("body", "found"),
    [
        pytest.param(b"data: {}\n\ndata: {}\n\n", [b"{}", b"{}"], id="LF"),
        pytest.param(b"data: {}\r\n\r\ndata: {}\r\n\r\n", [b"{}", b"{}"], id="CR LF"),
        pytest.param(b"data: {}\r\rdata: {}\r\r", [b"{}", b"{}"], id="CR"),
        pytest.param(b"\xef\xbb\xbfdata: {}\n\n", [b"{}"], id="BOM"),
        pytest.param(b"data:{}\n\ndata:  {}\n\n", [b"{}", b" {}"], id="one space is no data"),
        pytest.param(b'data: {"a":\ndata: 1}\n\n', [b'{"a":\n1}'], id="several lines"),
        pytest.param(b": hello\n\n:\n\ndata: {}\n: x\n\n", [b"{}"], id="comments"),
        pytest.param(
            b"event: message\nid: 7\nretry: 3\ndata: {}\nfoo: bar\nbaz\n\n", [b"{}"], id="fields"
        ),
        pytest.param(b"data\n\n", [b""], id="empty data"),
        pytest.param(b"event: ping\n\n\n\n", [], id="no data"),
        pytest.param(b"Data: {}\n data: {}\ndatax: {}\n\n", [], id="other names"),
        pytest.param(b"data: a:b\n\n", [b"a:b"], id="a colon in the data"),
        pytest.param(b"data: {}\n", [b"{}"], id="no empty line at the end"),
        pytest.param(b"data: {}", [b"{}"], id="no end at all"),
        pytest.param(b"", [], id="nothing"),
    ],
)
def test_events(body: bytes, found: list[bytes]) -> None:
    """As the standard has them, but for what the end of the body leaves open."""
    assert records(EventStream, body) == found


_PARTS = st.sampled_from(
    [b"data: ", b"data:", b": c", b"{}", b"[DONE]", b"\n", b"\r\n", b"\r", b"\xc3\xa9", b"x", b" "]
)


@pytest.mark.parametrize("kind", [JsonLines, EventStream])
@given(parts=st.lists(_PARTS, max_size=40), places=st.lists(st.integers(0, 400), max_size=40))
def test_records_are_the_same_wherever_the_bytes_are_cut(
    kind: type[Framing], parts: list[bytes], places: list[int]
) -> None:
    """Also between CR and LF, and inside a character."""
    body = b"".join(parts)

    assert records(kind, *cut(body, places)) == records(kind, body)


@pytest.mark.parametrize("kind", [JsonLines, EventStream])
def test_a_record_is_there_as_soon_as_its_end_is(kind: type[Framing]) -> None:
    """A CR ends a line, whether or not an LF is still to come."""
    end = b"\r" if kind is JsonLines else b"\r\r"
    record = b"{}" if kind is JsonLines else b"data: {}"

    def pieces() -> Iterator[bytes]:
        yield record + end
        pytest.fail("more was asked for before the record was given")

    assert next(iter(kind(100).records(pieces()))) == b"{}"


@pytest.mark.parametrize("kind", [JsonLines, EventStream])
def test_what_has_no_end_is_told(kind: type[Framing]) -> None:
    """Only with the last record of a body that stops in the midst of one."""
    whole, half = (b"{}\n", b"{") if kind is JsonLines else (b"data: {}\n\n", b"data: {")
    stream = kind(100)
    told = [(text, stream.broke_off) for text in stream.records([whole, whole, half])]

    assert told == [(b"{}", False), (b"{}", False), (b"{", True)]


@pytest.mark.parametrize(
    ("kind", "piece"),
    [
        pytest.param(JsonLines, b"x" * 60, id="a line"),
        pytest.param(EventStream, b"x" * 60, id="a line of no event"),
        pytest.param(EventStream, b"data: " + b"x" * 54 + b"\n", id="an event"),
    ],
)
def test_a_record_that_is_too_long_is_refused(kind: type[Framing], piece: bytes) -> None:
    """Before all of it is there."""
    with pytest.raises(AnswerTooLarge, match="100 bytes"):
        records(kind, piece, piece, longest=100)


@pytest.mark.parametrize("kind", [JsonLines, EventStream])
def test_lines_are_counted_also_where_they_are_no_records(
    kind: type[Framing], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty ones take time as well."""
    monkeypatch.setattr(framing, "_MOST_LINES", 5)

    assert records(kind, b"\n" * 5) == []
    with pytest.raises(AnswerTooLarge, match="5 lines"):
        records(kind, b"\n" * 6)


@pytest.mark.parametrize(
    ("line", "begins"),
    [
        (b'{"a": 1}', True),
        (b'\xef\xbb\xbf{"a": 1}', True),
        (b"{", False),
        (b"[1]", False),
        (b"<html>", False),
        (b"data: {}", False),
        (b"\xff", False),
        (b"", False),
    ],
)
def test_what_begins_with_an_object_comes_in_lines(line: bytes, *, begins: bool) -> None:
    """Anything else is an answer at once, or none."""
    assert JsonLines.begins(line) is begins


@pytest.mark.parametrize(
    ("line", "begins"),
    [
        (b"data: {}", True),
        (b"data:{}", True),
        (b"data", True),
        (b": comment", True),
        (b":", True),
        (b"event: x", True),
        (b"id: 1", True),
        (b"retry: 1", True),
        (b"\xef\xbb\xbfdata: {}", True),
        (b'{"data": 1}', False),
        (b"database", False),
        (b"<html>", False),
        (b"", False),
    ],
)
def test_what_begins_with_a_field_comes_in_events(line: bytes, *, begins: bool) -> None:
    """JSON, HTML and empty bodies do not."""
    assert EventStream.begins(line) is begins


@pytest.mark.parametrize(
    ("pieces", "line", "taken"),
    [
        pytest.param([b"ab\ncd"], b"ab", b"ab\ncd", id="in one piece"),
        pytest.param([b"a", b"b", b"\r", b"c"], b"ab", b"ab\r", id="in several"),
        pytest.param([b" \r", b"\n\n a", b"b\n"], b"ab", b"ab\n", id="behind white space"),
        pytest.param([b"a", b"b"], b"ab", b"ab", id="without end"),
        pytest.param([b"\n", b" "], b"", b"", id="nothing"),
    ],
)
def test_the_first_line(pieces: list[bytes], line: bytes, taken: bytes) -> None:
    """No more is taken than has to be."""
    source = iter(pieces)

    assert first_line(source, 100) == (line, taken)
    assert taken + b"".join(source) == b"".join(pieces).lstrip()


@pytest.mark.parametrize("piece", [b"x" * 60, b" " * 60, b"\n" * 60], ids=["x", "space", "LF"])
def test_a_first_line_that_is_too_long_is_refused(piece: bytes) -> None:
    """With the white space in front of it."""
    with pytest.raises(AnswerTooLarge, match="100 bytes"):
        first_line(iter([piece, piece]), 100)
