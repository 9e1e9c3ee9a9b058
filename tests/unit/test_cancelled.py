"""The switch that stops an upstream call."""

from __future__ import annotations

import sys
import threading

import pytest

from chat.types import Cancelled


def test_whoever_gave_a_callback_is_called_once_however_often_it_is_set():
    """In their order; the first reason stays."""
    cancelled, called = Cancelled(), []
    cancelled.on_set(lambda: called.append(1))
    cancelled.on_set(lambda: called.append(2))
    before = cancelled.is_set()
    cancelled.set("hung up")
    cancelled.set("stopping")

    assert (before, called) == (False, [1, 2])
    assert (cancelled.is_set(), cancelled.reason) == (True, "hung up")


def test_a_callback_that_comes_late_is_called_at_once():
    """The call began when its job had been cancelled."""
    cancelled, called = Cancelled(), []
    cancelled.set("hung up")
    cancelled.on_set(lambda: called.append(1))

    assert called == [1]


@pytest.fixture
def hasty():
    """Threads that are interrupted wherever they are."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
def test_none_is_lost_and_none_called_twice_when_all_come_at_once():
    """One thread sets it while another gives its callbacks."""
    for _ in range(200):
        cancelled = Cancelled()
        called: list[int] = []

        def give(cancelled=cancelled, called=called):
            for number in range(20):
                cancelled.on_set(lambda number=number: called.append(number))

        threads = [threading.Thread(target=give)]
        threads += [threading.Thread(target=cancelled.set, args=(why,)) for why in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

        assert sorted(called) == list(range(20))
