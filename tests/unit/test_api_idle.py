"""Connections on which nothing happens, when the front end is told to end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent.event import Event

from api.drain import DrainingWorker


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
