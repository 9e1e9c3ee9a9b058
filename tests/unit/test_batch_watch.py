"""``chatd batch watch``: the loop, its patience, its displays; and the body of an upload."""

from __future__ import annotations

import io
import re
import sys

import pytest

from cli.batch_object import Batch
from cli.batch_progress import Meter, Progress
from cli.batch_watch import displayed, parts, watch
from cli.files import Multipart
from cli.http import CallError, Unavailable
from cli.watching import Lines, Patience
from tests.batch_objects import batch
from tests.fakes import FakeClock

AWAY = Unavailable("http://127.0.0.1:3220 does not answer")


class Script:
    """Gives its steps one after the other: values, and errors to raise."""

    def __init__(self, *steps: Batch | Exception) -> None:
        self.steps = list(steps)

    def __call__(self) -> Batch:
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


class Shown:
    """A display that remembers counts, rates and messages."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def show(self, progress, at):  # noqa: ARG002 - as the interface has it
        self.seen.append((progress.batch.done, progress.per_s))

    def trouble(self, text):
        self.seen.append(text)


def watched(*steps: Batch | Exception, patience_s: float = 300.0, slow_by: float = 0.0):
    """Watch a script every two seconds; what it returned or raised, was shown, and the sleeps."""
    clock, display, sleeps, script = FakeClock(), Shown(), [], Script(*steps)

    def fetch():
        clock.advance(slow_by)
        return script()

    def sleep(seconds):
        sleeps.append(seconds)
        clock.advance(seconds)

    try:
        end: object = watch(
            fetch, display, patience_s=patience_s, interval_s=2.0, clock=clock, sleep=sleep
        )
    except CallError as error:
        end = error
    return end, display.seen, sleeps


class TestWatch:
    """The loop, on a clock that is told when to move."""

    def test_it_ends_with_the_batch(self):
        """The last answer is shown as well, and returned."""
        over = batch("completed", 100)
        end, seen, _ = watched(batch(completed=40), over)

        assert end is over
        assert [done for done, _ in seen] == [40, 100]

    def test_the_first_looks_follow_each_other_faster(self):
        """A small batch is over soon; a long one is not asked for all the time."""
        _, _, sleeps = watched(*[batch()] * 6, batch("completed", 100))

        assert sleeps == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]

    def test_rates_are_taken_over_the_time_that_has_passed(self):
        """That of a slow answer included."""
        _, seen, _ = watched(batch(completed=0), batch(completed=10), batch("completed", 100))
        _, slow, _ = watched(batch(completed=0), batch("completed", 10), slow_by=0.75)

        assert seen[1] == (10, 40.0)
        assert slow[1] == (10, 10.0)

    def test_a_front_end_that_goes_away_is_waited_for_with_one_message(self):
        """Then the counts go on, over the time of the outage."""
        _, seen, sleeps = watched(
            batch(completed=0), AWAY, AWAY, AWAY, batch(completed=5), batch("completed", 100)
        )

        assert seen[1] == f"{AWAY} (waiting up to 5m 00s for it)"
        assert seen[2] == (5, 5 / 6.25)
        assert sleeps[:4] == [0.25, 2.0, 2.0, 2.0]
        assert len(seen) == 4

    def test_a_second_outage_has_a_message_and_all_of_the_patience_of_its_own(self):
        """Patience is for one time in a row."""
        away = [AWAY] * 3
        end, seen, _ = watched(
            batch(), *away, batch(), *away, batch("completed", 100), patience_s=5.0
        )

        assert isinstance(end, Batch)
        assert [told for told in seen if isinstance(told, str)] == [
            f"{AWAY} (waiting up to 5s for it)"
        ] * 2

    def test_patience_ends_at_its_time(self):
        """The last wait is only what is left of it."""
        end, _, sleeps = watched(batch(), *[AWAY] * 4, patience_s=5.0)

        assert end is AWAY
        assert sleeps == [0.25, 2.0, 2.0, 1.0]

    def test_without_patience_the_first_failure_is_the_end(self):
        """And nothing says that it waits."""
        end, seen, sleeps = watched(AWAY, patience_s=0)

        assert end is AWAY
        assert (seen, sleeps) == ([], [])

    def test_a_refusal_is_not_waited_out(self):
        """There is no such batch, and there is not going to be."""
        refusal = CallError("batch_not_found: …")
        end, seen, sleeps = watched(refusal)

        assert end is refusal
        assert (seen, sleeps) == ([], [])


class TestPatience:
    """Repeating one call."""

    def test_it_returns_what_the_call_returns(self):
        """After as many failures as there were."""
        clock = FakeClock()
        told: list[str] = []
        patience = Patience(9, told.append, clock=clock, sleep=clock.advance)
        made = batch()

        assert patience.ask(Script(AWAY, AWAY, made)) is made
        assert told == [f"{AWAY} (waiting up to 9s for it)"]


def progress(at: float = 0.0, **fields: object) -> Progress:
    return Meter().measure(batch(**fields), at)


class TestLines:
    """What a pipe gets, and when."""

    @pytest.fixture
    def told(self, capsys):
        """Shows batches at their times; returns what follows the time in each line."""

        def told(*shown: tuple[float, Batch]) -> list[str]:
            lines = Lines(parts)
            for at, seen in shown:
                lines.show(Meter().measure(seen, at), at)
            printed = capsys.readouterr().out.splitlines()
            stamp = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")
            assert all(stamp.match(line) for line in printed)
            return [stamp.sub("", line).split(",")[0] for line in printed]

        return told

    def test_a_line_is_not_repeated(self, told):
        """A log does not grow while nothing happens."""
        assert told(*((float(at), batch(completed=1)) for at in range(0, 60, 2))) == [
            "in_progress 1/100 (1%)"
        ]

    def test_changes_are_told_every_five_seconds(self, told):
        """Not each of them."""
        assert told(*((float(at), batch(completed=at)) for at in range(0, 13, 2))) == [
            "in_progress 0/100 (0%)",
            "in_progress 6/100 (6%)",
            "in_progress 12/100 (12%)",
        ]

    def test_a_change_that_had_to_wait_is_told_later(self, told):
        """Although nothing changed since."""
        seen = [(0.0, batch()), (2.0, batch(completed=9)), (6.0, batch(completed=9))]

        assert told(*seen) == ["in_progress 0/100 (0%)", "in_progress 9/100 (9%)"]

    def test_the_end_is_told_at_once(self, told):
        """It is always the last line."""
        assert (
            told((0.0, batch()), (0.25, batch("completed", 100)))[-1] == "completed 100/100 (100%)"
        )

    def test_trouble_goes_to_standard_error(self, capsys):
        """It is no progress."""
        Lines(parts).trouble("gone")

        assert capsys.readouterr() == ("", "gone\n")


class Terminal(io.StringIO):
    """Standard output that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Makes standard output a terminal; called in the test, since pytest takes its own back."""

    def terminal(kind="xterm"):
        made = Terminal()
        monkeypatch.setattr(sys, "stdout", made)
        for name, value in (("TERM", kind), ("COLUMNS", "80"), ("LINES", "40")):
            monkeypatch.setenv(name, value)
        return made

    return terminal


class TestDisplayed:
    """Which display standard output gets."""

    def test_a_terminal_gets_a_view_that_survives_an_outage(self, terminal):
        """Trouble stands below the last numbers; the cursor is left as it was."""
        made = terminal()
        with displayed() as display:
            display.trouble("not yet")
            display.show(progress(completed=40), 0.0)
            display.trouble("gone")
            display.show(progress(completed=60), 2.0)
        told = made.getvalue()

        assert re.findall(r"not yet|\d+/100|gone", told)[:5] == [
            "not yet",
            "40/100",
            "40/100",
            "gone",
            "60/100",
        ]
        assert told.rindex("\x1b[?25h") > told.rindex("\x1b[?25l")

    def test_a_pipe_gets_lines(self, capsys, monkeypatch):
        """Without an escape code, even where the environment asks for colour."""
        monkeypatch.setenv("FORCE_COLOR", "1")
        with displayed() as display:
            display.show(progress(completed=40), 0.0)
        out = capsys.readouterr().out

        assert "in_progress 40/100 (40%)" in out
        assert "\x1b" not in out

    def test_a_terminal_that_cannot_move_its_cursor_gets_lines(self, terminal):
        """As those of editors and some logs."""
        made = terminal("dumb")
        with displayed() as display:
            display.show(progress(completed=40), 0.0)

        assert "in_progress 40/100 (40%)" in made.getvalue()
        assert "\x1b" not in made.getvalue()


class Slow(io.FileIO):
    """A file that remembers how much of it was read."""

    given = 0

    def read(self, size=-1):
        piece = super().read(size)
        self.given += len(piece)
        return piece


class TestMultipart:
    """The body of an upload."""

    @pytest.fixture
    def stored(self, tmp_path):
        """A file of a gibibyte that takes no room on the disk."""
        path = tmp_path / "large.jsonl"
        with path.open("wb") as file:
            file.truncate(2**30)
        return path

    def test_a_large_file_is_read_as_it_is_sent(self, stored):
        """Not a piece before it is asked for, and none that is large."""
        told: list[int] = []
        with Slow(stored) as file:
            pieces = iter(Multipart(file, "large.jsonl", told.append))
            next(pieces)
            begun = file.given
            first = next(pieces)
            second = next(pieces)
            read = file.given

        assert begun == 0
        assert len(first) == len(second) == 64 * 1024
        assert read == len(first) + len(second)
        assert told == [len(first)]

    def test_its_length_is_known_before_anything_is_read(self, stored):
        """It is announced in a header."""
        with Slow(stored) as file:
            length = len(Multipart(file, "large.jsonl", lambda _: None))
            read = file.given

        assert length > 2**30
        assert read == 0

    def test_the_announced_length_is_what_is_sent(self, tmp_path):
        """To the byte, for names that have to be escaped or encoded as well."""
        path = tmp_path / "x"
        path.write_bytes(b"{}\n" * 50_000)
        with path.open("rb") as file:
            body = Multipart(file, 'größe "x"\r\n.jsonl', lambda _: None)
            sent = sum(len(piece) for piece in body)

        assert sent == len(body)
        assert body.sent == body.size == 150_000

    def test_what_is_appended_meanwhile_is_not_sent(self, tmp_path):
        """The length stands; the file as it was goes out."""
        path = tmp_path / "x"
        path.write_bytes(b"a" * 100)
        with path.open("rb") as file, path.open("ab") as more:
            body = Multipart(file, "x", lambda _: None)
            more.write(b"b" * 100)
            more.flush()
            sent = b"".join(body)

        assert len(sent) == len(body)
        assert b"b" * 100 not in sent

    def test_a_file_that_becomes_shorter_is_an_error(self, tmp_path):
        """Otherwise the server would wait for the rest."""
        path = tmp_path / "x"
        path.write_bytes(b"a" * 100)
        with path.open("rb") as file:
            body = Multipart(file, "x", lambda _: None)
            path.write_bytes(b"")
            with pytest.raises(CallError, match="became shorter while it was sent"):
                b"".join(body)

    def test_a_file_that_cannot_be_read_on_is_an_error_of_the_file(self, tmp_path):
        """And not one of the connection."""

        class Broken(io.FileIO):
            def read(self, size=-1):  # noqa: ARG002 - as the interface has it
                raise OSError(5, "Input/output error")

        path = tmp_path / "x"
        path.write_bytes(b"a" * 100)
        with (
            Broken(path) as file,
            pytest.raises(CallError, match=r"x: cannot be read \(Input/output error\)"),
        ):
            b"".join(Multipart(file, "x", lambda _: None))
