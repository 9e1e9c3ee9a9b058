"""What each provider makes of an upstream that misbehaves below or beside its protocol."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from chat.errors import (
    UpstreamAuth,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from chat.types import Billed, Cancelled, Deadline, Provider
from tests.upstream import Answer, End, ScriptedUpstream
from tests.wire.providers import PROVIDERS, call, load, plain_request

GOOD = {
    "ollama": "ollama/chat.ok.json",
    "ollama_cloud": "ollama_cloud/generate.ok.json",
    "openrouter": "openrouter/chat.ok.json",
    "opencode": "opencode/chat.ok.json",
    "kimi": "kimi/chat.ok.json",
}


def good_body(name: str) -> bytes:
    """A whole answer of ``name``."""
    return json.dumps(load(GOOD[name])["body"]).encode()


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(Answer.raw(End.RESET), UpstreamUnavailable, id="reset before headers"),
        pytest.param(Answer.raw(End.CLOSE), UpstreamUnavailable, id="closed before headers"),
        pytest.param(
            # http.client takes the end of the connection for the end of the headers.
            Answer.raw(b"HTTP/1.1 200 OK\r\ncontent-le", End.CLOSE),
            UpstreamProtocolError,
            id="closed within headers",
        ),
        pytest.param(
            Answer.cut(b'{"choices": []}', 5, by=End.RESET),
            UpstreamUnavailable,
            id="reset in mid-body",
        ),
        pytest.param(
            Answer.cut(b'{"choices": []}', 5), UpstreamUnavailable, id="closed in mid-body"
        ),
        pytest.param(
            Answer.raw(*Answer.chunked([b"{"], ended=False).steps, End.CLOSE),
            UpstreamUnavailable,
            id="closed between chunks",
        ),
        pytest.param(
            Answer.until_close([b'{"choices": [']), UpstreamProtocolError, id="half of a body"
        ),
        pytest.param(Answer.raw(b"SSH-2.0-x\r\n", End.CLOSE), UpstreamProtocolError, id="no HTTP"),
        pytest.param(
            Answer.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}"),
            UpstreamProtocolError,
            id="two lengths",
        ),
        pytest.param(
            Answer.raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
            UpstreamProtocolError,
            id="no chunk",
        ),
        pytest.param(
            Answer.of(b"{}", headers={"content-encoding": "gzip"}),
            UpstreamProtocolError,
            id="no gzip",
        ),
        pytest.param(
            Answer.raw(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n"),
            UpstreamProtocolError,
            id="too many headers",
        ),
        pytest.param(
            Answer.raw(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70000 + b"\r\n\r\n"),
            UpstreamProtocolError,
            id="a header without end",
        ),
        pytest.param(
            Answer.of(b'{"message": {"content": "\xff\xfe"}}'),
            UpstreamProtocolError,
            id="not UTF-8",
        ),
        pytest.param(Answer.of(b"[" * 200_000), UpstreamProtocolError, id="nested too deeply"),
        pytest.param(
            Answer.of(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
            UpstreamProtocolError,
            id="nested too deeply, closed",
        ),
        pytest.param(Answer.json([1, 2]), UpstreamProtocolError, id="a list"),
        pytest.param(Answer.json(None), UpstreamProtocolError, id="null"),
        pytest.param(Answer.of(b'{"done": NaN}'), UpstreamProtocolError, id="NaN"),
        pytest.param(
            Answer.of(b'{"n": ' + b"9" * 5000 + b"}"), UpstreamProtocolError, id="endless number"
        ),
        pytest.param(Answer.json({}), UpstreamProtocolError, id="an empty object"),
        pytest.param(Answer.of(b"", 204), UpstreamProtocolError, id="no content"),
        pytest.param(
            Answer.raw(b"HTTP/1.1 103 Early Hints\r\n\r\n", End.CLOSE),
            UpstreamUnavailable,
            id="only early hints",
        ),
    ],
)
def test_a_broken_answer_is_an_upstream_error(
    upstream: ScriptedUpstream,
    make_provider: Callable[..., Provider],
    name: str,
    answer: Answer,
    kind: type[UpstreamError],
) -> None:
    """It went out, so it may have been billed; and it is not sent again from here."""
    upstream.always(answer)

    with pytest.raises(UpstreamError) as caught:
        call(make_provider(name, upstream), plain_request(name))

    assert type(caught.value) is kind
    assert name in caught.value.message
    assert caught.value.billed is Billed.MAYBE
    assert caught.value.retryable is (kind is UpstreamUnavailable)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_slow_upstream_ends_at_the_deadline(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], name: str
) -> None:
    """The caller gets an UpstreamTimeout, and the upstream sees its connection closed."""
    upstream.always(Answer.raw(upstream.closing))

    with pytest.raises(UpstreamTimeout, match=name) as caught:
        call(make_provider(name, upstream), plain_request(name), within_s=0.5)

    [request] = upstream.wait_for(1)
    upstream.wait_for_hang_up(request)
    assert caught.value.retryable
    assert caught.value.billed is Billed.MAYBE


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_deadline_that_has_passed_sends_nothing(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], name: str
) -> None:
    """And so costs nothing."""
    with pytest.raises(UpstreamTimeout) as caught:
        make_provider(name, upstream).chat(
            plain_request(name), deadline=Deadline.after(-1), cancelled=Cancelled()
        )

    assert caught.value.billed is Billed.NO
    assert upstream.connections == []


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("endless", [False, True], ids=["huge", "endless"])
def test_an_answer_beyond_the_limit_is_given_up(
    upstream: ScriptedUpstream,
    make_provider: Callable[..., Provider],
    name: str,
    *,
    endless: bool,
) -> None:
    """No upstream can fill our memory; the connection is closed at once."""
    piece = b" " * 65536
    upstream.always(Answer.endless(piece) if endless else Answer.of(piece * 16))
    provider = make_provider(name, upstream, max_body_bytes=500_000)

    with pytest.raises(UpstreamProtocolError, match="larger than 500000 bytes"):
        call(provider, plain_request(name))

    upstream.wait_for_hang_up(upstream.requests[0])


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], name: str, status: int
) -> None:
    """It would carry key and prompt to another place; the base URL is wrong instead."""
    with ScriptedUpstream() as elsewhere:
        there = f"{elsewhere.url}/somewhere"
        upstream.always(Answer.of(b"moved", status, {"location": there}))

        with pytest.raises(UpstreamProtocolError, match="base URL is probably wrong") as caught:
            call(make_provider(name, upstream), plain_request(name))

        assert elsewhere.connections == []
    assert caught.value.upstream_status == status
    assert caught.value.billed is Billed.NO


def test_the_body_of_a_redirect_is_bounded_too(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider]
) -> None:
    """requests would read all of it, in case somebody wanted to follow."""
    location = {"location": "http://["}
    upstream.always(Answer.endless(b" " * 65536, 302, location))
    provider = make_provider("kimi", upstream, max_body_bytes=500_000)

    with pytest.raises(UpstreamProtocolError, match="larger than 500000 bytes"):
        call(provider, plain_request("kimi"), within_s=5)


def test_a_status_counts_even_if_its_body_is_cut_short(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider]
) -> None:
    """A refused key stays refused: trying again would not help."""
    upstream.always(Answer.cut(b'{"error": {"message": "Invalid key"}}', 12, status=401))

    with pytest.raises(UpstreamAuth):
        call(make_provider("openrouter", upstream), plain_request("openrouter"))


@pytest.mark.parametrize(
    ("file", "path", "value", "words"),
    [
        pytest.param("ollama/chat.ok.json", ("message",), "x", "message is a string", id="message"),
        pytest.param(
            "ollama/chat.ok.json",
            ("message", "content"),
            1,
            "message.content is a number",
            id="text",
        ),
        pytest.param("ollama/chat.ok.json", ("done",), 1, "done is a number", id="flag"),
        pytest.param(
            "ollama/chat.tool_call.json",
            ("message", "tool_calls", 0, "function"),
            [],
            r"tool_calls\[0\].function is a list instead of an object",
            id="function",
        ),
        pytest.param(
            "ollama/chat.tool_call.json",
            ("message", "tool_calls", 0, "function", "name"),
            "",
            r"tool_calls\[0\].function.name",
            id="name of a tool",
        ),
        pytest.param("kimi/chat.ok.json", ("choices",), {}, "choices is an object", id="choices"),
        pytest.param(
            "kimi/chat.ok.json", ("choices", 0), "x", r"choices\[0\] is a string", id="choice"
        ),
        pytest.param(
            "kimi/chat.ok.json",
            ("choices", 0, "message", "content"),
            ["x"],
            r"choices\[0\].message.content is a list",
            id="content",
        ),
        pytest.param(
            "kimi/chat.tool_call.json",
            ("choices", 0, "message", "tool_calls"),
            "x",
            "tool_calls is a string",
            id="tool calls",
        ),
    ],
)
def test_a_field_of_a_wrong_type_is_named(
    upstream: ScriptedUpstream,
    make_provider: Callable[..., Provider],
    file: str,
    path: tuple[str | int, ...],
    value: object,
    words: str,
) -> None:
    """The message says where in the answer, what it found and what belongs there."""
    name = file.partition("/")[0]
    body = load(file)["body"]
    part = body
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    upstream.always(Answer.json(body))

    with pytest.raises(UpstreamProtocolError, match=words) as caught:
        call(make_provider(name, upstream), plain_request(name))

    assert caught.value.upstream_status == 200


@pytest.mark.parametrize(
    ("file", "path", "value", "field"),
    [
        ("ollama/chat.ok.json", ("eval_count",), "9", "output_tokens"),
        ("kimi/chat.ok.json", ("usage", "prompt_tokens"), -1, "input_tokens"),
        ("opencode/chat.ok.json", ("cost",), "much", "cost_usd"),
        ("openrouter/chat.ok.json", ("usage", "cost"), [], "cost_usd"),
    ],
)
def test_an_answer_with_odd_figures_is_an_answer(
    upstream: ScriptedUpstream,
    make_provider: Callable[..., Provider],
    file: str,
    path: tuple[str, ...],
    value: object,
    field: str,
) -> None:
    """It was paid for; the figure is not known."""
    name = file.partition("/")[0]
    body = load(file)["body"]
    part = body
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    upstream.always(Answer.json(body))
    response = call(make_provider(name, upstream), plain_request(name))

    assert response.content
    assert getattr(response, field) is None


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_good_answer_may_come_in_any_framing(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider], name: str
) -> None:
    """With a length, in chunks cut anywhere, or until the connection closes."""
    body = good_body(name)
    upstream.then(
        Answer.of(body),
        Answer.chunked([body[:7], body[7:20], body[20:]]),
        Answer.until_close([body[:9], body[9:]]),
    )
    provider = make_provider(name, upstream)

    answers = [call(provider, plain_request(name)).content for _ in range(3)]

    assert answers == ["Paris"] * 3
