"""``chatd restart``: whom it asks, and how long it watches."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli import restart
from cli.instance import Instance, Restarts
from cli.main import main
from cli.restart import watch
from tests.fakes import FakeClock

PID = 4711


class Household:
    """A `chatd up` that writes down, look by look, what the test has it do."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.instance = Instance(folder)
        self.clock = FakeClock()
        self.said: list[str] = []
        self.pid: int | None = PID
        self.states: list[Restarts | None] = []
        monkeypatch.setattr(restart, "running_pid", lambda _: self.pid)

    def watch(self, before: Restarts, *states: Restarts | None) -> str:
        """What ``watch`` returns while these are written; ``None`` is the end of the process."""
        self.states = list(states)
        return watch(
            self.folder, PID, before, self.said.append, clock=self.clock, sleep=self._sleep
        )

    def _sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)
        if self.states:
            state = self.states.pop(0)
            if state is None:
                self.pid = None
            else:
                self.instance.tell(state)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Household]:
    house = Household(tmp_path, monkeypatch)
    yield house
    house.instance.close()


def test_it_is_over_when_one_that_began_afterwards_has_ended(house: Household) -> None:
    """Each step is told once."""
    fault = house.watch(
        Restarts(),
        Restarts(1, 0, "keeper starts anew"),
        Restarts(1, 0, "keeper starts anew"),
        Restarts(1, 0, "api starts anew"),
        Restarts(1, 1),
    )

    assert (fault, house.said) == ("", ["keeper starts anew", "api starts anew"])


def test_one_that_was_going_on_already_does_not_count(house: Household) -> None:
    """It may have read another configuration, and takes as long as it takes."""
    before = Restarts(1, 0, "api starts anew")
    house.instance.tell(before)
    long = [before] * 400

    fault = house.watch(
        before, *long, Restarts(1, 1, "", "given up"), Restarts(2, 1), Restarts(2, 2)
    )

    assert fault == ""
    assert house.states == []


def test_why_it_was_given_up_is_told(house: Household) -> None:
    """In the words of the one who did."""
    assert house.watch(Restarts(), Restarts(1, 1, "", "it was given up")) == "it was given up"


def test_a_process_that_ends_meanwhile_is_told(house: Household) -> None:
    """Somebody has stopped it."""
    assert "has ended meanwhile" in house.watch(Restarts(), Restarts(1, 0), None)


def test_one_that_does_not_notice_is_not_waited_for(house: Household) -> None:
    """Half a minute: it may hang, or its disk be full."""
    assert "does not begin within 30 s" in house.watch(Restarts())
    assert house.clock.now == pytest.approx(1030, abs=1)


class TestCommand:
    """Exit codes."""

    @pytest.fixture
    def data(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The data_dir of the configuration that is in force."""
        file = tmp_path / "chatd.toml"
        file.write_text(f'[chatd]\ndata_dir = "{tmp_path / "data"}"\n', "utf-8")
        monkeypatch.setenv("LAKEHOUSE_CONFIG", str(file))
        return tmp_path / "data"

    def test_nobody_who_runs_is_3(self, data: Path) -> None:
        """A file that was left behind changes nothing; nobody is sent a signal."""
        data.mkdir()
        (data / "up.pid").write_text("1\n", "ascii")
        run = CliRunner().invoke(main, ["restart"])

        assert run.exit_code == 3
        assert f"no `chatd up` runs in {data}" in run.output

    @pytest.mark.parametrize(
        ("fault", "code", "said"),
        [("", 0, "restarted\n"), ("it was given up", 1, "Error: it was given up\n")],
        ids=["done", "given up"],
    )
    def test_the_signal_goes_to_who_runs(
        self, data: Path, monkeypatch: pytest.MonkeyPatch, fault: str, code: int, said: str
    ) -> None:
        """And the exit code says what became of it."""
        sent = []

        def send(pid: int, number: int) -> None:
            sent.append((pid, number))
            running.tell(Restarts(1, 1, "", fault))

        running = Instance(data)
        monkeypatch.setattr("os.kill", send)
        monkeypatch.setattr(restart, "running_pid", lambda _: PID)
        run = CliRunner().invoke(main, ["restart"])
        running.close()

        assert sent == [(PID, signal.SIGHUP)]
        assert (run.exit_code, run.output) == (code, said)

    def test_somebody_elses_is_3(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It cannot be sent a signal."""

        def refuse(*_: int) -> None:
            raise PermissionError(1, "Operation not permitted")

        running = Instance(data)
        monkeypatch.setattr("os.kill", refuse)
        run = CliRunner().invoke(main, ["restart"])
        running.close()

        assert run.exit_code == 3
        assert "run this as the user that runs it" in run.output
