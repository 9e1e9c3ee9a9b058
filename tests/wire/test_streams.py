"""What each provider makes of an answer that comes piece by piece: every example stream."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from chat.errors import (
    ChatError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from chat.types import (
    Billed,
    ChatResponse,
    Delta,
    DeltaKind,
    FinishReason,
    Provider,
)
from tests.upstream import Answer, ScriptedUpstream
from tests.wire.providers import (
    MODELS,
    PROVIDERS,
    SECRETS,
    answer_files,
    call,
    error_files,
    load,
    plain_request,
    stream_api,
    stream_files,
    stream_of,
)
from tests.wire.streams import Pieces, kind_of, outcome_of, records_of
from tests.wire.test_provider_answers import (
    CENT,
    KIMI_CALL,
    NATIVE_CALL,
    OPENAI_CALL,
    TOOLS,
    said,
    the_api_for,
)

FRAMINGS = ("chunks", "length", "close")

#: Every example stream that ends as it should, and what a caller gets of it.
ANSWERS = {
    "kimi/stream.ok.sse": said("Paris", (14, 9), "One word: Paris."),
    "kimi/stream.tool_call.sse": said(
        "", (80, 30), "Need the tool.", finish=TOOLS, calls=(KIMI_CALL,)
    ),
    "kimi/stream.usage_in_choice.sse": said("Paris", (14, 9), "One word: Paris."),
    "ollama/stream.last_chunk_has_text.ndjson": said("Paris", (26, 2)),
    "ollama/stream.ok.ndjson": said("Paris.", (26, 3)),
    "ollama/stream.thinking.ndjson": said("Paris", (26, 6), "One word needed."),
    "ollama/stream.tool_call.ndjson": said("", (140, 22), finish=TOOLS, calls=(NATIVE_CALL,)),
    "ollama_cloud/stream.generate.ndjson": said("Paris", (24, 3)),
    "ollama_cloud/stream.generate_thinking.ndjson": said("Paris", (24, 6), "One word."),
    "opencode/stream.cost_minimal.sse": said("Paris", (14, 3), cost=0.0),
    "opencode/stream.ok.sse": said("Paris", (14, 3), cost=CENT),
    "opencode/stream.reasoning.sse": said("Paris", (14, 3), "One word.", cost=CENT),
    "openrouter/stream.ok.sse": said("Paris", (14, 3), cost=2e-05),
    "openrouter/stream.reasoning.sse": said("Paris", (14, 12), "One word: Paris.", cost=2e-05),
    "openrouter/stream.tool_call.sse": said(
        "", (14, 3), finish=TOOLS, calls=(OPENAI_CALL,), cost=2e-05
    ),
    "openrouter/stream.usage_with_choice.sse": said("Paris", (14, 3), cost=2e-05),
}

#: Every example stream that does not: class, whether a retry may help, and words of the message.
FAILURES = {
    "ollama/stream.error_midstream.ndjson": (
        UpstreamUnavailable,
        "answered 500.*an error was encountered while running the model",
    ),
    "ollama/stream.truncated.ndjson": (UpstreamUnavailable, "cut the connection"),
    "ollama_cloud/stream.generate_error_midstream.ndjson": (
        UpstreamUnavailable,
        "answered 500.*an error was encountered while running the model",
    ),
    "openrouter/stream.error_midstream.sse": (UpstreamRateLimited, "answered 429.*Rate limit"),
    "openrouter/stream.error_string_code.sse": (
        UpstreamUnavailable,
        "answered 500.*Provider disconnected unexpectedly",
    ),
    "openrouter/stream.truncated.sse": (UpstreamUnavailable, "cut the connection"),
}

#: The pieces of some of them: each as it came, the first of a tool call with whose it is.
PIECES = {
    "ollama/stream.ok.ndjson": [Delta(DeltaKind.CONTENT, text) for text in ("Pa", "ris", ".")],
    "ollama/stream.thinking.ndjson": [
        Delta(DeltaKind.REASONING, "One word"),
        Delta(DeltaKind.REASONING, " needed."),
        Delta(DeltaKind.CONTENT, "Paris"),
    ],
    "ollama/stream.tool_call.ndjson": [
        Delta(DeltaKind.TOOL_CALL, '{"city": "Paris"}', 0, "call_a1b2c3d4", "get_weather")
    ],
    "openrouter/stream.tool_call.sse": [
        Delta(DeltaKind.TOOL_CALL, "", 0, "call_abc123", "get_weather"),
        Delta(DeltaKind.TOOL_CALL, '{"city":'),
        Delta(DeltaKind.TOOL_CALL, '"Paris"}'),
    ],
}


def name_of(file: str) -> str:
    """The provider whose answer an example is."""
    return file.partition("/")[0]


def filled_in(name: str, answer: ChatResponse) -> ChatResponse:
    """``answer`` as the registry passes it on."""
    return replace(answer, provider=name, upstream_model=MODELS[name])


def each_byte(body: bytes) -> list[bytes]:
    """A body in pieces of one byte."""
    return [body[at : at + 1] for at in range(len(body))]


def whole(body: bytes) -> list[bytes]:
    """A body in one piece."""
    return [body]


CUTS = {"whole": whole, "by record": records_of, "by byte": each_byte}


def test_every_example_stream_is_in_one_of_the_tables() -> None:
    """A payload that is added without an expectation fails here."""
    assert sorted([*ANSWERS, *FAILURES]) == sorted(stream_files())


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("file", ANSWERS)
def test_a_stream_is_read(
    upstream: ScriptedUpstream,
    make_provider: Callable[..., Provider],
    file: str,
    cut: str,
    framing: str,
) -> None:
    """However it is framed and cut: the answer is complete, and the pieces are all of it."""
    pieces = Pieces()
    upstream.always(Answer.streamed(CUTS[cut](stream_of(file)), kind_of(file), framing=framing))
    provider = make_provider(name_of(file), upstream, api=stream_api(file))
    response = outcome_of(provider, pieces)

    assert response == filled_in(name_of(file), ANSWERS[file])
    assert pieces.together.rest_of(response.to_wire()) == []
    assert pieces.taken == PIECES.get(file, pieces.taken)
    assert upstream.requests[0].json()["stream"] is True


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("file", FAILURES)
def test_a_stream_that_breaks_off_is_an_error_with_what_had_come(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], file: str, cut: str
) -> None:
    """The class is that of the same error without any text before it, but for the bill."""
    kind, words = FAILURES[file]
    pieces = Pieces()
    upstream.always(Answer.streamed(CUTS[cut](stream_of(file)), kind_of(file)))
    provider = make_provider(name_of(file), upstream, api=stream_api(file))

    error = outcome_of(provider, pieces)

    assert isinstance(error, UpstreamError)
    assert type(error) is kind
    with pytest.raises(kind, match=words):
        raise error
    assert error.retryable
    assert error.billed is Billed.MAYBE
    assert error.partial == {
        **pieces.together.to_wire(),
        "output_tokens": len(pieces.taken),
    }
    assert error.partial["content"].startswith("Pa")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("file", ["ollama/stream.ok.ndjson", "opencode/stream.reasoning.sse"])
def test_each_piece_is_handed_on_before_the_next_one_is_there(
    any_upstream: ScriptedUpstream,
    make_provider: Callable[..., Provider],
    file: str,
    framing: str,
) -> None:
    """On a new connection and on one that has served before: the upstream waits for the caller."""
    provider = make_provider(name_of(file), any_upstream)
    for _ in range(2):
        seen = [threading.Event() for _ in records_of(stream_of(file))]
        pieces = Pieces(when=lambda count, seen=seen: seen[count - 1].set())  # type: ignore[misc]
        steps = list(waiting(stream_of(file), seen))
        any_upstream.then(Answer.streamed(steps, kind_of(file), framing=framing))

        assert outcome_of(provider, pieces) == filled_in(name_of(file), ANSWERS[file])


def waiting(body: bytes, seen: list[threading.Event]) -> Iterator[bytes | threading.Event]:
    """The records of ``body``, with a wait behind each that has a piece in it, until it is seen."""
    events = iter(seen)
    for record in records_of(body):
        yield record
        if re.search(rb'content":"[^"]', record):
            yield next(events)


@pytest.mark.parametrize("file", [file for file in answer_files() if "not_done" not in file])
def test_an_upstream_that_answers_at_once_is_read_like_that(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], file: str
) -> None:
    """The outcome is what it would be unasked for pieces, and all of it is handed on."""
    pieces = Pieces()
    upstream.always(Answer.payload(load(file)))
    provider = make_provider(name_of(file), upstream, api=the_api_for(file))

    outcome, at_once = outcome_of(provider, pieces), outcome_of(provider, None)

    if isinstance(at_once, ChatResponse):
        assert outcome == at_once
        assert pieces.together.rest_of(at_once.to_wire()) == []
    else:
        assert isinstance(outcome, ChatError)
        assert outcome.to_wire() == at_once.to_wire()
        assert pieces.taken == []


@pytest.mark.parametrize("file", error_files())
def test_an_error_answer_is_the_same_to_a_call_for_pieces(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], file: str
) -> None:
    """It is read whole, with every hint in it."""
    upstream.always(Answer.payload(load(file)))
    provider = make_provider(name_of(file), upstream)

    errors = [outcome_of(provider, pieces) for pieces in (Pieces(), None)]

    assert all(isinstance(error, UpstreamError) for error in errors)
    assert errors[0].to_wire() == errors[1].to_wire()


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"", "a body that is empty", id="empty"),
        pytest.param(b"\r\n \n", "a body that is empty", id="white space"),
        pytest.param(b"<html>\n<p>Sign in</p>\n", "not a JSON object", id="a page"),
        pytest.param(b"[1,\n2]\n", "not a JSON object", id="a list"),
        pytest.param(b'{"message":\n', "not a JSON object", id="half of an object"),
    ],
)
def test_a_200_that_is_neither_is_a_protocol_error(
    upstream: ScriptedUpstream,
    make_provider: Callable[..., Provider],
    name: str,
    body: bytes,
    words: str,
) -> None:
    """As it is for a call that wants all at once."""
    upstream.always(Answer.streamed([body], "text/plain"))

    with pytest.raises(UpstreamProtocolError, match=words):
        call(make_provider(name, upstream), plain_request(name), deltas=Pieces())


@pytest.mark.parametrize("name", PROVIDERS)
def test_an_object_over_several_lines_is_an_answer_at_once(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], name: str
) -> None:
    """Whatever the content type says, and with white space in front, as some proxies send it."""
    files = {"ollama_cloud": "ollama_cloud/generate.ok.json"}
    answer = load(files.get(name, f"{name}/chat.ok.json"))["body"]
    body = f"\n \n{json.dumps(answer, indent=1)}".replace("\n", "\r\n").encode()
    upstream.always(Answer.streamed([body[:7], body[7:]], "text/event-stream"))
    pieces = Pieces()

    response = call(make_provider(name, upstream), plain_request(name), deltas=pieces)

    assert pieces.together.content == response.content == "Paris"


@pytest.mark.parametrize("name", [name for name in PROVIDERS if SECRETS[name] is not None])
def test_a_key_that_the_upstream_repeats_is_masked_in_pieces_too(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], name: str
) -> None:
    """Also where it is cut in the middle: what may be its beginning waits for what follows."""
    secret = SECRETS[name]
    assert secret is not None
    key = secret.reveal()
    file = (
        "ollama_cloud/stream.generate.ndjson" if name == "ollama_cloud" else f"{name}/stream.ok.sse"
    )
    body = stream_of(file)
    told, rest = f"you sent {key[:5]}".encode(), f"{key[5:]} to {key}".encode()
    if name == "kimi":
        body = body.replace(b'"content":"Paris"', b'"content":"%b"' % told).replace(
            b'"delta":{}', b'"delta":{"content":"%b"}' % rest
        )
    else:
        body = body.replace(b'"Pa"', b'"%b"' % told).replace(b'"ris"', b'"%b"' % rest)
    upstream.always(Answer.streamed([body], kind_of(file)))
    pieces = Pieces()

    response = call(make_provider(name, upstream), plain_request(name), deltas=pieces)

    assert response.content == pieces.together.content == "you sent *** to ***"
    assert not any(key[:5] in piece.text for piece in pieces.taken)


def test_half_a_surrogate_pair_is_the_same_in_a_piece(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider]
) -> None:
    """A question mark, and nothing that no UTF-8 could carry, also where the halves are apart."""
    body = stream_of("ollama/stream.ok.ndjson").replace(b'"Pa"', rb'"\ud83d"')
    upstream.always(Answer.streamed([body.replace(b'"ris"', rb'"\ude00"')], "text/plain"))
    pieces = Pieces()

    response = call(make_provider("ollama", upstream), plain_request("ollama"), deltas=pieces)

    assert response.content == pieces.together.content == "??."


def test_text_that_should_have_been_json_is_an_error_with_the_text(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider]
) -> None:
    """It had gone on before anybody could know; the upstream's own count of tokens is told."""
    body = stream_of("ollama/stream.ok.ndjson").replace(b'"eval_count":3', b'"eval_count":7')
    upstream.always(Answer.streamed([body], "application/x-ndjson"))
    request = replace(plain_request("ollama"), format="json")

    with pytest.raises(UpstreamProtocolError, match=r"set format.*not JSON") as caught:
        call(make_provider("ollama", upstream), request, deltas=Pieces())

    assert caught.value.partial == {"output_tokens": 7}
    assert caught.value.billed is Billed.YES


def test_a_refusal_is_the_text_of_an_answer_without_any(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider]
) -> None:
    """Whether there is another text is only known at the end."""
    body = stream_of("openrouter/stream.ok.sse")
    body = body.replace(b'"content":"Pa"', b'"refusal":"No"').replace(
        b'"content":"ris"', b'"refusal":"."'
    )
    upstream.always(Answer.streamed([body], "text/event-stream"))
    pieces = Pieces()

    response = call(
        make_provider("openrouter", upstream), plain_request("openrouter"), deltas=pieces
    )

    assert response.content == "No."
    assert response.finish_reason is FinishReason.CONTENT_FILTER
    assert pieces.taken == [Delta(DeltaKind.CONTENT, "No.")]
