"""Keeping a list fresh: how often it is fetched, what a failure changes, and what the log says."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import cast

import fakeredis
import pytest

from chat.catalogue import Catalogue, ListedModel
from chat.errors import UpstreamAuth
from chat.providers.catalogue import Found, ModelSource
from chat.types import Deadline
from tests.waiting import eventually
from workers.catalogue import Refresher

EVERY_S = 600.0
ONE = Found((ListedModel("k3"),), 0)
TWO = Found((ListedModel("k3"), ListedModel("kimi-for-coding")), 1)


class Source:
    """A provider's lists, by script: each fetch is the next of ``outcomes``, the last for ever."""

    def __init__(self, *outcomes: Found | Exception) -> None:
        self.outcomes = list(outcomes)
        self.limits: list[float] = []

    def fetch(self, deadline: Deadline) -> Found:
        self.limits.append(deadline.remaining())
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def server() -> fakeredis.FakeServer:
    """Redis, which can be away."""
    return fakeredis.FakeServer()


@pytest.fixture
def catalogue(server: fakeredis.FakeServer) -> Catalogue:
    """The lists in that Redis."""
    return Catalogue(fakeredis.FakeRedis(server=server, decode_responses=True))


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the worker logs."""
    with caplog.at_level(logging.INFO, logger="workers.catalogue"):
        yield caplog


def refresher(source: Source, catalogue: Catalogue, every_s: float = EVERY_S) -> Refresher:
    """A refresher of Kimi's list."""
    return Refresher("kimi", cast("ModelSource", source), catalogue, every_s)


def listed(catalogue: Catalogue) -> tuple[ListedModel, ...] | None:
    """What is kept of Kimi's list."""
    found = catalogue.lists(["kimi"])["kimi"]
    return None if found is None else found.models


def test_a_list_outlives_the_time_until_the_next_look(
    server: fakeredis.FakeServer, catalogue: Catalogue
) -> None:
    """By a day, so that a provider that is asked once a week is listed all week."""
    refresher(Source(ONE), catalogue, every_s=7 * 86_400).refresh()
    left_s = fakeredis.FakeRedis(server=server).ttl("models:kimi")

    assert 7 * 86_400 < left_s <= 8 * 86_400


def test_a_list_is_kept_and_the_next_look_is_due_later(catalogue: Catalogue) -> None:
    """Each look has its own limit of fifteen seconds."""
    source = Source(ONE, TWO)
    fresh = refresher(source, catalogue)
    pauses, kept = [fresh.refresh()], [listed(catalogue)]
    pauses.append(fresh.refresh())
    kept.append(listed(catalogue))

    assert kept == [ONE.models, TWO.models]
    assert pauses == [EVERY_S, EVERY_S]
    assert all(14 < limit <= 15 for limit in source.limits)


@pytest.mark.parametrize(
    ("every_s", "pause"), [(600.0, 60.0), (20.0, 20.0)], ids=["sooner", "never later"]
)
def test_after_a_failure_the_old_list_stays_and_the_next_look_comes_sooner(
    catalogue: Catalogue, every_s: float, pause: float
) -> None:
    """A local Ollama may start a moment after chatd."""
    fresh = refresher(Source(ONE, UpstreamAuth("no")), catalogue, every_s)
    fresh.refresh()

    assert fresh.refresh() == pause
    assert listed(catalogue) == ONE.models


def test_a_failure_is_logged_once_and_so_is_its_end(
    catalogue: Catalogue, log: pytest.LogCaptureFixture
) -> None:
    """However often it is tried meanwhile; and a list as long as before is no news."""
    no = UpstreamAuth("kimi answered 401")
    fresh = refresher(Source(ONE, ONE, no, no, no, ONE, TWO), catalogue)
    for _ in range(7):
        fresh.refresh()

    assert [(record.levelname, record.getMessage()) for record in log.records] == [
        ("INFO", "models of kimi: 1 listed, 0 left out (too many, or no usable id)"),
        (
            "WARNING",
            "the models of kimi cannot be listed, the last list stays: kimi answered 401",
        ),
        ("INFO", "models of kimi: 1 listed, 0 left out (too many, or no usable id)"),
        ("INFO", "models of kimi: 2 listed, 1 left out (too many, or no usable id)"),
    ]


def test_redis_may_be_away(
    catalogue: Catalogue, server: fakeredis.FakeServer, log: pytest.LogCaptureFixture
) -> None:
    """The list is fetched again when it is back."""
    server.connected = False
    fresh = refresher(Source(ONE), catalogue)
    pauses = [fresh.refresh(), fresh.refresh()]
    server.connected = True
    pauses.append(fresh.refresh())

    assert pauses == [60.0, 60.0, EVERY_S]
    assert listed(catalogue) == ONE.models
    assert [record.levelname for record in log.records] == ["WARNING", "INFO"]
    assert "Redis cannot be used just now" in log.records[0].getMessage()


def test_a_fault_of_ours_is_logged_with_its_traceback(
    catalogue: Catalogue, log: pytest.LogCaptureFixture
) -> None:
    """And the thread goes on."""
    fresh = refresher(Source(ZeroDivisionError("oh"), ONE), catalogue)
    pauses = [fresh.refresh(), fresh.refresh()]

    assert pauses == [60.0, EVERY_S]
    assert log.records[0].exc_info is not None
    assert log.records[0].exc_info[0] is ZeroDivisionError
    assert listed(catalogue) == ONE.models


def test_the_thread_fetches_again_and_again_until_the_worker_stops(catalogue: Catalogue) -> None:
    """A daemon, so that a look under way holds nobody up."""
    source, stopping = Source(ONE, TWO), threading.Event()
    refresher(source, catalogue, every_s=0.001).start(stopping)
    [thread] = [found for found in threading.enumerate() if found.name == "models"]
    eventually(lambda: len(source.limits) > 2, what="three looks")
    stopping.set()
    thread.join(30)

    assert thread.daemon
    assert not thread.is_alive()
    assert listed(catalogue) == TWO.models
