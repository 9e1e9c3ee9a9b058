"""``chatd drain`` and ``chatd resume`` on a fake server: what they do, say and exit with."""

from __future__ import annotations

from collections.abc import Callable

import fakeredis
import pytest
from click.testing import CliRunner

from chat.config import ChatdConfig
from chat.errors import QueueUnavailable
from chat.jobs import rfc3339
from chat.store import JobStore
from cli.drain import wait_for_calls
from cli.main import main
from tests.store_base import a_job

COMMANDS = ["drain", "resume"]


@pytest.fixture
def store(monkeypatch):
    """The store that the commands find."""
    made = JobStore(fakeredis.FakeRedis(decode_responses=True), ChatdConfig())
    made.register_settings(["ollama"])
    monkeypatch.setattr("cli.drain._store", lambda: made)
    return made


@pytest.fixture
def naps(monkeypatch):
    """What happens in each pause between two looks; put there by the test, one after the other."""
    steps: list[Callable[[], object]] = []
    monkeypatch.setattr("cli.drain.time.sleep", lambda _: steps.pop(0)())
    return steps


def chatd(*arguments):
    return CliRunner().invoke(main, arguments)


def calling(store, count):
    """So many calls in flight; returns what ends each."""

    def ending(job):
        # As the keeper does with one whose worker died: here only the permit counts.
        return lambda: store.reclaim(
            "ollama", next(c for c in store.calls("ollama") if c.job_id == job.id)
        )

    jobs = [a_job() for _ in range(count)]
    for job in jobs:
        store.admit(job)
        store.start(job.id, worker="w", token=f"t-{job.id}")
    return [ending(job) for job in jobs]


def interrupt():
    raise KeyboardInterrupt


class TestDrain:
    """``chatd drain``."""

    def test_a_provider_without_a_call_is_drained_at_once(self, store):
        """Nothing is waited for."""
        run = chatd("drain", "ollama")

        assert (run.exit_code, run.stdout.splitlines()) == (
            0,
            ["ollama: no new call begins, 0 calls in flight", "drained"],
        )
        assert list(store.drained(["ollama"])) == ["ollama"]

    def test_calls_in_flight_are_waited_for(self, store, naps):
        """A line tells of each change, and none of a look that brought nothing new."""
        first, second, third = calling(store, 3)
        naps += [first, lambda: None, second, third]
        run = chatd("drain", "ollama")

        assert run.exit_code == 0
        assert run.stdout.splitlines() == [
            "ollama: no new call begins, 3 calls in flight",
            "2 calls in flight",
            "1 call in flight",
            "drained",
        ]
        assert naps == []

    def test_it_need_not_wait(self, store):
        """The calls go on."""
        calling(store, 1)
        run = chatd("drain", "ollama", "--no-wait")

        assert (run.exit_code, run.stdout) == (
            0,
            "ollama: no new call begins, 1 call in flight\n",
        )

    def test_a_second_time_keeps_the_first(self, store):
        """And says since when."""
        since, _ = store.drain("ollama")
        run = chatd("drain", "ollama")

        assert run.stdout.splitlines()[0] == (
            f"ollama: drained since {rfc3339(since)}, 0 calls in flight"
        )
        assert store.drained(["ollama"]) == {"ollama": since}

    def test_ctrl_c_leaves_it_drained(self, store, naps):
        """It says so, and how to end it; 130."""
        calling(store, 1)
        naps.append(interrupt)
        run = chatd("drain", "ollama")

        assert run.exit_code == 130
        assert run.stderr == "Interrupted; ollama stays drained until `chatd resume ollama`\n"
        assert "ollama" in store.drained(["ollama"])

    def test_somebody_who_resumes_it_meanwhile_ends_the_wait(self, store, naps):
        """There would be no end of calls; 1."""
        calling(store, 1)
        naps.append(lambda: store.resume("ollama"))
        run = chatd("drain", "ollama")

        assert (run.exit_code, run.stderr) == (1, "ollama was resumed meanwhile\n")
        assert "drained" not in run.stdout

    def test_a_redis_that_goes_away_meanwhile_is_3(self, store, naps):
        """What was done stays done, and is said."""
        calling(store, 1)

        def gone():
            message = "gone"
            raise QueueUnavailable(message)

        naps.append(gone)
        run = chatd("drain", "ollama")

        assert run.exit_code == 3
        assert run.stderr == "Error: ollama stays drained; its calls cannot be counted: gone\n"

    def test_a_wait_that_needs_no_look_takes_none(self, store):
        """As when nothing is in flight from the first."""
        assert wait_for_calls(store, "ollama", 0, interrupt)


class TestResume:
    """``chatd resume``."""

    def test_calls_begin_again(self, store):
        """It says since when they had not."""
        since, _ = store.drain("ollama")
        run = chatd("resume", "ollama")

        assert (run.exit_code, run.stdout) == (
            0,
            f"ollama: calls begin again, after it was drained since {rfc3339(since)}\n",
        )
        assert store.drained(["ollama"]) == {}

    @pytest.mark.usefixtures("store")
    def test_what_is_not_drained_is_told(self):
        """Which is as it should be: 0."""
        run = chatd("resume", "ollama")

        assert (run.exit_code, run.stdout) == (0, "ollama is not drained\n")


@pytest.mark.parametrize("command", COMMANDS)
class TestBoth:
    """What neither can do anything about."""

    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch, tmp_path):
        """No configuration but the one a test names."""
        monkeypatch.setenv("LAKEHOUSE_CONFIG", "")
        monkeypatch.chdir(tmp_path)

    def test_a_provider_that_does_not_exist_is_2(self, command):
        """All that do are named."""
        run = chatd(command, "lama")

        assert run.exit_code == 2
        for name in ("lama", "ollama", "ollama_cloud", "openrouter", "opencode", "kimi"):
            assert f"'{name}'" in run.output

    @pytest.mark.parametrize(
        "text",
        [
            '[chatd]\nredis_url = "unix:///nonexistent/no-redis.sock"\n',
            '[chatd]\ndata_dir = "/nonexistent"\n',
            "[chatd",
        ],
        ids=["no answer", "none started", "no configuration"],
    )
    def test_a_redis_that_cannot_be_used_is_3(self, command, tmp_path, text):
        """In one line, as of `chatd audit`."""
        file = tmp_path / "chatd.toml"
        file.write_text(text, "utf-8")
        run = chatd("--config", str(file), command, "ollama")

        assert run.exit_code == 3
        assert run.output.startswith("Error: ")
        assert len(run.output.splitlines()) == 1
