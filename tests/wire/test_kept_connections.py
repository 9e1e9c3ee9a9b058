"""A call on a connection that has served before takes a shorter way, and ends as on a new one."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from urllib3.connection import HTTPConnection

from chat.errors import ChatError, JobCancelled, UpstreamProtocolError, UpstreamTimeout
from chat.providers.bounded import WholeAnswer
from chat.providers.connection import StoppableAdapter, _head
from chat.providers.upstream import Upstream
from chat.types import JSON, Billed, Cancelled, Deadline
from tests.upstream import Answer, End, Request, ScriptedUpstream
from tests.waiting import eventually
from tests.wire.hostile import BELOW, Case
from tests.wire.hostile.case import LATE, of_length

ANSWER = {"done": True}
_GOOD = json.dumps(ANSWER).encode()

#: A call that waits for its deadline does so on any connection, and an answer without end takes
#: as long as one. Of a list of lengths urllib3 leaves the socket to Python's garbage collector.
_LEFT_OUT = ("100 without end", "103 without end", "a list of lengths")
_HOSTILE = [case for case in BELOW if LATE not in case.ends and case.id not in _LEFT_OUT]

_ORDINARY = {
    "a length": Answer.json(ANSWER, headers={"X-Generation-ID": "1", "x-generation-id": "2"}),
    "an error": Answer.json({"error": "busy"}, 429, {"retry-after": "7"}),
    "no body": Answer.of(b"", 204),
    "an empty body": Answer.of(b""),
    "no JSON": Answer.of(b"hello"),
    "chunks": Answer.chunked([_GOOD[:5], _GOOD[5:]]),
    "until it closes": Answer.until_close([_GOOD]),
    "closes after a length": Answer.raw(of_length(_GOOD, b"connection: close\r\n"), End.CLOSE),
    "compressed": Answer.of(gzip.compress(_GOOD), headers={"content-encoding": "gzip"}),
    "more than one read": Answer.json({**ANSWER, "x": "y" * 300_000}),
    "cut": Answer.cut(_GOOD, 5),
    "an error that is cut": Answer.cut(b"overloaded", 5, status=503),
    "reset": Answer.raw(End.RESET),
    "closed": Answer.raw(End.CLOSE),
}


def post(upstream: Upstream, body: JSON | None = None, **options: Any) -> object:
    """What a call brings, or how it fails."""
    given: dict[str, Any] = {"deadline": Deadline.after(30), "cancelled": Cancelled(), **options}
    try:
        reply = upstream.post("/x?y=%2F", body or {"q": "ä"}, headers={"X-Title": "t"}, **given)
    except ChatError as error:
        return type(error), error.billed, error.to_wire()
    return reply.status, dict(reply.headers), reply.fields.values


def on_both(
    server: ScriptedUpstream, make_upstream: Callable[..., Upstream], answer: Answer
) -> tuple[object, object]:
    """How a call ends on a new connection, and on one that has served before."""
    server.then(answer)
    on_new = post(make_upstream(server.url))
    client = make_upstream(server.url)
    server.then(Answer.json(ANSWER))
    post(client)
    server.then(answer)
    on_kept = post(client)
    if End.CLOSE in answer.steps:
        eventually(server.requests[-1].connection.ended.is_set)
    # Nothing of it is left for the next call.
    server.then(Answer.json(ANSWER))
    assert post(client) == (200, {**_headers_of(ANSWER)}, ANSWER)
    assert server.requests[-2].connection is server.requests[-3].connection
    return on_new, on_kept


def _headers_of(body: object) -> dict[str, str]:
    length = len(json.dumps(body))
    return {"content-type": "application/json", "content-length": str(length)}


@pytest.mark.parametrize("kind", _ORDINARY)
def test_an_answer_is_the_same_on_a_connection_that_served_before(
    any_upstream: ScriptedUpstream, make_upstream: Callable[..., Upstream], kind: str
) -> None:
    """Whichever way it is read: status, headers, fields, and every word of an error."""
    on_new, on_kept = on_both(any_upstream, make_upstream, _ORDINARY[kind])

    assert on_kept == on_new


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in _HOSTILE])
def test_a_broken_answer_is_the_same_on_a_connection_that_served_before(
    upstream: ScriptedUpstream, make_upstream: Callable[..., Upstream], case: Case
) -> None:
    """It is refused for the same reason, and the next call gets an answer of its own."""
    on_new, on_kept = on_both(upstream, make_upstream, case.answer(_GOOD, "hello"))

    assert on_kept == on_new


def test_a_request_is_the_same_on_a_connection_that_served_before(
    any_upstream: ScriptedUpstream, make_upstream: Callable[..., Upstream]
) -> None:
    """Its line, its fields in their order, and its body, short or long."""
    any_upstream.always(Answer.json(ANSWER))
    client = make_upstream(any_upstream.url)
    bodies: list[JSON] = [{"q": "ä"}, {"q": "x" * 3_000_000}, {"q": "ä"}]
    for body in bodies:
        post(client, body)
    post(make_upstream(any_upstream.url))

    first, long, again, on_new = any_upstream.requests
    assert first.connection is long.connection is again.connection is not on_new.connection
    assert [told(request) for request in (first, again)] == [told(on_new)] * 2
    assert long.json() == bodies[1]
    assert {**long.headers, "content-length": "?"} == {**first.headers, "content-length": "?"}


def told(request: Request) -> tuple[object, ...]:
    """All that a request says."""
    return request.method, request.path, list(request.headers.items()), request.body


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("http://models.test", b"models.test"),
        ("http://models.test:8080", b"models.test:8080"),
        ("https://models.test", b"models.test"),
        ("https://models.test:80", b"models.test:80"),
        ("http://[::1]", b"[::1]"),
        ("https://[::1]:8443", b"[::1]:8443"),
    ],
)
def test_the_host_of_a_request_is_named_as_on_a_new_connection(url: str, named: bytes) -> None:
    """With the port, unless it is the scheme's own."""
    pool: Any = StoppableAdapter().poolmanager.connection_from_url(url)
    conn = pool._new_conn()
    written: list[bytes] = []
    # As on a new connection: urllib3 writes, and the connection collects.
    conn._unsent = written
    HTTPConnection.request(conn, "POST", "/x", headers={"A": "b"})
    conn._unsent = None
    head = _head(conn.default_port, conn._dns_host, conn.port, "/x", ("A", "b"))

    assert b"\r\nHost: %b\r\n" % named in head
    assert sorted(head.split(b"\r\n")) == sorted(
        b"".join(written).replace(b"Content-Length: 0\r\n", b"").split(b"\r\n")[:-1]
    )


def test_a_field_that_would_be_two_is_refused_on_a_connection_that_served_before(
    upstream: ScriptedUpstream, make_upstream: Callable[..., Upstream]
) -> None:
    """urllib3 looks at a value each time it has not seen it."""
    upstream.always(Answer.json(ANSWER))
    client = make_upstream(upstream.url)
    post(client)

    for _ in range(2):
        with pytest.raises(ValueError, match="Invalid header value"):
            client.post(
                "/x",
                {},
                headers={"X-Title": "a\r\nX: b"},
                deadline=Deadline.after(30),
                cancelled=Cancelled(),
            )
    assert post(client) == (200, _headers_of(ANSWER), ANSWER)
    assert len(upstream.requests) == 2


def test_a_usual_answer_is_read_the_short_way(
    any_upstream: ScriptedUpstream,
    make_upstream: Callable[..., Upstream],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without this the tests above would compare the long way with itself."""
    found: list[bool] = []
    whole = WholeAnswer.of

    def spied(data: bytes) -> WholeAnswer | None:
        answer = whole(data)
        found.append(answer is not None)
        return answer

    monkeypatch.setattr(WholeAnswer, "of", spied)
    client = make_upstream(any_upstream.url)
    any_upstream.then(Answer.json(ANSWER), Answer.json(ANSWER), Answer.chunked([_GOOD]))
    any_upstream.always(Answer.json({"error": "busy"}, 429))
    for _ in range(4):
        post(client)

    assert found == [True, False, True]


def test_an_answer_over_the_limit_is_refused_on_a_connection_that_served_before(
    upstream: ScriptedUpstream, make_upstream: Callable[..., Upstream]
) -> None:
    """However it is read."""
    client = make_upstream(upstream.url, max_body_bytes=len(_GOOD))
    upstream.then(Answer.json(ANSWER), Answer.of(_GOOD + b" "), Answer.json(ANSWER))

    assert [post(client)[0] for _ in range(3)] == [200, UpstreamProtocolError, 200]  # type: ignore[index]


@pytest.mark.parametrize("after", ["the request", "half the answer"])
def test_a_call_on_a_connection_that_served_before_can_be_stopped(
    any_upstream: ScriptedUpstream, make_upstream: Callable[..., Upstream], after: str
) -> None:
    """By its deadline and by whoever cancels it; the upstream sees it end."""
    client = make_upstream(any_upstream.url)
    half = (of_length(_GOOD)[:-5],) if after == "half the answer" else ()
    stalled = Answer.raw(*half, any_upstream.closing)
    any_upstream.then(Answer.json(ANSWER), stalled, Answer.json(ANSWER), stalled)
    post(client)

    late = post(client, deadline=Deadline.after(0.3))
    any_upstream.wait_for_hang_up(any_upstream.requests[1])
    post(client)
    cancelled = Cancelled()
    stopper = threading.Timer(0.3, cancelled.set, ["told to"])
    stopper.start()
    stopped = post(client, cancelled=cancelled)
    stopper.join()
    any_upstream.wait_for_hang_up(any_upstream.requests[3])

    first, second, third, fourth = (request.connection for request in any_upstream.requests)
    assert first is second is not third
    assert third is fourth
    for outcome, kind in ((late, UpstreamTimeout), (stopped, JobCancelled)):
        assert outcome[0] is kind  # type: ignore[index]
        assert outcome[1] is Billed.MAYBE  # type: ignore[index]


def test_a_connection_that_the_upstream_spoke_on_unasked_is_not_used_again(
    upstream: ScriptedUpstream, make_upstream: Callable[..., Upstream]
) -> None:
    """What it said would be the answer to the next call."""
    smuggled = of_length(json.dumps({"done": "smuggled"}).encode())
    said = threading.Event()
    upstream.then(Answer.json(ANSWER), Answer.raw(of_length(_GOOD), said, smuggled))
    upstream.always(Answer.json(ANSWER))
    client = make_upstream(upstream.url)
    post(client)
    post(client)
    said.set()
    pool: Any = next(iter(client._endpoint._adapter._ways.values()))[0].pool
    eventually(lambda: not any(conn.is_connected for conn in pool.queue if conn))

    assert post(client) == (200, _headers_of(ANSWER), ANSWER)
    assert len(upstream.connections) == 2
