"""The watchdog's thread, against the real clock."""

from __future__ import annotations

import threading
import time

import pytest

from chat.providers.watchdog import StopReason, Watchdog, process_watchdog
from tests.waiting import eventually


class Subject:
    """Something to stop that remembers why it was."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.reasons: list[StopReason] = []

    def stop(self, reason: StopReason) -> None:
        """Remember it."""
        self.reasons.append(reason)
        self.stopped.set()


def soon() -> float:
    """A moment shortly after now."""
    return time.monotonic() + 0.05


def much_later() -> float:
    """A moment that no test reaches."""
    return time.monotonic() + 86_400


def test_each_subject_is_stopped_once_and_let_go() -> None:
    """Whatever the order in which they come, also one whose moment has passed."""
    watchdog = Watchdog()
    late, early, over = Subject(), Subject(), Subject()
    watchdog.watch(late, time.monotonic() + 0.15, StopReason.DEADLINE)
    watchdog.watch(early, soon(), StopReason.CONNECT)
    watchdog.watch(over, time.monotonic() - 1, StopReason.DEADLINE)

    assert all(subject.stopped.wait(30) for subject in (over, early, late))
    assert early.reasons == [StopReason.CONNECT]
    assert late.reasons == over.reasons == [StopReason.DEADLINE]
    assert len(watchdog) == 0


def test_a_subject_that_is_forgotten_is_not_stopped() -> None:
    """Its moment passes while another's comes."""
    watchdog = Watchdog()
    forgotten, witness = Subject(), Subject()
    watchdog.watch(forgotten, soon(), StopReason.DEADLINE)
    watchdog.forget(forgotten)
    watchdog.forget(forgotten)
    watchdog.watch(witness, time.monotonic() + 0.1, StopReason.DEADLINE)

    assert witness.stopped.wait(30)
    assert forgotten.reasons == []


def test_a_new_moment_replaces_the_old_one() -> None:
    """Once a call is sent, its deadline counts and the time to connect does not."""
    watchdog = Watchdog()
    moved, witness = Subject(), Subject()
    watchdog.watch(moved, soon(), StopReason.CONNECT)
    watchdog.watch(moved, much_later(), StopReason.DEADLINE)
    watchdog.watch(witness, time.monotonic() + 0.1, StopReason.DEADLINE)

    assert witness.stopped.wait(30)
    assert moved.reasons == []
    assert len(watchdog) == 1


def test_an_earlier_moment_wakes_a_watchdog_that_sleeps_long() -> None:
    """It would else sleep until the first moment it knew."""
    watchdog = Watchdog()
    watchdog.watch(Subject(), much_later(), StopReason.DEADLINE)
    urgent = Subject()
    watchdog.watch(urgent, soon(), StopReason.DEADLINE)

    assert urgent.stopped.wait(30)


def test_a_process_has_one_watchdog() -> None:
    """All providers of a worker share it."""
    assert process_watchdog() is process_watchdog()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_watchdog_whose_thread_has_died_starts_another() -> None:
    """No fault of one call may leave all others without a deadline."""

    class Faulty(Subject):
        def stop(self, reason: StopReason) -> None:
            super().stop(reason)
            raise RuntimeError

    watchdog = Watchdog()
    faulty, next_one = Faulty(), Subject()
    watchdog.watch(faulty, soon(), StopReason.DEADLINE)
    assert faulty.stopped.wait(30)
    eventually(lambda: watchdog._thread is None)
    watchdog.watch(next_one, soon(), StopReason.DEADLINE)

    assert next_one.stopped.wait(30)
