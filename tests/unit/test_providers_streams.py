"""Pieces put together to answers: what the example streams leave open."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import ChatError, UpstreamProtocolError, UpstreamUnavailable
from chat.providers.assembly import Shown
from chat.types import ChatResponse, Delta, DeltaKind, FinishReason, ToolCall
from tests.wire.canned import CannedUpstream
from tests.wire.providers import (
    PROVIDERS,
    call,
    plain_request,
    provider_at,
    stream_api,
    stream_files,
    stream_of,
)
from tests.wire.streams import Pieces, outcome_of

FILES = stream_files()


def told(file: str, *cuts: bytes) -> tuple[object, object]:
    """What becomes of an example stream that comes in these pieces, and what its pieces come to."""
    name = file.partition("/")[0]
    upstream = CannedUpstream(name, cuts)
    pieces = Pieces()
    outcome = outcome_of(provider_at(name, lambda _: upstream, api=stream_api(file)), pieces)
    upstream.close()
    rest = pieces.together.rest_of(outcome.to_wire()) if isinstance(outcome, ChatResponse) else []
    assert rest == []
    return outcome.to_wire(), pieces.taken


@pytest.mark.parametrize("file", FILES)
def test_a_stream_may_be_cut_in_two_anywhere(file: str) -> None:
    """The outcome and each single piece are the same."""
    body = stream_of(file)
    whole = told(file, body)

    for at in range(1, len(body)):
        assert told(file, body[:at], body[at:]) == whole, at


@given(data=st.data())
def test_a_stream_may_be_cut_anywhere(data: st.DataObject) -> None:
    """The same of any number of cuts."""
    file = data.draw(st.sampled_from(FILES))
    body = stream_of(file)
    at = data.draw(st.sets(st.integers(1, len(body) - 1), max_size=60))
    cuts = [body[start:end] for start, end in itertools.pairwise([0, *sorted(at), len(body)])]

    assert told(file, *cuts) == told(file, body)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("change", ["CR LF", "CR", "BOM", "no line at the end"])
def test_lines_may_end_in_any_way(file: str, change: str) -> None:
    """And begin with a byte order mark."""
    body = stream_of(file)
    changed = {
        "CR LF": body.replace(b"\n", b"\r\n"),
        "CR": body.replace(b"\n", b"\r"),
        "BOM": b"\xef\xbb\xbf" + body,
        "no line at the end": body.rstrip(),
    }

    assert told(file, changed[change]) == told(file, body)


SECRET = "sk-secret-sk"


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        pytest.param(["a", "b"], ["a", "b"], id="no key"),
        pytest.param(["my sk-secret-sk here"], ["my *** here"], id="in one"),
        pytest.param(["my sk-", "secret", "-sk!"], ["my ", "", "***!"], id="in three"),
        pytest.param(["tas", "k", "!"], ["ta", "", "sk!"], id="the beginning of it"),
        pytest.param(["task", "s"], ["ta", "sk"], id="the beginning twice"),
        pytest.param(["sk-secret-sk-secret-sk"], ["***-secret-"], id="two in each other"),
        pytest.param(["sk-secret-", "sk-secret-sk"], ["", "***-secret-"], id="and cut"),
    ],
)
def test_what_may_be_the_key_is_kept_back(texts: list[str], shown: list[str]) -> None:
    """Until it is known whether it is."""
    mask = Shown(SECRET)

    assert [mask.more(text) for text in texts] == shown


@given(texts=st.lists(st.text("sk-ecrt", max_size=15), max_size=12))
def test_a_text_in_pieces_is_masked_as_the_whole_one_is(texts: list[str]) -> None:
    """What is shown is always how that begins, and lacks less than the length of the key."""
    for secret in ("sk-s", "ss", "s"):
        mask = Shown(secret)
        shown = "".join(map(mask.more, texts))
        masked = "".join(texts).replace(secret, "***")

        assert masked.startswith(shown)
        assert len(masked) - len(shown) < len(secret)


@pytest.mark.parametrize(
    ("text", "last"), [("Paris", "s"), ("task", "sk"), ("my sk-secret-sk", ""), ("Oslo", "")]
)
def test_what_was_kept_back_is_shown_in_the_end_if_it_is_no_key(text: str, last: str) -> None:
    """A text that breaks off keeps its last letters, but nothing that most of a key is in."""
    mask = Shown("sk-secret-sk-secret")
    mask.more(text)

    assert mask.last() == last
    assert mask.last() == ""


def test_without_a_key_nothing_is_kept_back() -> None:
    """Local Ollama has none."""
    assert Shown(None).more("sk-") == "sk-"


def chunk(*calls: dict[str, Any], finish: str | None = None, **delta: Any) -> bytes:
    """A chunk with pieces of tool calls."""
    choice = {"delta": {"tool_calls": list(calls), **delta}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def piece(
    index: int | None, id_: str | None = None, name: str | None = None, arguments: Any = None
) -> dict[str, Any]:
    """A piece of a tool call; what is None is left out."""
    function = {"name": name, "arguments": arguments}
    wire = {
        "index": index,
        "id": id_,
        "function": {key: value for key, value in function.items() if value is not None},
    }
    return {key: value for key, value in wire.items() if value is not None}


def called(*chunks: bytes) -> tuple[tuple[ToolCall, ...], list[Delta]]:
    """The tool calls of an answer of Kimi, and the pieces they came in."""
    upstream = CannedUpstream("kimi", [*chunks, chunk(finish="tool_calls")])
    pieces = Pieces()
    response = call(provider_at("kimi", lambda _: upstream), plain_request("kimi"), deltas=pieces)
    upstream.close()
    assert pieces.together.rest_of(response.to_wire()) == []
    assert response.finish_reason is FinishReason.TOOL_CALLS
    return response.tool_calls, pieces.taken


def first(text: str, index: int, id_: str, name: str) -> Delta:
    """The first piece of a call."""
    return Delta(DeltaKind.TOOL_CALL, text, index, id_, name)


def more(text: str, index: int = 0) -> Delta:
    """A later one."""
    return Delta(DeltaKind.TOOL_CALL, text, index)


AB = (ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g", "[]"))


@pytest.mark.parametrize(
    ("chunks", "calls", "pieces"),
    [
        pytest.param(
            [
                chunk(piece(0, "a", "f", '{"x"'), piece(1, "b", "g", "[")),
                chunk(piece(0, arguments=":1}"), piece(1, arguments="]")),
            ],
            AB,
            [first('{"x"', 0, "a", "f"), first("[", 1, "b", "g"), more(":1}"), more("]", 1)],
            id="two side by side",
        ),
        pytest.param(
            [chunk(piece(7, "a", "f", '{"x":1}')), chunk(piece(3, "b", "g", "[]"))],
            AB,
            [first('{"x":1}', 0, "a", "f"), first("[]", 1, "b", "g")],
            id="odd numbers",
        ),
        pytest.param(
            [chunk(piece(0, "a", "f", '{"x":1}')), chunk(piece(0, "b", "g", "[]"))],
            AB,
            [first('{"x":1}', 0, "a", "f"), first("[]", 1, "b", "g")],
            id="all are number 0",
        ),
        pytest.param(
            [
                chunk(piece(None, "a", "f", '{"x"')),
                chunk(piece(None, arguments=":1}")),
                chunk(piece(None, "b", "g", "[]")),
            ],
            AB,
            [first('{"x"', 0, "a", "f"), more(":1}"), first("[]", 1, "b", "g")],
            id="no numbers",
        ),
        pytest.param(
            [
                chunk(piece(0, "a", None, '{"x"')),
                chunk(piece(1, "b", "g", "[]")),
                chunk(piece(0, None, "f", ":1}")),
            ],
            AB,
            [first('{"x":1}', 0, "a", "f"), first("[]", 1, "b", "g")],
            id="the name comes late",
        ),
        pytest.param(
            [chunk(piece(0, None, "f", '{"x"')), chunk(piece(0, "a", None, ":1}"))],
            AB[:1],
            [first('{"x":1}', 0, "a", "f")],
            id="the id comes late",
        ),
        pytest.param(
            [chunk(piece(0, "a", "f", '{"x"')), chunk(piece(0, "a", "f", ":1}"))],
            AB[:1],
            [first('{"x"', 0, "a", "f"), more(":1}")],
            id="id and name each time",
        ),
        pytest.param(
            [
                chunk(piece(0, None, "f", '{"x"')),
                chunk(piece(0, None, None, ":1}")),
                chunk(piece(1, "b", "g", "[]")),
            ],
            (ToolCall("call_0", "f", '{"x":1}'), AB[1]),
            [first('{"x":1}', 0, "call_0", "f"), first("[]", 1, "b", "g")],
            id="no id at all",
        ),
        pytest.param(
            [chunk(piece(0, "a", "f"))],
            (ToolCall("a", "f", "{}"),),
            [first("", 0, "a", "f"), more("{}")],
            id="no arguments",
        ),
        pytest.param(
            [chunk(piece(0, "a", "f", {"x": 1}))],
            (ToolCall("a", "f", '{"x": 1}'),),
            [first('{"x": 1}', 0, "a", "f")],
            id="arguments as an object",
        ),
    ],
)
def test_tool_calls_come_in_pieces(
    chunks: list[bytes], calls: tuple[ToolCall, ...], pieces: list[Delta]
) -> None:
    """By their numbers, where those tell; each begins with whose it is, in their order."""
    assert called(*chunks) == (calls, pieces)


def test_the_last_letters_of_a_broken_stream_are_there() -> None:
    """Though the key begins with one of them; alone they are no reason to take it for begun."""
    text = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n'
    found = []
    for chunks in (
        [text % b"Paris", chunk(piece(0, "a", "f", '{"x":"s'))],
        [text % b"s"],
    ):
        upstream = CannedUpstream("kimi", chunks)
        error = outcome_of(provider_at("kimi", lambda _: upstream), Pieces())  # noqa: B023
        upstream.close()
        assert isinstance(error, UpstreamUnavailable)
        found.append(error.partial)

    assert found[0] is not None
    assert found[0]["content"] == "Paris"
    assert found[0]["tool_calls"][0]["function"]["arguments"] == '{"x":"s'
    assert found[1] is None


def test_a_tool_call_without_a_name_is_none() -> None:
    """It is told at the end, since the name may come late."""
    upstream = CannedUpstream("kimi", [chunk(piece(0, "a")), chunk(finish="tool_calls")])

    with pytest.raises(UpstreamProtocolError, match=r"tool_calls\[0\].function.name"):
        call(provider_at("kimi", lambda _: upstream), plain_request("kimi"), deltas=Pieces())
    upstream.close()


def test_ollama_calls_tools_in_any_number_of_records() -> None:
    """Those without an id are numbered through."""
    calls = [{"function": {"name": name, "arguments": {"x": 1}}} for name in "fgh"]
    records: list[dict[str, Any]] = [
        {"message": {"content": "", "tool_calls": calls[:2]}, "done": False},
        {"message": {"content": "", "tool_calls": calls[2:]}, "done": True},
    ]
    upstream = CannedUpstream("ollama", [json.dumps(record).encode() + b"\n" for record in records])
    pieces = Pieces()

    response = call(
        provider_at("ollama", lambda _: upstream), plain_request("ollama"), deltas=pieces
    )
    upstream.close()

    ids = ["call_0", "call_1", "call_2"]
    assert [call.id for call in response.tool_calls] == ids
    assert [(piece.index, piece.id) for piece in pieces.taken] == list(enumerate(ids))
    assert pieces.together.rest_of(response.to_wire()) == []


CONTENT = b'data: {"choices":[{"delta":{"content":"Paris"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        pytest.param(CONTENT + DONE, FinishReason.STOP, id="no reason, but the end"),
        pytest.param(DONE, UpstreamProtocolError, id="only the end"),
        pytest.param(b"data: {}\n\n" + DONE, UpstreamProtocolError, id="no choice"),
        pytest.param(b": hello\n\n", UpstreamUnavailable, id="only a comment"),
        pytest.param(CONTENT, UpstreamUnavailable, id="no end"),
        pytest.param(CONTENT + b"data: [DO", UpstreamUnavailable, id="half an end"),
        pytest.param(CONTENT + b"data: [DONE]", FinishReason.STOP, id="an end without a line"),
        pytest.param(
            CONTENT + b'data: {"choices":[{"delta":{},"finish_reason":"error"}]}\n\n',
            UpstreamUnavailable,
            id="a failed choice",
        ),
        pytest.param(
            CONTENT + b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\n',
            FinishReason.LENGTH,
            id="a reason, but no end",
        ),
        pytest.param(
            b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n' + DONE,
            UpstreamUnavailable,
            id="nothing generated",
        ),
    ],
)
def test_how_a_stream_of_events_ends(body: bytes, outcome: FinishReason | type[ChatError]) -> None:
    """A reason to stop or ``[DONE]`` makes it whole; how it reads then is as of any answer."""
    upstream = CannedUpstream("kimi", [body])
    found = outcome_of(provider_at("kimi", lambda _: upstream), Pieces())
    upstream.close()

    assert outcome in (type(found), getattr(found, "finish_reason", None))


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_call_that_nobody_wants_pieces_of_does_not_ask_for_any(name: str) -> None:
    """And one that somebody does says so."""
    upstream = CannedUpstream(name, [b"{}"])
    provider = provider_at(name, lambda _: upstream)
    for pieces in (None, Pieces()):
        assert isinstance(outcome_of(provider, pieces), ChatError)
    upstream.close()

    at_once, in_pieces = map(json.loads, upstream.asked)
    assert (at_once["stream"], in_pieces["stream"]) == (False, True)
    counts = {"stream_options": {"include_usage": True}} if name in ("kimi", "opencode") else {}
    assert in_pieces == {**at_once, "stream": True, **counts}
