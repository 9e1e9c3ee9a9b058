"""A front end that is told to end answers what it has been asked, and waits for nothing else."""

from __future__ import annotations

import http.client
import json
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import pytest

from bench.upstream import Upstream
from tests.stack import Stack
from tests.waiting import eventually


@pytest.fixture(scope="module")
def upstream():
    upstream = Upstream().start()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def running(upstream, tmp_path_factory):
    stack = Stack(tmp_path_factory.mktemp("drain"), {"ollama": upstream.url})
    yield stack.start()
    upstream.release()
    stack.stop()


@pytest.fixture
def stack(running, upstream):
    yield running
    upstream.release()
    upstream.calls.clear()
    running.api.stop()
    running.api.start()
    eventually(running.ready)


def refuses(stack):
    """Whether nobody listens any more."""
    try:
        socket.create_connection(("127.0.0.1", stack.port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def somebody_watches(stack):
    """Whether a front end is to be told the end of a job."""
    client = stack.redis.client
    return any(client.hexists(key, "watch") for key in client.keys("job:*"))


def test_connections_on_which_nothing_happens_are_closed(stack):
    """Clients keep them for their next request, for over a minute; a restart does not wait."""
    with ExitStack() as kept:
        idle = []
        for _ in range(20):
            connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60)
            kept.callback(connection.close)
            connection.request("GET", "/health")
            assert connection.getresponse().read()
            idle.append(connection.sock)
        stack.api.send(signal.SIGTERM)
        code = stack.api.wait(30)
        ends = [sock.recv(1) for sock in idle]

    assert code == 0
    assert ends == [b""] * 20


def test_callers_who_wait_get_their_answers(stack, upstream):
    """Meanwhile nobody new is let in."""
    upstream.hold()
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(stack.chat, f"call {number}") for number in range(8)]
        eventually(lambda: upstream.in_flight == 8)
        stack.api.send(signal.SIGTERM)
        eventually(lambda: refuses(stack), what="the port is closed")
        alive = stack.api.alive
        upstream.release()
        answers = [call.result() for call in calls]
    code = stack.api.wait(30)

    assert alive
    assert [answer.json()["content"] for answer in answers] == [f"echo: call {n}" for n in range(8)]
    assert {answer.headers["Connection"] for answer in answers} == {"close"}
    assert code == 0


def test_a_request_on_a_connection_that_was_kept_is_served(stack):
    """For a moment: its client could not know, and is told by the answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60)) as connection:
        connection.request("GET", "/health")
        before = connection.getresponse()
        before.read()
        stack.api.send(signal.SIGTERM)
        eventually(lambda: refuses(stack), what="the port is closed")
        connection.request("GET", "/health")
        after = connection.getresponse()
        after.read()

    assert (before.status, before.getheader("Connection")) == (200, "keep-alive")
    assert (after.status, after.getheader("Connection")) == (200, "close")
    assert stack.api.wait(30) == 0


def test_a_request_that_is_half_there_is_still_served(stack):
    """Its sender has no way to know that it would have to send it again."""
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "slow line"}]})
    half = len(body) // 2
    with closing(http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60)) as connection:
        connection.putrequest("POST", "/v1/chat")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:half].encode())
        # Another request, so that the first one's beginning has certainly been read.
        stack.http.get(f"{stack.url}/health", timeout=30)
        stack.api.send(signal.SIGTERM)
        eventually(lambda: refuses(stack), what="the port is closed")
        connection.send(body[half:].encode())
        reply = connection.getresponse()
        answer = json.loads(reply.read())

    assert (reply.status, answer["content"]) == (200, "echo: slow line")
    assert stack.api.wait(30) == 0


@pytest.mark.parametrize(
    ("method", "wait", "status"),
    [("GET", {}, 200), ("POST", {"Prefer": "wait=60"}, 202)],
    ids=["long poll", "Prefer: wait"],
)
def test_who_does_not_count_on_the_end_is_answered_at_once(stack, upstream, method, wait, status):
    """The job goes on, and is asked for again elsewhere."""
    upstream.hold()
    body: Any = {"model": "echo", "messages": [{"role": "user", "content": "polled"}]}
    url = f"{stack.url}/v1/chat"
    if method == "GET":
        url, body = f"{stack.url}/v1/jobs/{stack.submit('polled')}?wait=60", None
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(stack.http.request, method, url, json=body, headers=wait, timeout=90)
        eventually(lambda: upstream.in_flight == 1)
        eventually(lambda: somebody_watches(stack), what="somebody watches")
        stack.api.send(signal.SIGTERM)
        answer = call.result(30)
    ended = stack.api.wait(30)
    upstream.release()

    assert (answer.status_code, answer.json()["state"]) == (status, "calling")
    assert answer.headers["Connection"] == "close"
    assert ended == 0
