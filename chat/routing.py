"""From a model name to a route: which provider is asked, and for which id of its own.

Pure: it knows the names of the providers, not which of them are registered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from chat.errors import InvalidRequest

__all__ = ["PROVIDERS", "Route", "quoted", "resolve"]

#: Every provider there is, the default first.
PROVIDERS = ("ollama", "ollama_cloud", "openrouter", "opencode", "kimi")

_CLOUD_SUFFIX = ":cloud"
_GO_PREFIX = "opencode-go/"
_LONGEST_QUOTE = 120


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes: a provider and the id that this provider expects on its wire.

    One id keeps its prefix: ``opencode-go/<model>``, by which the OpenCode provider tells its
    second base URL from its first.
    """

    provider: str
    model: str


def resolve(
    model: str, models: Mapping[str, str] | None = None, *, allow_local_cloud: bool = False
) -> Route:
    """The route of ``model``, which is a tier of ``models``, a prefixed id, or a local id.

    A tier is looked up once, first. Then a provider's prefix decides, then the suffix ``:cloud``
    (any letter case), and whatever is left goes to local Ollama untouched.

    Raises ``InvalidRequest`` for a name that is empty, has spaces around it, or has no id left
    once its prefix and suffix are off; and, unless ``allow_local_cloud``, for a local id that the
    Ollama daemon would itself forward to ollama.com.
    """
    _check_name(model, model)
    route = _routed((models or {}).get(model, model))
    _check_name(route.model.removeprefix(_GO_PREFIX), model)
    if route.provider == "ollama" and not allow_local_cloud:
        _refuse_local_cloud(route.model, model)
    return route


def quoted(model: str) -> str:
    """``model`` for a message: in quotes, control characters escaped, shortened when long."""
    if len(model) > _LONGEST_QUOTE:
        model = model[:_LONGEST_QUOTE] + "…"
    return json.dumps(model, ensure_ascii=False)


def _routed(target: str) -> Route:
    if target.startswith(_GO_PREFIX):
        return Route("opencode", target)
    prefix, slash, rest = target.partition("/")
    if slash and prefix in PROVIDERS:
        if prefix == "ollama_cloud":
            rest = _without_suffix(rest)
        elif prefix == "openrouter" and rest and "/" not in rest:
            # Every OpenRouter id is vendor/model, and of its own models (openrouter/auto,
            # openrouter/free) the vendor is openrouter: no slash left means that it was no prefix.
            rest = target
        return Route(prefix, rest)
    local = _without_suffix(target)
    if local != target:
        return Route("ollama_cloud", local)
    return Route("ollama", target)


def _without_suffix(model: str) -> str:
    """``model`` without its last ``:cloud``; ollama.com knows its models without it."""
    if model.lower().endswith(_CLOUD_SUFFIX):
        return model[: -len(_CLOUD_SUFFIX)]
    return model


def _check_name(name: str, model: str) -> None:
    if not name:
        raise InvalidRequest(
            f"model {quoted(model)} names no model; write one, such as qwen3:8b, qwen3:8b:cloud"
            " or openrouter/openai/gpt-4o-mini",
            param="model",
        )
    if name != name.strip():
        raise InvalidRequest(
            f"model {quoted(model)} has spaces around its name; leave them out", param="model"
        )


def _refuse_local_cloud(local: str, model: str) -> None:
    """Refuse ids that a daemon reads as its own cloud's (Ollama internal/modelref/modelref.go).

    Those are a tag ``cloud`` or one that ends in ``-cloud``, in any letter case, the tag being
    what follows the last colon unless a slash comes after it. Forwarded, they are billed to the
    account the daemon is signed in with, though the caller asked for a local model.
    """
    base, colon, tag = local.rpartition(":")
    tag = tag.strip()
    if not colon or "/" in tag:
        return
    if tag.lower() == "cloud":
        cloud_id = base
    elif tag.lower().endswith("-cloud"):
        cloud_id = f"{base}:{tag[: -len('-cloud')]}".removesuffix(":")
    else:
        return
    _check_name(base, model)
    raise InvalidRequest(
        f"model {quoted(model)}: a local Ollama would forward it to ollama.com and have it billed"
        f" there; ask Ollama Cloud for {quoted(cloud_id + _CLOUD_SUFFIX)}, or set"
        " allow_local_cloud = true in [chatd]",
        param="model",
    )
