"""The configuration: where it is looked for, what holds by default, and what is read."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.config import (
    REDIS_URL,
    ChatdConfig,
    KeyConfig,
    LimitConfig,
    ProviderConfig,
    load_config,
)
from chat.errors import ConfigError
from chat.routing import PROVIDERS, resolve
from chat.tables import Table

SHIPPED = Path(__file__).parents[2] / "lakehouse.toml"

Load = Callable[..., ChatdConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a configuration from text."""

    def load(text: str, environ: dict[str, str] | None = None) -> ChatdConfig:
        file = tmp_path / "chatd.toml"
        file.write_text(text, encoding="utf-8")
        return load_config(file, environ or {})

    return load


class TestWhereItIsLookedFor:
    """One file is read, and the nearest one wins."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> dict[str, Path]:
        """Four files, each with a port that tells it from the others."""
        files = {}
        for port, name in enumerate(("option", "variable", "near", "far"), start=1001):
            files[name] = tmp_path / f"{name}.toml"
            files[name].write_text(f'[chatd]\nbind = "127.0.0.1:{port}"\n', encoding="utf-8")
        return files

    @pytest.mark.parametrize(
        ("option", "variable", "places", "found"),
        [
            pytest.param(True, True, ["near", "far"], "option", id="the option before all"),
            pytest.param(False, True, ["near", "far"], "variable", id="then the variable"),
            pytest.param(False, False, ["near", "far"], "near", id="then the first place"),
            pytest.param(False, False, ["nowhere", "far"], "far", id="then the next place"),
        ],
    )
    def test_the_first_of_the_search_order_counts(
        self,
        files: dict[str, Path],
        tmp_path: Path,
        *,
        option: bool,
        variable: bool,
        places: list[str],
        found: str,
    ) -> None:
        """The option, then the variable, then each place in turn."""
        config = load_config(
            files["option"] if option else None,
            {"LAKEHOUSE_CONFIG": str(files["variable"])} if variable else {},
            places=[tmp_path / f"{name}.toml" for name in places],
        )

        assert config.source == files[found]
        assert config.port == 1001 + list(files).index(found)

    def test_the_places_are_the_working_directory_and_etc(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without option and variable, ./lakehouse.toml is found, and its source is absolute."""
        (tmp_path / "lakehouse.toml").write_text('[chatd]\nlog_level = "debug"\n')
        monkeypatch.chdir(tmp_path)

        config = load_config(None, {})

        assert config.log_level == "debug"
        assert config.source == tmp_path / "lakehouse.toml"

    @pytest.mark.parametrize("variable", [{}, {"LAKEHOUSE_CONFIG": ""}], ids=["unset", "empty"])
    def test_no_file_is_the_defaults(self, tmp_path: Path, variable: dict[str, str]) -> None:
        """When there is no file, the defaults hold and there is no source."""
        config = load_config(None, variable, places=[tmp_path / "none.toml"])

        assert config == ChatdConfig()
        assert config.source is None

    @pytest.mark.parametrize(
        ("option", "origin"),
        [
            pytest.param(True, "--config", id="option"),
            pytest.param(False, "LAKEHOUSE_CONFIG", id="variable"),
        ],
    )
    def test_a_named_file_has_to_exist(self, tmp_path: Path, *, option: bool, origin: str) -> None:
        """A file somebody named is not replaced in silence by another one."""
        gone = tmp_path / "gone.toml"
        with pytest.raises(ConfigError) as caught:
            load_config(
                gone if option else None,
                {} if option else {"LAKEHOUSE_CONFIG": str(gone)},
                places=[SHIPPED],
            )

        assert f"{gone}: there is no such file; correct {origin}" in str(caught.value)

    def test_a_file_that_is_there_has_to_be_readable(self, tmp_path: Path) -> None:
        """A place that cannot be read is an error, not the next place."""
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config(None, {}, places=[tmp_path, SHIPPED])

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            pytest.param(b"[chatd", "is not TOML", id="not TOML"),
            pytest.param(b"[chatd]\nx = \xff\n", "is not UTF-8 text", id="not UTF-8"),
            pytest.param(b"x = " + b"9" * 5000, "is not TOML", id="a number too long to read"),
        ],
    )
    def test_a_broken_file_is_named(self, tmp_path: Path, content: bytes, words: str) -> None:
        """The message says which file is broken and how."""
        file = tmp_path / "broken.toml"
        file.write_bytes(content)

        with pytest.raises(ConfigError) as caught:
            load_config(file, {})

        assert f"{file}: {words}" in str(caught.value)


class TestTheShippedFile:
    """lakehouse.toml in the project documents every key with its default."""

    def test_it_says_the_defaults(self) -> None:
        """Loading it gives the defaults, but for the models and the file's own name."""
        config = load_config(SHIPPED, {})

        assert ChatdConfig() == dataclasses.replace(config, models={}, weak_models=(), source=None)

    def test_it_has_every_key(self) -> None:
        """Every field of every dataclass stands in it, as a setting or behind a ``#``."""
        text = re.sub(r"^#(?=\S)", "", SHIPPED.read_text(encoding="utf-8"), flags=re.MULTILINE)
        tables: dict[str, Any] = tomllib.loads(text)
        chatd = {f.name for f in dataclasses.fields(ChatdConfig)}
        chatd -= {"models", "weak_models", "gateway", "source", "on_lost_call"}
        chatd |= {"on_lost_call_interactive", "on_lost_call_batch", "ollama_cloud_api"}
        keyed = {"enabled", "concurrency", "base_url", "key_env", "key_name", "key_file"}
        limit = tables["chatd"]["providers"]["openrouter"].pop("limits")[0]
        (key,) = tables["chatd"]["keys"]

        assert set(key) == {f.name for f in dataclasses.fields(KeyConfig)}

        assert set(tables) == {"gateway", "chatd", "models"}
        assert set(tables["chatd"]) == chatd
        assert set(tables["gateway"]) == {"bind", "chatd_url"}
        # What every provider can have is written out once.
        common = {"workers", "learn", "max_interactive", "max_batch"}
        common |= {"max_interactive_bytes", "max_batch_bytes"}
        assert {name: set(table) for name, table in tables["chatd"]["providers"].items()} == {
            "ollama": {"enabled", "concurrency"},
            "ollama_cloud": keyed,
            "openrouter": keyed | common,
            "opencode": keyed | {"go_base_url"},
            "kimi": keyed,
        }
        assert keyed | common | {"go_base_url"} == {
            f.name for f in dataclasses.fields(ProviderConfig)
        } - {"name", "api", "limits", "known"}
        assert set(limit) == {f.name for f in dataclasses.fields(LimitConfig)}

    def test_its_examples_are_valid(self, load: Load) -> None:
        """With every ``#`` before a key taken off, it still loads."""
        text = re.sub(r"^#(?=\S)", "", SHIPPED.read_text(encoding="utf-8"), flags=re.MULTILINE)

        config = load(text)

        assert all(config.providers[name].enabled for name in PROVIDERS)
        assert config.providers["openrouter"].limits == (
            LimitConfig(
                match="*:free",
                requests_per_minute=20,
                requests_per_day=50,
                tokens_per_minute=100000,
            ),
        )

    def test_its_tiers_lead_where_their_names_say(self) -> None:
        """Local tiers are local, cloud tiers Ollama Cloud's, and free ones OpenCode's."""
        config = load_config(SHIPPED, {})
        providers = {tier: resolve(tier, config.models).provider for tier in config.models}

        assert providers == {
            "local_fast": "ollama",
            "local_embed": "ollama",
            "local_judge": "ollama",
            "local_review": "ollama",
            "cloud_judge": "ollama_cloud",
            "cloud_review": "ollama_cloud",
            "cloud_strong": "ollama_cloud",
            "frontier_review": "openrouter",
            "frontier_arch": "openrouter",
            "frontier_strong": "openrouter",
            "frontier_free": "opencode",
        }
        assert config.weak_models


class TestDefaults:
    """What holds when nothing is written."""

    def test_every_provider_has_its_own(self) -> None:
        """Address, concurrency and key of each provider."""
        providers = ChatdConfig().providers.values()

        assert {p.name: (p.base_url, p.concurrency, p.key_env) for p in providers} == {
            "ollama": ("http://localhost:11434", 4, ""),
            "ollama_cloud": ("https://ollama.com", 3, "OLLAMA_CLOUD_KEY"),
            "openrouter": ("https://openrouter.ai/api/v1", 16, "OPENROUTER_API_KEY"),
            "opencode": ("https://opencode.ai/zen/v1", 8, "OPENCODE_API_KEY"),
            "kimi": ("https://api.kimi.com/coding/v1", 8, "KIMI_API_KEY"),
        }
        assert tuple(p.name for p in providers) == PROVIDERS
        assert all(p.key_file in ("", f"/etc/lakehouse/{p.name}.env") for p in providers)
        assert all(p.key_name == p.key_env for p in providers)

    def test_an_empty_file_changes_nothing(self, load: Load) -> None:
        """Every table and key may be left out."""
        assert dataclasses.replace(load(""), source=None) == ChatdConfig()

    def test_a_timeout_of_zero_is_the_default(self, load: Load) -> None:
        """0 and an absent key mean the same 180 seconds."""
        assert load("[chatd]\ntimeout_s = 0").timeout_s == load("").timeout_s == 180

    def test_key_name_follows_key_env(self, load: Load) -> None:
        """Whoever renames the variable renames the line in the file, unless it is named itself."""
        kimi = load('[chatd.providers.kimi]\nkey_env = "MY_KEY"').providers["kimi"]
        named = load('[chatd.providers.kimi]\nkey_env = "A"\nkey_name = "B"').providers["kimi"]

        assert (kimi.key_env, kimi.key_name) == ("MY_KEY", "MY_KEY")
        assert (named.key_env, named.key_name) == ("A", "B")


class TestValues:
    """What is written arrives."""

    def test_settings_of_chatd_arrive(self, load: Load) -> None:
        """Each kind of value is read as what it means."""
        config = load("""
            [gateway]
            bind = "0.0.0.0:3110"
            chatd_url = "http://127.0.0.1:4000/"
            [chatd]
            bind = "[::1]:4000"
            timeout_s = 2.5
            drain_s = 0
            max_queued_bytes = "1GiB"
            body_limit = 4096
            allow_local_cloud = true
            on_lost_call_interactive = "retry"
            redis_url = "unix:///run/redis.sock?db=1"
            ollama_cloud_api = "generate"
            [models]
            fast = "qwen3:8b"
            weak_models = ["fast", "llama3.2"]
        """)

        assert (config.host, config.port) == ("::1", 4000)
        assert config.gateway.bind == "0.0.0.0:3110"
        assert config.gateway.chatd_url == "http://127.0.0.1:4000"
        assert (config.timeout_s, config.drain_s) == (2.5, 0)
        assert config.max_queued_bytes == 2**30
        assert config.body_limit == 4096
        assert config.allow_local_cloud is True
        assert config.on_lost_call == {"interactive": "retry", "batch": "retry"}
        assert config.redis_url == "unix:///run/redis.sock?db=1"
        assert config.providers["ollama_cloud"].api == "generate"
        assert config.models == {"fast": "qwen3:8b"}
        assert config.weak_models == ("fast", "llama3.2")

    def test_settings_of_providers_arrive(self, load: Load) -> None:
        """Each provider has its own; slashes at the end of a URL come off."""
        config = load("""
            [chatd]
            ollama_url = "http://10.0.0.5:11434//"
            [chatd.providers.ollama]
            concurrency = 2
            workers = 3
            [chatd.providers.opencode]
            enabled = false
            base_url = "http://localhost:9000/zen/"
            go_base_url = "http://localhost:9000/go/"
            key_file = ""
        """)

        ollama, opencode = config.providers["ollama"], config.providers["opencode"]
        assert config.ollama_url == ollama.base_url == "http://10.0.0.5:11434"
        assert (ollama.concurrency, ollama.workers, opencode.workers) == (2, 3, 1)
        assert opencode.enabled is False
        assert opencode.base_url == "http://localhost:9000/zen"
        assert opencode.go_base_url == "http://localhost:9000/go"
        assert opencode.key_file == ""

    def test_ollama_url_may_be_empty(self, load: Load) -> None:
        """An empty URL is how local Ollama is left out."""
        assert load('[chatd]\nollama_url = ""').providers["ollama"].base_url == ""

    def test_the_address_of_ollama_has_one_place(self) -> None:
        """However the configuration is built, ``ollama_url`` is the base URL of ollama."""
        config = ChatdConfig(ollama_url="http://10.0.0.5:11434")

        assert config.providers["ollama"].base_url == "http://10.0.0.5:11434"

    def test_a_password_of_redis_is_not_shown(self, load: Load) -> None:
        """The configuration can be printed."""
        config = load('[chatd]\nredis_url = "redis://:hunter2@localhost:6379/0"')

        assert "hunter2" in config.redis_url
        assert "hunter2" not in repr(config)

    def test_the_environment_may_name_another_redis(self, load: Load) -> None:
        """Each process its own, with a user of its own; an empty variable names none."""
        text = '[chatd]\nredis_url = "redis://localhost:6379/0"'
        other = "redis://keeper:hunter2@localhost:6379/0"

        assert load(text, {REDIS_URL: other}).redis_url == other
        assert load(text, {REDIS_URL: ""}).redis_url == "redis://localhost:6379/0"
        assert load_config(None, {REDIS_URL: other}, places=()).redis_url == other

    def test_what_the_environment_says_is_checked(self, load: Load) -> None:
        """The message names the variable, and no password."""
        with pytest.raises(ConfigError, match="CHATD_REDIS_URL in the environment does") as error:
            load("", {REDIS_URL: "tcp://:hunter2@x"})

        assert "hunter2" not in str(error.value)


class TestStateDirectory:
    """Where state goes when ``data_dir`` does not say."""

    def test_xdg_comes_first(self, load: Load, tmp_path: Path) -> None:
        """$XDG_STATE_HOME/chatd."""
        environ = {"XDG_STATE_HOME": "/srv/state", "HOME": str(tmp_path)}

        assert load("", environ).data_dir == Path("/srv/state/chatd")

    @pytest.mark.parametrize("xdg", ["", "state"], ids=["empty", "relative"])
    def test_home_comes_next(self, load: Load, tmp_path: Path, xdg: str) -> None:
        """The specification has relative paths ignored; nothing is created by asking."""
        config = load("", {"XDG_STATE_HOME": xdg, "HOME": str(tmp_path)})

        assert config.data_dir == tmp_path / ".local" / "state" / "chatd"
        assert not (tmp_path / ".local").exists()

    def test_an_unusable_home_is_passed_over(self, load: Load, tmp_path: Path) -> None:
        """A home that is not there, or where no directory can be made, leaves ./var."""
        (tmp_path / ".local").write_text("a file where a directory should be")
        homes = ["", "relative", str(tmp_path / "gone"), str(tmp_path)]

        assert {load("", {"HOME": home}).data_dir for home in homes} == {Path("var")}

    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            pytest.param("/srv/chatd", "/srv/chatd", id="absolute"),
            pytest.param("data", "data", id="relative"),
            pytest.param("~/data", "/home/me/data", id="below home"),
            pytest.param("~", "/home/me", id="home"),
        ],
    )
    def test_a_written_one_wins(self, load: Load, written: str, expected: str) -> None:
        """``data_dir`` is taken as written; ``~`` is the home directory."""
        environ = {"XDG_STATE_HOME": "/srv/state", "HOME": "/home/me"}
        config = load(f'[chatd]\ndata_dir = "{written}"', environ)

        assert config.data_dir == Path(expected)

    def test_a_tilde_needs_a_home(self, load: Load) -> None:
        """No directory named ``~`` is ever made."""
        with pytest.raises(ConfigError, match="HOME is not set"):
            load('[chatd]\ndata_dir = "~/x"')


@settings(deadline=None)
@given(st.integers(1, 2**20), st.sampled_from(["B", "KiB", "MiB", "GiB"]))
def test_sizes_are_powers_of_1024(number: int, unit: str) -> None:
    """A size with a unit is that many bytes."""
    size = Table({"size": f"{number}{unit}"}, file="f").size("size", 1)

    assert size == number * 1024 ** ["B", "KiB", "MiB", "GiB"].index(unit)
