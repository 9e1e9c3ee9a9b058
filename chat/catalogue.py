"""Which models the providers list: what their workers were told, as Redis keeps it.

A worker has the key to ask its provider with; the front end has none and reads here. Redis keeps
one JSON text per provider, ``models:<provider>``, which is replaced whole at each refresh and is
gone a day after the next one was due.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self, cast

import redis

from chat.connection import redis_errors
from chat.errors import InvalidRequest
from chat.routing import Route, resolve
from chat.types import JSON, compact_json

__all__ = [
    "LONGEST_NAME",
    "MOST_MODELS",
    "Catalogue",
    "ListedModel",
    "ModelList",
    "name_of",
    "tagged",
]

#: How many models of a provider are kept. The longest list there is, OpenRouter's, has hundreds.
MOST_MODELS = 5_000

#: Characters that a request's ``model`` may have.
LONGEST_NAME = 256

_KEPT_S = 86_400


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model as its provider lists it: ``id`` is what a ``Route`` has as its ``model``.

    ``created`` is in seconds since the epoch, 0 where the provider does not say.
    """

    id: str
    created: int = 0


@dataclass(frozen=True, slots=True)
class ModelList:
    """A provider's models in its own order; ``fetched_at`` is Redis time in ms."""

    models: tuple[ListedModel, ...]
    fetched_at: int

    def to_wire(self) -> JSON:
        """JSON-ready form; a model is a pair, since there may be thousands."""
        return {
            "fetched_at": self.fetched_at,
            "models": [[model.id, model.created] for model in self.models],
        }

    @classmethod
    def from_wire(cls, wire: JSON) -> Self:
        """Read what ``to_wire`` wrote."""
        models = tuple(ListedModel(name, created) for name, created in wire["models"])
        return cls(models, wire["fetched_at"])


class Catalogue:
    """The lists in Redis. Trouble with Redis is ``QueueUnavailable``, whatever its shape."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def keep(self, provider: str, models: Iterable[ListedModel], next_in_s: float = 0.0) -> None:
        """Put ``models`` in the place of what ``provider`` listed before.

        They are kept until a day after the next list is due, which is in ``next_in_s`` seconds.
        """
        with redis_errors():
            seconds, micros = self._redis.time()
            found = ModelList(tuple(models), seconds * 1000 + micros // 1000)
            text = compact_json(found.to_wire())
            self._redis.set(_key(provider), text, ex=_KEPT_S + math.ceil(next_in_s))

    def lists(self, providers: Iterable[str]) -> dict[str, ModelList | None]:
        """The list of each provider; ``None`` for one that has none, or too old a one."""
        names = list(providers)
        if not names:
            return {}
        with redis_errors():
            texts = cast("list[str | None]", self._redis.mget([_key(name) for name in names]))
        return {
            name: None if text is None else ModelList.from_wire(json.loads(text))
            for name, text in zip(names, texts, strict=True)
        }


def name_of(
    route: Route, tiers: Mapping[str, str], *, allow_local_cloud: bool = False
) -> str | None:
    """The name to ask for ``route`` by: its bare id if that leads there, else with the prefix.

    ``None`` where no name does, as for an id that local Ollama would forward to ollama.com. A tier
    hides the bare id of the same name.
    """
    for name in (route.model, f"{route.provider}/{route.model}"):
        if name in tiers or len(name) > LONGEST_NAME:
            continue
        try:
            if resolve(name, allow_local_cloud=allow_local_cloud) == route:
                return name
        except InvalidRequest:
            continue
    return None


def tagged(route: Route) -> Route:
    """``route`` with the tag that local Ollama takes where none is written.

    Its lists always have one (Ollama types/model/name.go: the tag follows the last colon behind the
    last slash, and is ``latest`` by default), so that ``llama3.2`` is listed as another id.
    """
    if route.provider != "ollama" or ":" in route.model.rpartition("/")[2]:
        return route
    return Route(route.provider, f"{route.model}:latest")


def _key(provider: str) -> str:
    return f"models:{provider}"
