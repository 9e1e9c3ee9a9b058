"""``chatd check`` and ``chatd providers``: what they say, and that they say no key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chat.config import ChatdConfig, LimitConfig, load_config
from chat.errors import ConfigError, QueueUnavailable
from chat.routing import PROVIDERS
from cli.check import Level, ProviderRow, Report, Row, check, provider_rows

KEY = "sk-kimi-0123456789"


@pytest.fixture
def config() -> ChatdConfig:
    """The defaults without key files, which the machine that runs this might have."""
    config = ChatdConfig()
    return replace(
        config,
        providers={name: replace(p, key_file="") for name, p in config.providers.items()},
    )


def answers() -> None:
    """A Redis that answers."""


def silent() -> None:
    """A Redis that does not."""
    raise QueueUnavailable("Redis does not answer at localhost:6379")


def unstarted() -> None:
    """Chatd's own Redis before it was ever started."""
    raise ConfigError("no Redis of chatd's own has been started")


def rows(report: Report) -> dict[str, Row]:
    """The report's rows by subject."""
    return {row.subject: row for row in report.rows}


class TestCheck:
    """One row for each thing that was looked at, and one verdict."""

    def test_the_defaults_are_fit_to_run(self, config: ChatdConfig) -> None:
        """Local Ollama is registered; four providers without a key are no fault."""
        report = check(config, {}, answers)

        assert report.ok
        assert {row.subject: row.level for row in report.rows} == {
            "configuration": Level.NOTE,
            "ollama": Level.OK,
            "ollama_cloud": Level.NOTE,
            "openrouter": Level.NOTE,
            "opencode": Level.NOTE,
            "kimi": Level.NOTE,
            "redis": Level.OK,
        }

    def test_the_file_in_use_is_named(self, tmp_path: Path, config: ChatdConfig) -> None:
        """Or where one was looked for."""
        file = tmp_path / "lakehouse.toml"
        file.write_text("")
        found = rows(check(load_config(file, {}), {}, answers))["configuration"]
        defaults = rows(check(config, {}, answers))["configuration"]

        assert (found.level, found.found) == (Level.OK, str(file))
        assert "$LAKEHOUSE_CONFIG, lakehouse.toml, /etc/lakehouse/lakehouse.toml" in defaults.found

    def test_a_provider_says_whether_it_has_its_key(self, config: ChatdConfig) -> None:
        """Present or absent and why, and never the key."""
        report = check(config, {"KIMI_API_KEY": KEY}, answers)
        found = rows(report)

        assert found["kimi"].found == "registered, key present: KIMI_API_KEY in the environment"
        assert found["opencode"].found.startswith("not registered, key absent: OPENCODE_API_KEY is")
        assert found["opencode"].found.endswith("; set OPENCODE_API_KEY")
        assert found["ollama"].found == "registered, key not needed: ollama_url is set"
        assert KEY not in repr(report) + "".join(report.lines)

    def test_no_provider_at_all_is_wrong(self, config: ChatdConfig) -> None:
        """Nothing could ever be answered."""
        report = check(replace(config, ollama_url=""), {}, answers)

        assert not report.ok
        assert rows(report)["providers"].level is Level.WRONG

    def test_a_configured_redis_has_to_answer(self, config: ChatdConfig) -> None:
        """Its own words are the row."""
        report = check(replace(config, redis_url="redis://localhost:6379"), {}, silent)

        assert not report.ok
        assert rows(report)["redis"] == Row(
            Level.WRONG, "redis", "Redis does not answer at localhost:6379"
        )

    @pytest.mark.parametrize("ping", [silent, unstarted])
    def test_our_own_redis_is_wrong_while_chatd_up_runs(
        self, config: ChatdConfig, ping: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It has been started, and something is the matter with it; its own log says what."""
        monkeypatch.setattr("cli.check.running_pid", lambda _: 17)
        assert callable(ping)
        report = check(config, {}, ping)

        assert not report.ok
        assert "redis.log" in report.rows[-1].found

    @pytest.mark.parametrize("ping", [silent, unstarted])
    def test_our_own_redis_may_still_be_down(self, config: ChatdConfig, ping: object) -> None:
        """``chatd up`` starts it, so that checking comes before starting."""
        assert callable(ping)
        report = check(config, {}, ping)

        assert report.ok
        assert rows(report)["redis"].level is Level.NOTE
        assert "`chatd up` starts it" in rows(report)["redis"].found

    def test_a_fault_of_the_code_is_not_taken_for_a_silent_redis(self, config: ChatdConfig) -> None:
        """It goes on to whoever called."""

        def broken() -> None:
            raise RuntimeError("a fault")

        with pytest.raises(RuntimeError, match="a fault"):
            check(config, {}, broken)

    def test_the_limits_of_the_file_are_shown(self, config: ChatdConfig) -> None:
        """What is enforced, in the order in which it is tried."""
        limits = (
            LimitConfig(match="*:free", requests_per_minute=20, requests_per_day=50),
            LimitConfig(match="*", per_model=True),
        )
        limited = replace(config.providers["kimi"], limits=limits)
        changed = replace(config, providers={**config.providers, "kimi": limited})
        report = check(changed, {"KIMI_API_KEY": KEY}, answers)

        assert [row.found for row in report.rows if row.subject == "kimi"] == [
            "registered, key present: KIMI_API_KEY in the environment",
            "limits: *:free 20 requests/minute, 50 requests/day; * each learned",
        ]

    def test_its_lines_begin_with_the_verdict(self, config: ChatdConfig) -> None:
        """One line a row, in columns."""
        lines = check(config, {}, answers).lines

        assert lines[1] == "ok    ollama        registered, key not needed: ollama_url is set"
        assert lines[-1] == "ok    redis         answers"


class TestProviders:
    """One row for each of the five."""

    def test_all_are_listed(self, config: ChatdConfig) -> None:
        """Registered or not, in their fixed order."""
        found = provider_rows(config, {"KIMI_API_KEY": KEY})

        assert tuple(row.name for row in found) == PROVIDERS
        assert [row.registered for row in found] == [True, False, False, False, True]
        assert found[-1] == ProviderRow(
            name="kimi",
            registered=True,
            key="present",
            base_url="https://api.kimi.com/coding/v1",
            concurrency=8,
            why="KIMI_API_KEY in the environment",
        )

    def test_a_switched_off_one_still_says_whether_it_has_a_key(self, config: ChatdConfig) -> None:
        """The key is there; it is the switch that keeps the provider out."""
        off = replace(config.providers["kimi"], enabled=False)
        changed = replace(config, providers={**config.providers, "kimi": off})
        row = provider_rows(changed, {"KIMI_API_KEY": KEY})[-1]

        assert (row.registered, row.key) == (False, "present")
        assert "enabled = false" in row.why

    def test_a_row_is_one_line_without_a_key(self, config: ChatdConfig) -> None:
        """Ready to print."""
        lines = [str(row) for row in provider_rows(config, {"KIMI_API_KEY": KEY})]

        assert lines[0] == (
            "ollama        registered      key not needed     4 at a time"
            "  http://localhost:11434  ollama_url is set"
        )
        assert all("\n" not in line and KEY not in line for line in lines)
