"""Connections on which nothing happens, or an answer breaks off; also at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gunicorn.http.parser import RequestParser

from api.drain import DrainingWorker
from api.server import FrontEndServer
from chat.settings import ChatdConfig


class Connection:
    """One that waits for a request, which has come with ``came`` and is answered at ``done``."""

    def __init__(self) -> None:
        self.worker: Any = SimpleNamespace(
            alive=True, cfg=SimpleNamespace(keepalive=3600), idle=set()
        )
        self.came, self.done = Event(), Event()
        self._greenlet = gevent.spawn(self._run)
        gevent.idle()

    def _run(self) -> str:
        with DrainingWorker.timeout_ctx(self.worker):
            self.came.wait()
        if not self.came.is_set():
            return "ended"
        self.done.wait()
        return "answered"

    def end(self) -> None:
        """As the worker does when nothing has come for too long."""
        for idle in list(self.worker.idle):
            idle.end()
        gevent.idle()

    def result(self) -> str:
        """What has become of it."""
        found: str = self._greenlet.get(timeout=30)
        return found


@pytest.fixture
def connection() -> Connection:
    """One that waits."""
    return Connection()


def test_one_that_waits_is_ended(connection: Connection) -> None:
    """At once, however long it might be kept."""
    connection.end()

    assert connection.result() == "ended"
    assert connection.worker.idle == set()


def test_a_request_that_comes_in_the_same_moment_is_answered(connection: Connection) -> None:
    """It was there before the end had its turn."""
    connection.came.set()
    connection.end()
    connection.done.set()

    assert connection.result() == "answered"


def test_one_that_has_waited_too_long_is_ended(connection: Connection) -> None:
    """By the look that the worker takes each second; the others wait on."""
    other = Connection()
    other.worker.idle |= connection.worker.idle
    (mine,) = connection.worker.idle
    (theirs,) = other.worker.idle - {mine}
    DrainingWorker.end_idle(other.worker)
    gevent.idle()
    assert other.worker.idle == {mine, theirs}

    mine.until = time.monotonic()
    DrainingWorker.end_idle(other.worker)
    gevent.idle()

    assert connection.result() == "ended"
    assert theirs in other.worker.idle
    other.end()
    assert other.result() == "ended"


def test_one_that_comes_during_the_stop_waits_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not as long as connections are kept else."""
    monkeypatch.setattr("api.drain.time.monotonic", lambda: 1000.0)
    worker: Any = SimpleNamespace(alive=True, cfg=SimpleNamespace(keepalive=3600))
    kept = DrainingWorker.timeout_ctx(worker).until
    worker.alive = False

    assert (kept, DrainingWorker.timeout_ctx(worker).until) == (4600, 1002)


class TestAnswer:
    """What becomes of a connection whose request the application answers."""

    def answer(self, pieces: Any, *, alive: bool = True) -> tuple[bool, bytes]:
        """Whether it lives on, and what was sent on it."""
        sent: list[bytes] = []

        def application(_: object, start_response: Any) -> Any:
            start_response("200 OK", [("Content-Length", "6")])
            return pieces

        made: Any = FrontEndServer(ChatdConfig())
        worker: Any = SimpleNamespace(
            alive=alive, cfg=made.cfg, log=logging.getLogger("test"), wsgi=application
        )
        request = RequestParser(
            made.cfg, iter([b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"]), ("127.0.0.1", 5)
        )
        connection = SimpleNamespace(sendall=sent.append)
        try:
            lives = DrainingWorker._answer(
                worker, ("127.0.0.1", 80), next(request), connection, ("127.0.0.1", 5)
            )
        finally:
            self.sent = b"".join(sent)
        return lives, self.sent

    def test_it_lives_on(self) -> None:
        """For the next request."""
        lives, sent = self.answer([b"answer"])

        assert lives
        assert sent.endswith(b"\r\n\r\nanswer")

    def test_the_last_one_says_so(self) -> None:
        """Once the worker is told to end."""
        lives, sent = self.answer([b"answer"], alive=False)

        assert not lives
        assert b"Connection: close\r\n" in sent

    def test_it_ends_with_an_answer_that_breaks_off(self, caplog: pytest.LogCaptureFixture) -> None:
        """What came next would be taken for the rest of it."""

        def pieces() -> Iterator[bytes]:
            yield b"ans"
            raise ValueError

        lives, sent = self.answer(pieces())

        assert not lives
        assert sent.endswith(b"\r\n\r\nans")
        assert "an answer broke off" in caplog.text

    def test_an_answer_that_fails_before_it_is_sent_is_another(self) -> None:
        """gunicorn's, of status 500, so that no head may have left."""

        def pieces() -> Iterator[bytes]:
            raise ZeroDivisionError
            yield b""

        with pytest.raises(ZeroDivisionError):
            self.answer(pieces())
        assert self.sent == b""

    def test_it_ends_when_its_greenlet_is_told_to(self) -> None:
        """At the end of the worker's patience."""

        def pieces() -> Iterator[bytes]:
            yield b"ans"
            raise gevent.GreenletExit

        assert not self.answer(pieces())[0]
