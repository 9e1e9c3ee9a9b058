"""How a call for pieces ends: what becomes of its connection, and who notices a stop."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from chat.errors import JobCancelled, UpstreamTimeout, UpstreamUnavailable
from chat.providers import upstream as upstream_module
from chat.providers.watchdog import process_watchdog
from chat.types import Billed, Cancelled, ChatResponse, Provider
from tests.upstream import Answer, End, ScriptedUpstream
from tests.wire.hostile.case import CHUNKED
from tests.wire.providers import PROVIDERS, stream_of
from tests.wire.streams import KINDS, Pieces, kind_of, outcome_of, records_of

FILES = {
    "ollama": "ollama/stream.ok.ndjson",
    "ollama_cloud": "ollama_cloud/stream.generate.ndjson",
    "openrouter": "openrouter/stream.ok.sse",
    "opencode": "opencode/stream.ok.sse",
    "kimi": "kimi/stream.ok.sse",
}

#: An answer of Chat Completions up to and with the reason to stop, and what comes behind it.
SAID = b'data: {"choices":[{"delta":{"content":"Paris"},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":14,"completion_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"
COST = b'data: {"choices":[],"cost":"0.25"}\n\n'


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends that do not come are waited for a moment only."""
    monkeypatch.setattr(upstream_module, "_END_WITHIN_S", 0.2)


def begun(name: str) -> list[bytes]:
    """A stream of ``name`` up to its first piece of text."""
    records = records_of(stream_of(FILES[name]))
    texts = [number for number, record in enumerate(records) if b"Pa" in record]
    return records[: texts[0] + 1]


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("framing", ["chunks", "length"])
def test_a_connection_serves_one_stream_after_the_other(
    any_upstream: ScriptedUpstream, make_provider: Callable[..., Provider], name: str, framing: str
) -> None:
    """And an answer at once in between, which goes the shortest way."""
    body = stream_of(FILES[name])
    provider = make_provider(name, any_upstream)
    any_upstream.always(
        lambda request: (
            Answer.streamed([body], kind_of(FILES[name]), framing=framing)
            if request.json()["stream"]
            else Answer.json({"error": "busy"}, 503)
        )
    )

    outcomes = [outcome_of(provider, pieces) for pieces in (Pieces(), Pieces(), None, Pieces())]

    assert [type(outcome) for outcome in outcomes] == [
        *[ChatResponse] * 2,
        UpstreamUnavailable,
        ChatResponse,
    ]
    assert len(any_upstream.connections) == 1
    assert len(process_watchdog()) == 0


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_a_stream_can_be_stopped_and_the_upstream_sees_it(
    any_upstream: ScriptedUpstream, make_provider: Callable[..., Provider], name: str, how: str
) -> None:
    """On its first piece, on a new connection and on one that served before; the pieces stay."""
    provider = make_provider(name, any_upstream)
    stalled = Answer.streamed([*begun(name), any_upstream.closing], kind_of(FILES[name]))
    whole = Answer.streamed([stream_of(FILES[name])], kind_of(FILES[name]))
    any_upstream.then(stalled, whole, stalled, whole)
    kind = JobCancelled if how == "cancel" else UpstreamTimeout
    for number in (0, 2):
        cancelled = Cancelled()
        stop = cancelled.set if how == "cancel" else lambda _: None
        pieces = Pieces(when=lambda _, stop=stop: stop("the client has gone"))  # type: ignore[misc]
        within_s = 30.0 if how == "cancel" else 0.5

        error = outcome_of(provider, pieces, within_s=within_s, cancelled=cancelled)

        assert type(error) is kind
        assert error.billed is Billed.MAYBE
        assert error.partial == {
            **pieces.together.to_wire(),
            "output_tokens": len(pieces.taken),
        }
        assert pieces.taken
        any_upstream.wait_for_hang_up(any_upstream.requests[number])
        assert isinstance(outcome_of(provider, Pieces()), ChatResponse)

    connections = [request.connection.number for request in any_upstream.requests]
    assert connections[0] != connections[1] == connections[2] != connections[3]
    assert len(process_watchdog()) == 0


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param((), id="nothing"),
        pytest.param((b"data: {\n\n",), id="half an object"),
        pytest.param((b"data: nonsense\n\ndata: \xff\n\n",), id="no JSON"),
        pytest.param((b'data: {"error": "too late"}\n\n',), id="an error"),
        pytest.param((b'data: {"choices": 5, "usage": "x"}\n\n',), id="odd types"),
        pytest.param((b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n',), id="more text"),
        pytest.param((b"x" * 300_000,), id="too much"),
        pytest.param((b"\n" * 100_000,), id="empty lines"),
    ],
)
@pytest.mark.parametrize("then", ["end", "open", "close", "reset"])
def test_nothing_behind_its_end_spoils_an_answer(
    any_upstream: ScriptedUpstream,
    make_provider: Callable[..., Provider],
    behind: tuple[bytes, ...],
    then: str,
) -> None:
    """Whatever it is, and however the connection ends or does not end."""
    body = [SAID, USAGE, DONE + COST, *behind]
    steps = Answer.streamed(body, KINDS["sse"]).steps
    ends = {
        "end": steps,
        "open": (*steps[:-1], any_upstream.closing),
        "close": (*steps[:-1], End.CLOSE),
        "reset": (*steps[:-1], End.RESET),
    }
    any_upstream.always(Answer.raw(*ends[then]))
    provider = make_provider("opencode", any_upstream, max_body_bytes=20_000)

    response = outcome_of(provider, Pieces())

    assert isinstance(response, ChatResponse)
    assert (response.content, response.input_tokens, response.cost_usd) == ("Paris", 14, 0.25)
    if then == "open":
        any_upstream.wait_for_hang_up(any_upstream.requests[0])
    assert len(process_watchdog()) == 0


@pytest.mark.parametrize("name", PROVIDERS)
def test_what_never_ends_behind_the_end_is_left(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], name: str
) -> None:
    """The answer is there, and the connection is closed."""
    body = stream_of(FILES[name])
    begin = CHUNKED + b"%x\r\n%b\r\n" % (len(body), body)
    upstream.always(Answer.raw_endless(begin, b"4\r\n: x\n\r\n", slowly=True))

    response = outcome_of(make_provider(name, upstream), Pieces())

    assert isinstance(response, ChatResponse)
    assert response.content.startswith("Paris")
    upstream.wait_for_hang_up(upstream.requests[0])


@pytest.mark.parametrize("how", ["closed", "reset", "deadline", "too much"])
def test_a_reason_to_stop_completes_an_answer(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], how: str
) -> None:
    """The counts alone are not known, if they had not come: all of the text had."""
    steps = Answer.streamed([SAID], KINDS["sse"]).steps[:-1]
    ends: dict[str, tuple[bytes | End | threading.Event, ...]] = {
        "closed": (End.CLOSE,),
        "reset": (End.RESET,),
        "deadline": (upstream.closing,),
        "too much": (b"fffff\r\n" + b"x" * 100_000, upstream.closing),
    }
    upstream.always(Answer.raw(*steps, *ends[how]))
    provider = make_provider("kimi", upstream, max_body_bytes=5000)

    response = outcome_of(provider, Pieces(), within_s=0.5 if how == "deadline" else 30)

    assert isinstance(response, ChatResponse)
    assert (response.content, response.output_tokens) == ("Paris", None)
    if how in ("deadline", "too much"):
        upstream.wait_for_hang_up(upstream.requests[0])


def test_a_cancelled_call_is_cancelled_also_behind_the_end(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider]
) -> None:
    """Nobody wants the answer any more, so that it is not taken for one."""
    cancelled = Cancelled()
    pieces = Pieces(when=lambda _: cancelled.set("the client has gone"))
    upstream.always(Answer.streamed([SAID + DONE, upstream.closing], KINDS["sse"]))

    error = outcome_of(make_provider("kimi", upstream), pieces, cancelled=cancelled)

    assert isinstance(error, JobCancelled)
    assert error.partial is not None
    assert error.partial["content"] == "Paris"
