"""``chatd top``: how it asks, where it shows the answer, and how it goes on without one."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import requests
from requests.adapters import BaseAdapter

from chat.types import JSON
from cli.top import NoAnswer, asking, fetch_overview, top, watch
from tests.fakes import FakeClock

OVERVIEW: JSON = json.loads((Path(__file__).parent / "overview.json").read_text("utf-8"))
BASE = "http://127.0.0.1:3220"


class Answer(BaseAdapter):
    """In place of a network: one body for every request, or an error."""

    def __init__(self, said: object) -> None:
        super().__init__()
        self.said = said
        self.asked: list[str | None] = []

    def send(self, request, *_, **options):
        assert options["timeout"] > 0
        self.asked.append(request.url)
        if isinstance(self.said, Exception):
            raise self.said
        response = requests.Response()
        response.status_code = 200
        text = self.said if isinstance(self.said, str) else json.dumps(self.said)
        response.raw = io.BytesIO(text.encode())
        return response

    def close(self):
        """There is nothing to close."""


def fetched(said: object) -> JSON:
    session = requests.Session()
    session.mount("http://", Answer(said))
    return fetch_overview(session, BASE)


class TestFetch:
    """What counts as an answer."""

    def test_the_overview_is_asked_for(self):
        """At the address of the configuration."""
        answer = Answer(OVERVIEW)
        session = requests.Session()
        session.mount("http://", answer)

        assert fetch_overview(session, BASE) == OVERVIEW
        assert answer.asked == [f"{BASE}/v1/chat/providers"]

    @pytest.mark.parametrize(
        ("said", "told"),
        [
            (requests.ConnectionError("refused"), "not reachable: http://127.0.0.1:3220 does not"),
            (requests.ReadTimeout("slow"), "does not answer (ReadTimeout); is `chatd up` running?"),
            (
                {"error": {"code": "redis_unavailable", "message": "gone"}},
                "redis_unavailable: gone",
            ),
            ("<html>", "is not a chatd of this version"),
            ([], "is not a chatd of this version"),
            ({"default": "ollama", "providers": []}, "is not a chatd of this version"),
            ({"error": {"code": "x", "message": "\x1b[2J"}}, "x: \ufffd[2J"),
        ],
        ids=["refused", "slow", "no Redis", "a page", "a list", "an older one", "controls"],
    )
    def test_anything_else_is_told_in_one_line(self, said, told):
        """With the address and, where there is one, the way out."""
        with pytest.raises(NoAnswer) as caught:
            fetched(said)

        assert told in str(caught.value)
        assert BASE in str(caught.value)
        assert str(caught.value).isprintable()

    def test_a_proxy_of_the_environment_is_not_used(self):
        """The front end is on this machine."""
        session = asking(BASE).args[0]

        assert session.trust_env is False


class Script:
    """Gives its steps one after the other: answers, and errors to raise."""

    def __init__(self, *steps: JSON | BaseException) -> None:
        self.steps = list(steps)

    def __call__(self) -> JSON:
        step = self.steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step


class Shown:
    """A display that remembers."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def show(self, now, before, seconds):
        self.seen.append((now["default"], before and before["default"], seconds))

    def trouble(self, text):
        self.seen.append(text)


class TestWatch:
    """The loop, on a clock that is told when to move."""

    def run(self, *steps, slow_by=0.0):
        """Poll every two seconds; returns what was shown, and the sleeps."""
        clock, display, sleeps = FakeClock(), Shown(), []
        script = Script(*steps, KeyboardInterrupt())

        def fetch():
            clock.advance(slow_by)
            return script()

        def sleep(seconds):
            sleeps.append(seconds)
            clock.advance(seconds)

        with pytest.raises(KeyboardInterrupt):
            watch(fetch, display, interval_s=2.0, clock=clock, sleep=sleep)
        return display.seen, sleeps

    def test_each_answer_is_compared_with_the_one_before(self):
        """And with the time between them."""
        seen, _ = self.run({"default": "a"}, {"default": "b"}, {"default": "c"})

        assert [(now, before) for now, before, _ in seen] == [("a", None), ("b", "a"), ("c", "b")]
        assert [seconds for _, _, seconds in seen][1:] == [2.0, 2.0]

    def test_it_goes_on_while_the_front_end_is_away(self):
        """And then compares with the last answer there was."""
        seen, _ = self.run({"default": "a"}, NoAnswer("away"), NoAnswer("away"), {"default": "b"})

        assert seen[1:] == ["away", "away", ("b", "a", 6.0)]

    def test_a_slow_answer_does_not_slow_the_rhythm(self):
        """The sleep is what is left of the interval."""
        _, sleeps = self.run({"default": "a"}, {"default": "b"}, slow_by=0.5)

        assert sleeps == [1.5, 1.5]

    def test_an_answer_slower_than_the_interval_is_followed_at_once(self):
        """Nobody sleeps for less than nothing."""
        _, sleeps = self.run({"default": "a"}, slow_by=5.0)

        assert sleeps == [0.0]


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


class TestTop:
    """Where it goes, and the exit codes."""

    def test_once_is_one_round_of_lines(self, capsys, monkeypatch):
        """Without an escape code, even where the environment asks for colour."""
        monkeypatch.setenv("FORCE_COLOR", "1")
        code = top(Script(OVERVIEW), interval_s=1, once=True)
        out, err = capsys.readouterr()

        assert (code, err) == (0, "")
        assert len(out.splitlines()) == 5
        assert "\x1b" not in out

    def test_once_without_an_answer_is_1(self, capsys):
        """The reason goes to standard error."""
        code = top(Script(NoAnswer("not reachable: gone")), interval_s=1, once=True)

        assert code == 1
        assert capsys.readouterr() == ("", "Error: not reachable: gone\n")

    def test_lines_go_on_after_an_outage_and_end_with_0(self, capsys):
        """Ctrl-C is the way out."""
        steps = Script(OVERVIEW, NoAnswer("not reachable: gone"), OVERVIEW, KeyboardInterrupt())
        code = top(steps, interval_s=0, once=False)
        out, err = capsys.readouterr()

        assert (code, err) == (0, "Error: not reachable: gone\n")
        assert len(out.splitlines()) == 10

    def test_a_terminal_gets_a_view_that_survives_an_outage(self, terminal):
        """It says so meanwhile, and leaves the cursor as it was."""
        steps = Script(OVERVIEW, NoAnswer("not reachable: gone"), OVERVIEW, KeyboardInterrupt())
        screen = terminal()
        code = top(steps, interval_s=0, once=False)
        told = screen.getvalue()

        assert code == 0
        assert told.index("rate_limited 2.9s") < told.index("not reachable: gone")
        assert told.index("not reachable: gone") < told.rindex("rate_limited 2.9s")
        assert told.rindex("\x1b[?25h") > told.rindex("\x1b[?25l")

    def test_once_on_a_terminal_is_one_view(self, terminal):
        """It stays on the screen; nothing is drawn over."""
        screen = terminal()
        code = top(Script(OVERVIEW), interval_s=1, once=True)

        assert code == 0
        assert "moonshotai/kimi-k2" in screen.getvalue()
        assert "\x1b[?25l" not in screen.getvalue()

    def test_a_terminal_that_cannot_move_its_cursor_gets_lines(self, terminal):
        """As those of editors and some logs."""
        screen = terminal("dumb")
        top(Script(OVERVIEW), interval_s=1, once=True)

        assert screen.getvalue().startswith("at=")
