"""The stop of a front end, as those who wait in it see it."""

from __future__ import annotations

import math

from api.stopping import Stopping
from tests.fakes import FakeClock


def test_without_a_stop_nothing_bounds_a_wait() -> None:
    """Whatever the patience."""
    assert Stopping(FakeClock()).until(0) == math.inf


def test_patience_counts_from_the_beginning_of_the_stop() -> None:
    """A second signal changes nothing."""
    clock = FakeClock()
    stopping = Stopping(clock)
    stopping.begin()
    clock.advance(5)
    stopping.begin()

    assert (stopping.until(0), stopping.until(60)) == (1000, 1060)


def test_whoever_waits_is_woken_once() -> None:
    """And not whoever has left by then, or came later."""
    stopping = Stopping(FakeClock())
    woken = []

    def left() -> None:
        woken.append("left")

    stopping.call(left)
    stopping.forget(left)
    stopping.call(lambda: woken.append("waits"))
    stopping.begin()
    stopping.begin()
    stopping.call(lambda: woken.append("late"))

    assert woken == ["waits"]


def test_a_wake_sees_that_the_stop_has_begun() -> None:
    """So that it knows how long it may still wait."""
    stopping = Stopping(FakeClock())
    seen = []
    stopping.call(lambda: seen.append(stopping.until(1)))
    stopping.begin()

    assert seen == [1001]
