"""The units of systemd say the same as the defaults of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from chat.config import load_config
from chat.keys import resolve_key
from chat.registry import registered
from cli.redis_server import max_memory
from tests.pages import indented, page
from tests.servers import ROOT
from tests.units import SERVICES, UNITS, Unit

CLOUDS = ("ollama_cloud", "openrouter", "opencode", "kimi")


@pytest.fixture
def config():
    """The file that is installed, with its defaults."""
    return load_config(ROOT / "lakehouse.toml")


@pytest.mark.parametrize("name", SERVICES)
def test_each_process_has_the_time_that_a_call_takes(name, config):
    """And 30 s; that is more than callers are waited for when the front end ends."""
    stop_s = int(Unit(name).one("TimeoutStopSec"))

    assert stop_s == config.timeout_s + 30
    assert stop_s > config.drain_s + 5


def test_the_port_is_that_of_the_configuration(config):
    """The front end would refuse another one."""
    assert Unit("chatd-api.socket").one("ListenStream") == config.bind


def test_redis_has_the_memory_that_chatd_would_give_it(config):
    """So that new jobs are refused before it is full."""
    lines = (UNITS / "redis.conf").read_text("utf-8").splitlines()

    assert f"maxmemory {max_memory(config)}" in lines
    assert f"appendfsync {config.durability}" in lines


@pytest.mark.parametrize("name", [*SERVICES, "chatd-redis.service"])
def test_all_are_protected_alike(name):
    """What one of them gives up, all do; they are told apart above that."""
    assert Unit(name).after("NoNewPrivileges") == Unit(SERVICES[0]).after("NoNewPrivileges")


@pytest.mark.parametrize("name", SERVICES)
def test_each_is_started_anew_and_says_when_it_is_ready(name):
    """Whatever it died of, and however often."""
    unit = Unit(name)

    assert (unit.one("Restart"), unit.one("StartLimitIntervalSec")) == ("always", "0")
    assert unit.one("Type") == "notify"


def test_workers_alone_have_a_key():
    """And a user of their own, into whose processes the others cannot look."""
    front_end, keeper, worker = (Unit(name, "kimi-1") for name in SERVICES)

    assert worker.all("EnvironmentFile") == ["/etc/lakehouse/kimi-1.env"]
    assert front_end.all("EnvironmentFile") == keeper.all("EnvironmentFile") == []
    assert front_end.one("User") == keeper.one("User") != worker.one("User")


@pytest.mark.parametrize("provider", CLOUDS)
def test_the_templates_of_key_files_fit(provider, config, tmp_path):
    """As they are they set nothing; with a key, a worker's environment has it."""
    template = (ROOT / "deploy" / "etc" / f"{provider}.env").read_text("utf-8")
    key_env = config.providers[provider].key_env
    etc = tmp_path / "lakehouse"
    etc.mkdir()
    unit = Unit("chatd-worker@.service", f"{provider}-1")
    (etc / f"{provider}-1.env").symlink_to(f"{provider}.env")

    def environment(text):
        (etc / f"{provider}.env").write_text(text, "utf-8")
        return unit.environment(tmp_path)

    found = environment(template.replace(f"#{key_env}=", f"{key_env}=sk-1"))
    secret = resolve_key(config.providers[provider], found).secret

    assert key_env not in environment(template)
    assert secret is not None
    assert secret.reveal() == "sk-1"


@pytest.mark.parametrize("provider", CLOUDS)
def test_the_page_registers_a_provider_where_no_key_is_seen(provider, tmp_path):
    """The line that it takes the "#" from is the one of that provider."""
    line = indented(page("deploy/systemd/README.md"), "provider=openrouter").splitlines()[1]
    assert line.startswith(r'sed -i "/^\[chatd.providers.$provider\]/,/^$/ s/^#enabled/enabled/"')
    head, table, rest = (
        (ROOT / "lakehouse.toml").read_text("utf-8").partition(f"[chatd.providers.{provider}]\n")
    )
    section, blank, tail = rest.partition("\n\n")
    text = head + table + section.replace("#enabled", "enabled") + blank + tail
    file = Path(tmp_path / "lakehouse.toml")
    file.write_text(text.replace("/etc/lakehouse", "/nonexistent"), "utf-8")

    assert registered(load_config(file), {}).names == ("ollama", provider)
