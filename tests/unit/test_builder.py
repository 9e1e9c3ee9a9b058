"""The builder: every registered provider becomes one that can be called, with its own settings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chat.builder import build_provider, build_registry
from chat.config import ChatdConfig
from chat.errors import ConfigError, ProviderNotRegistered
from chat.keys import Secret
from chat.providers.ollama import Ollama
from chat.providers.ollama_cloud import OllamaCloud
from chat.providers.openai_compat import OpenAICompat
from chat.providers.upstream import Upstream
from chat.registry import Route
from chat.routing import PROVIDERS
from chat.types import Cancelled, ChatRequest, Deadline, Message, Provider, Role

ENVIRON = {
    "OLLAMA_CLOUD_KEY": "key-of-ollama_cloud",
    "OPENROUTER_API_KEY": "key-of-openrouter",
    "OPENCODE_API_KEY": "key-of-opencode",
    "KIMI_API_KEY": "key-of-kimi",
}


@pytest.fixture
def config() -> ChatdConfig:
    """The defaults without key files, which the machine that runs this might have."""
    config = ChatdConfig()
    return replace(
        config,
        providers={name: replace(p, key_file="") for name, p in config.providers.items()},
    )


def upstream_of(provider: Provider) -> Upstream:
    """Where a provider posts to."""
    assert isinstance(provider, Ollama | OllamaCloud | OpenAICompat)
    return provider._upstream


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_provider_is_built(config: ChatdConfig, name: str) -> None:
    """Under its own name, with its own address and its own key; Ollama has none."""
    upstream = upstream_of(provider := build_provider(config, name, ENVIRON))

    assert provider.name == upstream.name == name
    assert repr(upstream) == f"Upstream('{name}', '{config.providers[name].base_url}')"
    assert upstream._secret == (None if name == "ollama" else Secret(f"key-of-{name}"))


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_address_is_configured(config: ChatdConfig, name: str) -> None:
    """``base_url``, or ``ollama_url``, is where calls go."""
    url = "http://127.0.0.1:9/x"
    there = replace(
        config,
        ollama_url=url,
        providers={n: replace(p, base_url=url) for n, p in config.providers.items()},
    )

    assert repr(upstream_of(build_provider(there, name, ENVIRON))) == f"Upstream('{name}', '{url}')"


def test_opencode_has_two_catalogues(config: ChatdConfig) -> None:
    """Models of Go go to Go's address, with the same key."""
    provider = build_provider(config, "opencode", ENVIRON)
    assert isinstance(provider, OpenAICompat)
    ((prefix, go),) = provider._catalogues.items()

    assert prefix == "opencode-go/"
    assert repr(go) == "Upstream('opencode', 'https://opencode.ai/zen/go/v1')"
    assert go._secret == Secret("key-of-opencode")


def test_opencode_needs_both_addresses(config: ChatdConfig) -> None:
    """Go's models never go to Zen instead, where they would be paid for otherwise."""
    bare = replace(config.providers["opencode"], go_base_url=None)
    changed = replace(config, providers={**config.providers, "opencode": bare})

    with pytest.raises(ConfigError, match="no go_base_url"):
        build_provider(changed, "opencode", ENVIRON)


@pytest.mark.parametrize("api", ["auto", "generate", "chat"])
def test_the_call_of_ollama_cloud_is_configured(config: ChatdConfig, api: str) -> None:
    """``ollama_cloud_api`` reaches the provider."""
    cloud = replace(config.providers["ollama_cloud"], api=api)
    changed = replace(config, providers={**config.providers, "ollama_cloud": cloud})
    provider = build_provider(changed, "ollama_cloud", ENVIRON)
    assert isinstance(provider, OllamaCloud)

    assert provider._api == api


def test_one_that_is_not_registered_is_refused(config: ChatdConfig) -> None:
    """A worker that is started for it learns why and what to do."""
    with pytest.raises(ConfigError) as caught:
        build_provider(config, "kimi", {})

    assert str(caught.value) == (
        "provider kimi is not registered: KIMI_API_KEY is not set in the environment and no"
        " key_file is configured; set KIMI_API_KEY"
    )


def test_one_that_is_enabled_without_a_key_is_built_without_it(config: ChatdConfig) -> None:
    """A proxy adds the key."""
    kimi = replace(config.providers["kimi"], enabled=True)
    changed = replace(config, providers={**config.providers, "kimi": kimi})

    assert upstream_of(build_provider(changed, "kimi", {}))._secret is None


def test_an_unknown_one_is_refused(config: ChatdConfig) -> None:
    """The message has the names there are."""
    with pytest.raises(ConfigError, match='no provider "kimmi"; there are ollama, ollama_cloud'):
        build_provider(config, "kimmi", {})
    with pytest.raises(ConfigError, match='no provider "kimmi"'):
        build_registry(config, {}, only=["kimmi"])


class TestRegistry:
    """A registry has the registered providers, or some of them."""

    @pytest.mark.parametrize(
        ("environ", "only", "names"),
        [
            pytest.param(ENVIRON, None, PROVIDERS, id="all"),
            pytest.param({}, None, ("ollama",), id="registered ones"),
            pytest.param(ENVIRON, ["kimi"], ("kimi",), id="one"),
            pytest.param({}, ["kimi"], (), id="one that is not registered"),
            pytest.param(ENVIRON, [], (), id="none"),
        ],
    )
    def test_it_has_what_was_asked_for(
        self,
        config: ChatdConfig,
        environ: dict[str, str],
        only: list[str] | None,
        names: tuple[str, ...],
    ) -> None:
        """Asking for one that is not registered is no error."""
        assert build_registry(config, environ, only).names == names

    @pytest.mark.parametrize(
        ("environ", "remedy"),
        [
            pytest.param({}, "set KIMI_API_KEY", id="not registered"),
            pytest.param(ENVIRON, "start a worker for it", id="not among those asked for"),
        ],
    )
    def test_a_job_of_one_that_is_not_there_is_told_why(
        self, config: ChatdConfig, environ: dict[str, str], remedy: str
    ) -> None:
        """The error has the way out."""
        registry = build_registry(config, environ, only=["ollama"])
        request = ChatRequest("kimi/k3", (Message(Role.USER, "hello"),))
        with pytest.raises(ProviderNotRegistered) as caught:
            registry.chat(
                Route("kimi", "k3"), request, deadline=Deadline(at=1e12), cancelled=Cancelled()
            )

        assert caught.value.message == (
            f'model "kimi/k3": provider kimi is not registered; {remedy}'
        )
