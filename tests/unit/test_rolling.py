"""The steps of a rolling restart, on a supervisor and processes that do as told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest

from chat.errors import ConfigError
from cli.child import Child, Part
from cli.instance import Instance, Restarts
from cli.rolling import GivenUp, Restarter, Rolling
from cli.supervisor import Supervisor
from tests.fakes import FakeClock

NAMES = ("keeper", "worker kimi", "api")


def part(name: str) -> Part:
    return Part(name=name, command=["chatd"], grace_s=1)


@dataclass
class FakeChild:
    """A process that is ready, or ends, when the test says so."""

    part: Part
    ready: bool = False
    exit_code: int | None = None


@dataclass
class FakeSupervisor:
    """Writes down what it is told to do."""

    did: list[str] = field(default_factory=list)
    starting: FakeChild | None = None
    gone: list[FakeChild] = field(default_factory=list)
    asked: bool = False
    fault: OSError | None = None

    def begin_successor(self, part: Part) -> FakeChild:
        self.did.append(f"begin {part.name}")
        if self.fault is not None:
            raise self.fault
        self.starting = FakeChild(part)
        return self.starting

    def promote(self, name: str) -> None:
        self.did.append(f"promote {name}")
        self.gone.append(FakeChild(part(name)))

    def abandon(self, name: str) -> None:
        self.did.append(f"abandon {name}")

    def retire(self, name: str) -> None:
        self.did.append(f"retire {name}")

    def leaving(self) -> list[FakeChild]:
        return self.gone

    def restart_asked(self) -> bool:
        asked, self.asked = self.asked, False
        return asked


@pytest.fixture
def house() -> FakeSupervisor:
    return FakeSupervisor()


def rolling(
    house: FakeSupervisor, dropped: Sequence[str] = (), clock: FakeClock | None = None
) -> Rolling:
    return Rolling(
        cast("Supervisor", house),
        [part(name) for name in NAMES],
        dropped,
        clock=clock or FakeClock(),
    )


def steps(restart: Rolling, house: FakeSupervisor, count: int) -> list[bool]:
    """So many steps; whoever was started is ready at the next one."""
    over = []
    for _ in range(count):
        over.append(restart.step())
        if house.starting is not None:
            house.starting.ready = True
    return over


def test_one_part_after_the_other_gets_a_successor(house: FakeSupervisor) -> None:
    """The next one begins when the one before has taken over."""
    over = steps(rolling(house), house, 6)

    assert over == [False] * 6
    assert house.did == [f"{do} {name}" for name in NAMES for do in ("begin", "promote")]


def test_a_successor_that_is_not_ready_is_waited_for(house: FakeSupervisor) -> None:
    """The one before works meanwhile."""
    restart = rolling(house)
    for _ in range(5):
        assert restart.step() is False

    assert house.did == ["begin keeper"]
    assert restart.doing == "keeper starts anew"


def test_it_is_over_when_the_old_ones_have_gone(house: FakeSupervisor) -> None:
    """They finish what they have beside all that follows."""
    restart = rolling(house)
    steps(restart, house, 6)
    before = restart.step()
    said = restart.doing
    house.gone.clear()

    assert (before, said) == (False, "waiting for what keeper, worker kimi, api had begun")
    assert restart.step() is True
    assert restart.doing == ""


def test_what_has_no_place_any_more_ends_last(house: FakeSupervisor) -> None:
    """A provider that is no longer configured answers as long as anybody asks for it."""
    steps(rolling(house, ["worker ollama"]), house, 7)

    assert house.did[-2:] == ["promote api", "retire worker ollama"]
    assert house.did.count("retire worker ollama") == 1


def test_a_successor_that_ends_is_no_successor(house: FakeSupervisor) -> None:
    """The restart is given up, and what follows is not touched."""
    restart = rolling(house)
    steps(restart, house, 3)
    assert house.starting is not None
    house.starting.ready, house.starting.exit_code = False, 1
    with pytest.raises(GivenUp, match=r"the new worker kimi ended with 1, .* runs on as before"):
        restart.step()

    assert house.did[2:] == ["begin worker kimi", "abandon worker kimi"]


def test_a_successor_that_is_never_ready_is_no_successor_either(house: FakeSupervisor) -> None:
    """After a minute."""
    clock = FakeClock()
    restart = rolling(house, clock=clock)
    restart.step()
    clock.advance(59)
    patient = restart.step()
    clock.advance(1)
    with pytest.raises(GivenUp, match="the new keeper was not ready after 60 s"):
        restart.step()

    assert patient is False
    assert house.did == ["begin keeper", "abandon keeper"]


class Notes:
    """What was written down; ``full`` is a disk that takes nothing."""

    def __init__(self) -> None:
        self.told: list[Restarts] = []
        self.full = False

    def tell(self, restarts: Restarts) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.told.append(restarts)


class Desk:
    """A restarter around the fakes; ``plan`` may be replaced."""

    def __init__(self, house: FakeSupervisor) -> None:
        self.house = house
        self.notes = Notes()
        self.plan: Callable[[], tuple[list[Part], list[str]]] = lambda: ([part("keeper")], [])
        self.restarter = Restarter(
            cast("Supervisor", house), cast("Instance", self.notes), self._plan
        )

    def _plan(self) -> tuple[list[Part], list[str]]:
        return self.plan()

    def turn(self, count: int = 1) -> None:
        for _ in range(count):
            self.restarter.turn()
            if self.house.starting is not None:
                self.house.starting.ready = True
            self.house.gone.clear()


@pytest.fixture
def desk(house: FakeSupervisor) -> Desk:
    return Desk(house)


class TestRestarter:
    """Who begins a restart, and writes down how it goes."""

    def test_nothing_happens_unasked(self, desk: Desk) -> None:
        """And nothing is written."""
        desk.turn(3)

        assert (desk.house.did, desk.notes.told) == ([], [])

    def test_one_that_was_asked_for_is_counted_when_it_begins_and_ends(self, desk: Desk) -> None:
        """Between them stands what it does."""
        desk.house.asked = True
        desk.turn(6)

        assert desk.house.did == ["begin keeper", "promote keeper"]
        assert desk.notes.told == [
            Restarts(1, 0, "reads the configuration"),
            Restarts(1, 0, "keeper starts anew"),
            Restarts(1, 0, "waiting for what keeper had begun"),
            Restarts(1, 1, ""),
        ]

    def test_who_asks_meanwhile_gets_one_more(self, desk: Desk) -> None:
        """The configuration may have been changed since the first one has read it."""
        desk.house.asked = True
        desk.turn()
        desk.house.asked = True
        desk.turn(10)

        assert desk.house.did == ["begin keeper", "promote keeper"] * 2
        assert desk.notes.told[-1] == Restarts(2, 2)

    def test_a_broken_configuration_touches_nothing(
        self, desk: Desk, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Log and file say what is wrong."""

        def broken() -> tuple[list[Part], list[str]]:
            message = "chatd.toml: is not TOML"
            raise ConfigError(message)

        desk.plan = broken
        desk.house.asked = True
        desk.turn(3)

        assert desk.house.did == []
        fault = "nothing was restarted: chatd.toml: is not TOML"
        assert desk.notes.told[-1] == Restarts(1, 1, "", fault)
        assert fault in caplog.text

    def test_one_that_is_given_up_says_why(self, desk: Desk) -> None:
        """And the next one may be asked for."""
        desk.house.asked = True
        desk.turn(2)
        assert desk.house.starting is not None
        desk.house.starting.ready, desk.house.starting.exit_code = False, 1
        desk.turn()
        given_up = desk.notes.told[-1]
        desk.house.asked = True
        desk.turn(6)

        assert (given_up.begun, given_up.ended) == (1, 1)
        assert given_up.fault.startswith("the restart was given up: the new keeper ended with 1")
        assert desk.notes.told[-1] == Restarts(2, 2)

    def test_a_process_that_cannot_be_started_is_no_successor(self, desk: Desk) -> None:
        """All runs on, and the next restart may be asked for when the program is there again."""
        desk.house.fault = FileNotFoundError(2, "No such file or directory", "/venv/bin/python")
        desk.house.asked = True
        desk.turn(2)
        given_up = desk.notes.told[-1]
        did = list(desk.house.did)
        desk.house.fault = None
        desk.house.asked = True
        desk.turn(6)

        assert did == ["begin keeper", "abandon keeper"]
        assert (given_up.begun, given_up.ended) == (1, 1)
        assert "the new keeper could not be started ([Errno 2] No such file" in given_up.fault
        assert "/venv/bin/python" in given_up.fault
        assert desk.notes.told[-1] == Restarts(2, 2)

    def test_a_full_disk_keeps_nobody_from_restarting(
        self, desk: Desk, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is said once, and written when there is room."""
        desk.notes.full = True
        desk.house.asked = True
        desk.turn(6)
        told = list(desk.notes.told)
        desk.notes.full = False
        desk.turn()

        assert desk.house.did == ["begin keeper", "promote keeper"]
        assert caplog.text.count("cannot be written down") == 1
        assert (told, desk.notes.told) == ([], [Restarts(1, 1)])


def test_a_child_is_what_the_fake_stands_for() -> None:
    """The names that the restart uses exist."""
    for name in ("ready", "exit_code"):
        assert isinstance(getattr(Child, name), property)
