"""``GET /v1/models`` and ``GET /v1/models/<id>``: what a chat can ask for, in OpenAI's shape.

Tiers and weak models stand in the configuration, all others in the lists that the workers fetch.
What is chatd's own is in fields named ``chatd``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flask import Blueprint, Response

from api.frontend import front_end
from api.output import json_response
from chat.catalogue import ModelList, name_of, tagged
from chat.errors import InvalidRequest, ModelNotFound, ProviderNotRegistered
from chat.jobs import rfc3339
from chat.registry import Names, Route
from chat.routing import quoted
from chat.types import JSON

__all__ = ["blueprint"]

blueprint = Blueprint("models", __name__)


@blueprint.get("/v1/models")
def models() -> Response:
    """Every tier, then every model of each registered provider, then weak models not among them."""
    front = front_end()
    lists = front.connections().catalogue.lists(front.names.names)
    directory = _Directory(front.names, front.config.weak_models, lists)
    fetched = {name: _fetched_at(found) for name, found in lists.items()}
    return json_response(
        {"object": "list", "data": directory.entries(), "chatd": {"lists": fetched}}
    )


@blueprint.get("/v1/models/<path:model>")
def model(model: str) -> Response:
    """The entry of one model, by any name that leads to it.

    A name that no chat could use is refused as a chat would be. One that leads to a model which
    stands in no list is not found, though its provider may know it: the message says so.
    """
    front = front_end()
    route = front.names.route(model)
    lists = front.connections().catalogue.lists([route.provider])
    directory = _Directory(front.names, front.config.weak_models, lists)
    if not directory.has(model, route):
        fetched = _fetched_at(lists[route.provider])
        known = f"the list of {fetched} does not have it" if fetched else "no list of it is there"
        raise ModelNotFound(
            f"model {quoted(model)} leads to {route.provider}, and {known}; GET /v1/models has the "
            "names that are listed, and a chat with any other is sent to its provider all the same",
            param="model",
            provider=route.provider,
        )
    return json_response(directory.entry(model, route))


class _Directory:
    """Tiers, weak models and the providers' lists, put together for one answer."""

    def __init__(
        self, names: Names, weak_models: Iterable[str], lists: Mapping[str, ModelList | None]
    ) -> None:
        self._names = names
        self._listed = {
            Route(provider, listed.id): listed.created
            for provider, found in lists.items()
            if found is not None
            for listed in found.models
        }
        # By the route as Ollama's own lists write it: other ways to write it mean the same model.
        self._created = {tagged(route): created for route, created in self._listed.items()}
        routes = {name: self._route(name) for name in weak_models}
        self._weak = {name: tagged(route) for name, route in routes.items() if route is not None}
        self._weak_routes = frozenset(self._weak.values())

    def has(self, name: str, route: Route) -> bool:
        """Whether ``name``, which leads to ``route``, has an entry or is another name of one."""
        in_file = name in self._names.models or tagged(route) in self._weak_routes
        return in_file or tagged(route) in self._created

    def entries(self) -> list[JSON]:
        """Every entry, each of a name that can be asked for here and now."""
        names = self._names
        tiers = {tier: route for tier in names.models if (route := self._route(tier)) is not None}
        models: dict[str, Route] = {}
        for route in self._listed:
            name = name_of(route, names.models, allow_local_cloud=names.allow_local_cloud)
            if name is not None:
                models[name] = route
        for name, route in self._weak.items():
            if name not in tiers and route not in self._created:
                models.setdefault(name, route)
        return [self.entry(name, route) for name, route in (tiers | models).items()]

    def entry(self, name: str, route: Route) -> JSON:
        """The entry of ``name``. ``created`` is 0 where nobody knows."""
        tier = self._names.models.get(name)
        entry: JSON = {
            "id": name,
            "object": "model",
            "created": self._created.get(tagged(route), 0),
            "owned_by": route.provider if tier is None else "chatd",
        }
        notes: JSON = {} if tier is None else {"tier": True, "model": tier}
        if tagged(route) in self._weak_routes:
            notes["weak"] = True
        return {**entry, "chatd": notes} if notes else entry

    def _route(self, name: str) -> Route | None:
        """Where a configured name leads; ``None`` while its provider is not registered."""
        try:
            return self._names.route(name)
        except (InvalidRequest, ProviderNotRegistered):
            return None


def _fetched_at(found: ModelList | None) -> str | None:
    return None if found is None else rfc3339(found.fetched_at)
