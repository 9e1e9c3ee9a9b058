"""Streams that mean harm, or are badly broken: each call ends, with what had come until then."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from chat.errors import ChatError
from chat.types import Billed, Provider
from tests.upstream import Answer, End, ScriptedUpstream
from tests.wire.hostile.case import CHUNKED, CUT, LATE, PROTOCOL
from tests.wire.providers import PROVIDERS
from tests.wire.streams import KINDS, Pieces, outcome_of

NATIVE = ("ollama", "ollama_cloud")

#: As much as an answer may have in these tests.
MOST = 20_000

DEEP = b"[" * 100_000


def record(name: str, text: str = "Pa", **more: Any) -> bytes:
    """A record of ``name`` with a piece of text."""
    if name == "ollama":
        return json.dumps({"message": {"content": text}, "done": False, **more}).encode() + b"\n"
    if name == "ollama_cloud":
        return json.dumps({"response": text, "done": False, **more}).encode() + b"\n"
    choice = {"delta": {"content": text}, "finish_reason": None}
    return b"data: " + json.dumps({"choices": [choice], **more}).encode() + b"\n\n"


def framed(name: str, text: bytes) -> bytes:
    """``text`` as a record of ``name``."""
    return text + b"\n" if name in NATIVE else b"data: " + text + b"\n\n"


def kind(name: str) -> str:
    """The content type of ``name``."""
    return KINDS["ndjson" if name in NATIVE else "sse"]


def check(outcome: object, pieces: Pieces, *codes: str) -> None:
    """An error of one of these kinds, with all that had come and no more."""
    assert isinstance(outcome, ChatError)
    assert outcome.code in codes, outcome.message
    assert outcome.billed is Billed.MAYBE
    assert pieces.taken
    assert outcome.partial is not None
    assert outcome.partial["content"] == pieces.together.content
    assert outcome.message.isprintable()
    assert len(outcome.message) < 700


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"nonsense", id="no JSON"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[1]", id="a list"),
        pytest.param(b'"text"', id="a text"),
        pytest.param(b'{"done": NaN}', id="NaN"),
        pytest.param(b'{"n": ' + b"9" * 5000 + b"}", id="endless number"),
        pytest.param(b'{"a": "\xff\xfe"}', id="not UTF-8"),
        pytest.param(b'{"a": "\xed\xa0\xbd"}', id="surrogates in UTF-8"),
        pytest.param(b'{"a": "\x00"}', id="NUL"),
        pytest.param(b'{"a": 1}{"a": 2}', id="two in one"),
        pytest.param(b"\xef\xbb\xbf{}", id="a BOM in the middle"),
        pytest.param(b'{"a":' + DEEP + b"}", id="nested too deeply"),
    ],
)
def test_a_record_that_is_no_object_ends_the_call(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], name: str, text: bytes
) -> None:
    """Nobody can know what was lost with it."""
    body = [record(name), framed(name, text), record(name, "ris", done=True)]
    upstream.always(Answer.streamed(body, kind(name)))
    pieces = Pieces()

    check(outcome_of(make_provider(name, upstream), pieces), pieces, PROTOCOL)

    upstream.wait_for_hang_up(upstream.requests[0])


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"message": 1, "response": [], "choices": {}}, id="numbers"),
        pytest.param({"message": {"content": {}}, "response": {}, "choices": [1]}, id="objects"),
        pytest.param(
            {
                "message": {"tool_calls": [{}]},
                "response": True,
                "choices": [{"delta": {"tool_calls": "x"}}],
            },
            id="calls",
        ),
    ],
)
def test_a_field_of_a_wrong_type_ends_the_call(
    upstream: ScriptedUpstream,
    make_provider: Callable[..., Provider],
    name: str,
    values: dict[str, Any],
) -> None:
    """As it does in an answer at once."""
    wrong = framed(name, json.dumps(values).encode())
    upstream.always(Answer.streamed([record(name), wrong], kind(name)))
    pieces = Pieces()

    check(outcome_of(make_provider(name, upstream), pieces), pieces, PROTOCOL)


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(lambda _: b" " * 4096, id="a line"),
        pytest.param(lambda _: b"x" * 4096, id="a line with something in it"),
        pytest.param(lambda _: b"\n" * 4096, id="empty lines"),
        pytest.param(lambda _: b": keep waiting\n" * 100, id="comments"),
        pytest.param(lambda _: b"data: x\n" * 100, id="one event"),
        pytest.param(lambda name: record(name) * 20, id="records"),
        pytest.param(lambda name: record(name, "") * 20, id="records without text"),
        pytest.param(lambda name: record(name, "y" * 5000), id="long records"),
    ],
)
def test_a_stream_without_end_ends(
    upstream: ScriptedUpstream,
    make_provider: Callable[..., Provider],
    name: str,
    endless: Callable[[str], bytes],
) -> None:
    """By the number of its bytes, and long before its deadline."""
    piece = endless(name)
    begin = CHUNKED + b"%x\r\n%b\r\n" % (len(record(name)), record(name))
    upstream.always(Answer.raw_endless(begin, b"%x\r\n%b\r\n" % (len(piece), piece)))
    pieces = Pieces()

    outcome = outcome_of(make_provider(name, upstream, max_body_bytes=MOST), pieces)

    check(outcome, pieces, PROTOCOL)
    upstream.wait_for_hang_up(upstream.requests[0])


@pytest.mark.parametrize("name", PROVIDERS)
def test_what_is_kept_of_a_stream_is_bounded_as_an_answer_at_once_is(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], name: str
) -> None:
    """All the bytes of it may be more, since each piece comes in an envelope."""
    fits = [record(name, "y" * 100) for _ in range(MOST // 100)]
    last = (
        framed(name, b'{"message": {}, "response": "", "done": true}')
        if name in NATIVE
        else b"data: [DONE]\n\n"
    )
    assert sum(map(len, fits)) > MOST
    upstream.then(
        Answer.streamed([*fits, last], kind(name)),
        Answer.streamed([*fits, record(name, "y"), last], kind(name)),
    )
    provider = make_provider(name, upstream, max_body_bytes=MOST)
    first, second = Pieces(), Pieces()

    outcomes = outcome_of(provider, first), outcome_of(provider, second)

    assert first.together.rest_of(outcomes[0].to_wire()) == []
    assert len(first.together.content) == MOST
    check(outcomes[1], second, PROTOCOL)


@pytest.mark.parametrize("size", ["-1", "-5", "zz", "0x", "1e3", "ffffffffffffffff", "", "\x00"])
@pytest.mark.parametrize("name", ["ollama", "kimi"])
def test_a_chunk_with_a_wrong_size_ends_the_call(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], name: str, size: str
) -> None:
    """Whether it is the first one or follows a good one; a huge one only ends with its bytes."""
    good = b"%x\r\n%b\r\n" % (len(record(name)), record(name))
    upstream.always(Answer.raw_endless(CHUNKED + good + size.encode() + b"\r\n", b"x" * 4096))
    pieces = Pieces()

    outcome = outcome_of(make_provider(name, upstream, max_body_bytes=MOST), pieces)

    check(outcome, pieces, PROTOCOL)
    upstream.wait_for_hang_up(upstream.requests[0])


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("framing", ["chunks", "length", "close"])
@pytest.mark.parametrize("end", [End.CLOSE, End.RESET], ids=str)
@pytest.mark.parametrize("where", ["between", "within"])
def test_a_stream_that_is_cut_is_no_answer(
    upstream: ScriptedUpstream,
    make_provider: Callable[..., Provider],
    name: str,
    framing: str,
    end: End,
    where: str,
) -> None:
    """Between two records and within one, with the end of the connection or without warning."""
    seen = threading.Event()
    pieces = Pieces(when=lambda count: seen.set() if count == len(said) else None)
    said = [record(name), record(name, "ris")]
    whole = Answer.streamed([*said, b"x" * 500], kind(name), framing=framing)
    half = (b"fff\r\n" if framing == "chunks" else b"") + record(name, "!")[:20]
    begun = whole.steps[: 1 + len(said)]
    upstream.always(Answer.raw(*begun, *([half] if where == "within" else []), seen, end))

    check(outcome_of(make_provider(name, upstream), pieces), pieces, CUT)
    assert pieces.together.content == "Paris"


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_stream_that_says_nothing_more_ends_at_its_deadline(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], name: str
) -> None:
    """A comment or an empty line now and then is nothing."""
    begin = CHUNKED + b"%x\r\n%b\r\n" % (len(record(name)), record(name))
    upstream.always(Answer.raw_endless(begin, b"1\r\n\n\r\n", slowly=True))
    pieces = Pieces()

    check(outcome_of(make_provider(name, upstream), pieces, within_s=0.5), pieces, LATE)
