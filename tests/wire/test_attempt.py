"""One attempt on the wire, at the moments between two steps that threads only hit by chance."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
import requests

from chat.providers.attempt import Attempt, AttemptStopped
from chat.providers.connection import StoppableAdapter
from chat.providers.watchdog import StopReason, process_watchdog
from tests.upstream import Answer, ScriptedUpstream

ANSWER = {"done": True}


def new_attempt() -> Attempt:
    """An attempt with plenty of time."""
    later = time.monotonic() + 600
    return Attempt(process_watchdog(), connect_by=later, deadline=later, silence_s=600)


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """A session over connections that can be stopped."""
    with requests.Session() as session:
        session.mount("http://", StoppableAdapter())
        session.mount("https://", StoppableAdapter())
        yield session


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets, ours and the other side's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(30)
        yield ours, theirs


def post(session: requests.Session, server: ScriptedUpstream) -> requests.Response:
    """A request whose answer has begun; its body is still to be read."""
    return session.post(server.url, data=b"{}", stream=True, timeout=30)


def test_a_stop_after_the_body_was_read_does_not_reach_the_connection(
    any_upstream: ScriptedUpstream, session: requests.Session
) -> None:
    """By then the connection is back in the pool and may be another thread's."""
    any_upstream.always(Answer.json(ANSWER))
    with new_attempt() as attempt:
        response = post(session, any_upstream)
        assert response.json() == ANSWER
        attempt.cancel()

    with new_attempt():
        assert post(session, any_upstream).json() == ANSWER

    assert attempt.stopped is None
    assert len(any_upstream.connections) == 1


def test_a_stop_before_the_body_was_read_keeps_the_connection_out_of_the_pool(
    any_upstream: ScriptedUpstream, session: requests.Session
) -> None:
    """Even if the whole body had come by then and reads as if nothing were wrong."""
    any_upstream.always(Answer.json(ANSWER))
    with new_attempt() as attempt:
        response = post(session, any_upstream)
        attempt.cancel()
        assert response.json() == ANSWER

    with new_attempt():
        assert post(session, any_upstream).json() == ANSWER

    first, second = any_upstream.requests
    any_upstream.wait_for_hang_up(first)
    assert attempt.stopped is StopReason.CANCELLED
    assert first.connection is not second.connection


def test_the_time_to_connect_does_not_end_what_is_being_sent(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """Its alarm may be under way when the request goes out."""
    ours, theirs = pair
    with new_attempt() as attempt:
        attempt.attach(ours)
        attempt.begin_sending(ours)
        attempt.stop(StopReason.CONNECT)
        ours.sendall(b"x")

        assert theirs.recv(1) == b"x"
        assert attempt.stopped is None


def test_an_attempt_that_was_stopped_before_it_was_connected_sends_nothing(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """Neither connecting nor sending begins, so that nothing can be billed."""
    ours, _ = pair
    with new_attempt() as attempt:
        attempt.cancel()

        with pytest.raises(AttemptStopped):
            attempt.attach(ours)
        with pytest.raises(AttemptStopped):
            attempt.begin_sending(ours)

    assert not attempt.sent


def test_the_first_reason_stays(pair: tuple[socket.socket, socket.socket]) -> None:
    """A call that was cancelled is not late as well; and the other side sees it end."""
    ours, theirs = pair
    with new_attempt() as attempt:
        attempt.begin_sending(ours)
        attempt.cancel()
        attempt.stop(StopReason.DEADLINE)

        assert theirs.recv(1) == b""
    assert attempt.stopped is StopReason.CANCELLED


def test_a_connection_that_urllib3_closed_is_stopped_without_harm(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """Its wire stays open until the attempt is over, and only as long."""
    ours, theirs = pair
    with new_attempt() as attempt:
        attempt.begin_sending(ours)

        assert attempt.take_over(ours)
        attempt.cancel()
        assert theirs.recv(1) == b""
        assert ours.fileno() != -1

    assert ours.fileno() == -1


def test_a_wire_that_no_attempt_uses_is_not_taken_over(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """Its connection closes it: before the call, after it, and when it goes out elsewhere."""
    ours, theirs = pair
    with new_attempt() as attempt:
        assert not attempt.take_over(ours)
        attempt.begin_sending(theirs)
        assert not attempt.take_over(ours)
        attempt.begin_sending(ours)
    assert not attempt.take_over(ours)
