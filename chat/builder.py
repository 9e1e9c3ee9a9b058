"""From the configuration to providers that can be called: the only module that names their classes.

Only workers build providers; the front end and the command line need ``chat.registry`` alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from chat.errors import ConfigError
from chat.keys import resolve_key
from chat.providers.ollama import Ollama
from chat.providers.ollama_cloud import OllamaCloud
from chat.providers.openai_compat import kimi, opencode, openrouter
from chat.providers.upstream import Upstream
from chat.registry import Registry, registered
from chat.routing import PROVIDERS
from chat.settings import ChatdConfig
from chat.types import Provider

__all__ = ["build_provider", "build_registry"]


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
    return Registry(providers, {name: missing.remedy for name, missing in names.missing.items()})


def build_provider(config: ChatdConfig, name: str, environ: Mapping[str, str]) -> Provider:
    """One provider, with its key if it has one.

    Raises ``ConfigError`` for a name that no provider has, and for one that is not registered.
    """
    _check_name(name)
    missing = registered(config, environ).missing.get(name)
    if missing is not None:
        raise ConfigError(f"provider {name} is not registered: {missing}")
    settings = config.providers[name]
    secret = resolve_key(settings, environ).secret
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


def _check_name(name: str) -> None:
    if name not in PROVIDERS:
        raise ConfigError(f'there is no provider "{name}"; there are {", ".join(PROVIDERS)}')
