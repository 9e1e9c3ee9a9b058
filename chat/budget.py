"""Budgets as values: what a provider allows for which models. The decisions are in ``chat/lua``.

A budget is shared by all workers through Redis: a rate, a day's requests, tokens a minute and a
cool-down. Permits (``concurrency``) belong to the provider as a whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from chat.settings import LimitConfig, ProviderConfig
from chat.types import ChatRequest

if TYPE_CHECKING:
    from chat.settings import ChatdConfig

__all__ = ["Budget", "budget_of", "estimated_tokens", "limits_of", "settings_of"]

_REST = LimitConfig(match="*")

_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_IMAGE = 1000
_USUAL_ANSWER = 512


@dataclass(frozen=True, slots=True)
class Budget:
    """Which budget a call uses: ``name`` is its key in Redis, ``match`` the limit it has."""

    name: str
    match: str


def limits_of(provider: ProviderConfig) -> tuple[LimitConfig, ...]:
    """The limits of a provider in the order they are tried; the last one fits every model."""
    limits = (*provider.limits, *provider.known)
    return limits if any(limit.match == "*" for limit in limits) else (*limits, _REST)


def budget_of(provider: ProviderConfig, model: str) -> Budget:
    """The budget that a call of ``model`` (as the upstream knows it) counts against."""
    limit = next(limit for limit in limits_of(provider) if fnmatchcase(model, limit.match))
    scope = model if limit.per_model else limit.match
    return Budget(f"{provider.name}:{scope}", limit.match)


def estimated_tokens(request: ChatRequest) -> int:
    """About how many tokens a call takes, answer included; the true count comes with the answer."""
    characters = sum(len(message.content) for message in request.messages)
    images = sum(len(message.images) for message in request.messages)
    answer = request.max_tokens or _USUAL_ANSWER
    return characters // _CHARACTERS_PER_TOKEN + images * _TOKENS_PER_IMAGE + answer


def settings_of(config: ChatdConfig, name: str) -> dict[str, str]:
    """What the scripts have to know of a provider, as the fields of one hash, each JSON.

    ``provider`` has what holds for all its calls, ``limit:<match>`` the numbers of one limit.
    """
    provider = config.providers[name]
    fields = {
        "provider": json.dumps(
            {
                "permits": provider.concurrency,
                "share": config.batch_share,
                "turn": round(1 / config.batch_min_share) if config.batch_min_share else 0,
                "max_wait": int(config.max_batch_wait_s * 1000),
                "reserve": config.interactive_reserve,
            }
        )
    }
    for limit in reversed(limits_of(provider)):  # So that of two with one match the first counts.
        known = {
            "rpm": limit.requests_per_minute,
            "rpd": limit.requests_per_day,
            "tpm": limit.tokens_per_minute,
        }
        written = {key: value for key, value in known.items() if value is not None}
        fields[f"limit:{limit.match}"] = json.dumps({**written, "learn": provider.learn})
    return fields
