"""When a closed terminal is the reason of a SIGHUP, on a clock that the test moves."""

from __future__ import annotations

import pytest

from cli.terminal import Terminal
from tests.fakes import FakeClock


class Desk:
    """A terminal that can be closed."""

    def __init__(self) -> None:
        self.there = True
        self.clock = FakeClock()
        self.terminal = Terminal(lambda: self.there, self.clock)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_an_open_terminal_was_not_closed(desk: Desk) -> None:
    """SIGHUP came from somebody."""
    assert desk.terminal.just_closed() is False


def test_a_closed_one_is_noticed_at_once(desk: Desk) -> None:
    """Its SIGHUP comes before the next look, from the kernel or a moment later from the shell."""
    desk.there = False
    at_once = desk.terminal.just_closed()
    desk.clock.advance(1)

    assert (at_once, desk.terminal.just_closed()) == (True, True)


def test_one_that_was_closed_long_ago_is_no_reason(desk: Desk) -> None:
    """A shell that was told to leave the process alone sends no SIGHUP; a later one is a wish."""
    desk.there = False
    desk.terminal.look()
    desk.clock.advance(10)

    assert desk.terminal.just_closed() is False


def test_who_never_had_one_cannot_lose_it() -> None:
    """As under a supervisor."""
    assert Terminal(lambda: False, FakeClock()).just_closed() is False


def test_a_process_without_a_terminal_finds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real look does not raise."""
    monkeypatch.setattr("os.open", _no_such_device)

    assert Terminal().just_closed() is False


def _no_such_device(*_: object) -> int:
    raise OSError(6, "No such device or address")
