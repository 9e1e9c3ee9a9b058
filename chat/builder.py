"""From the configuration to providers that can be called: the only module that names their classes.

Only workers build providers; the front end and the command line need ``chat.registry`` alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from chat.errors import ConfigError
from chat.keys import Secret, resolve_key
from chat.providers.catalogue import ModelSource, ollama_listing, openai_listing
from chat.providers.ollama import Ollama
from chat.providers.ollama_cloud import OllamaCloud
from chat.providers.openai_compat import kimi, opencode, openrouter
from chat.providers.upstream import Upstream
from chat.registry import Registry, registered
from chat.routing import PROVIDERS
from chat.settings import ChatdConfig, ProviderConfig
from chat.types import Provider

__all__ = ["build_model_source", "build_provider", "build_registry"]

#: The largest list of models that is read. OpenRouter describes each of its hundreds at length.
_MOST_LIST_BYTES = 8 * 1024 * 1024


def build_registry(
    config: ChatdConfig, environ: Mapping[str, str], only: Collection[str] | None = None
) -> Registry:
    """A registry of every registered provider, or of those among ``only``.

    One of ``only`` that is not registered is no error: its jobs then fail with a message that says
    why. Raises ``ConfigError`` for a name that no provider has.
    """
    for name in only or ():
        _check_name(name)
    names = registered(config, environ)
    providers = {
        name: build_provider(config, name, environ)
        for name in names.names
        if only is None or name in only
    }
    remedies = {name: missing.remedy for name, missing in names.missing.items()}
    return Registry(providers, remedies, prices=config.prices)


def build_provider(config: ChatdConfig, name: str, environ: Mapping[str, str]) -> Provider:
    """One provider, with its key if it has one.

    Raises ``ConfigError`` for a name that no provider has, and for one that is not registered.
    """
    settings, secret = _registered(config, name, environ)
    upstream = Upstream(name, settings.base_url, secret=secret)
    match name:
        case "ollama":
            return Ollama(upstream)
        case "ollama_cloud":
            return OllamaCloud(upstream, api=settings.api)
        case "openrouter":
            return openrouter(upstream)
        case "opencode":
            if settings.go_base_url is None:
                raise ConfigError("opencode has no go_base_url; write OpenCode Go's base URL")
            return opencode(upstream, Upstream(name, settings.go_base_url, secret=secret))
        case "kimi":
            return kimi(upstream)
        case _:
            raise AssertionError(f"{name} is in PROVIDERS and has no line here")


def build_model_source(config: ChatdConfig, name: str, environ: Mapping[str, str]) -> ModelSource:
    """What lists the models of one provider, over connections of its own.

    Raises ``ConfigError`` as ``build_provider`` does.
    """
    settings, secret = _registered(config, name, environ)

    def upstream(base_url: str) -> Upstream:
        return Upstream(name, base_url, secret=secret, max_body_bytes=_MOST_LIST_BYTES)

    if name in ("ollama", "ollama_cloud"):
        return ModelSource(ollama_listing(upstream(settings.base_url)))
    listings = [openai_listing(upstream(settings.base_url))]
    if settings.go_base_url is not None:
        listings.append(openai_listing(upstream(settings.go_base_url), prefix="opencode-go/"))
    return ModelSource(*listings)


def _registered(
    config: ChatdConfig, name: str, environ: Mapping[str, str]
) -> tuple[ProviderConfig, Secret | None]:
    """The settings of a registered provider, and its key if it has one."""
    _check_name(name)
    missing = registered(config, environ).missing.get(name)
    if missing is not None:
        raise ConfigError(f"provider {name} is not registered: {missing}")
    settings = config.providers[name]
    return settings, resolve_key(settings, environ).secret


def _check_name(name: str) -> None:
    if name not in PROVIDERS:
        raise ConfigError(f'there is no provider "{name}"; there are {", ".join(PROVIDERS)}')
