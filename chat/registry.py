"""Which providers this gateway has, and the way from a model name to an answer of one of them.

``Names`` is what the front end needs: names and reasons, no key and no provider. ``Registry`` is
what a worker needs: the providers themselves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from chat.errors import ChatError, ProviderNotRegistered
from chat.keys import resolve_key
from chat.partial import Partial
from chat.prices import cost_of
from chat.routing import PROVIDERS, Route, quoted, resolve
from chat.settings import ChatdConfig, PriceConfig, ProviderConfig
from chat.types import (
    Billed,
    Cancelled,
    ChatRequest,
    ChatResponse,
    Deadline,
    Delta,
    Deltas,
    Provider,
)

__all__ = [
    "Missing",
    "Names",
    "Registry",
    "Route",
    "log_registration",
    "registered",
    "resolve",
]


#: What stays of a request and of an answer: all fields behind the first, and all before the last
#: four. dataclasses.replace finds that out anew for each value, and takes twice as long.
_ASKED = attrgetter(*(field.name for field in fields(ChatRequest)[1:]))
_SAID = attrgetter(*(field.name for field in fields(ChatResponse)[:-4]))


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a provider is not registered, and what to do about it."""

    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The providers by name: registered ones with what registered them, and the missing ones."""

    registered: Mapping[str, str]
    missing: Mapping[str, Missing]
    models: Mapping[str, str]
    allow_local_cloud: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The registered providers in their fixed order."""
        return tuple(self.registered)

    @property
    def default(self) -> str:
        """The provider of every model name that says nothing else, registered or not."""
        return PROVIDERS[0]

    def route(self, model: str) -> Route:
        """The route of ``model``, a tier or a model id.

        Raises ``InvalidRequest`` for a name that leads nowhere and ``ProviderNotRegistered`` for
        one that leads to a provider without URL or key.
        """
        route = resolve(model, self.models, allow_local_cloud=self.allow_local_cloud)
        if route.provider not in self.registered:
            raise _not_registered(model, route.provider, self.missing[route.provider].remedy)
        return route


class Registry:
    """The providers of one worker process, each reached by its route.

    ``missing`` has, for providers that are not here, the way to get them. ``prices`` is what calls
    cost where the provider does not say it. ``clock`` counts seconds.
    """

    def __init__(
        self,
        providers: Mapping[str, Provider],
        missing: Mapping[str, str] | None = None,
        *,
        prices: Sequence[PriceConfig] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._providers = dict(providers)
        self._missing = dict(missing or {})
        self._prices = tuple(prices)
        self._clock = clock

    @property
    def names(self) -> tuple[str, ...]:
        """The providers in this registry."""
        return tuple(self._providers)

    @property
    def default(self) -> str:
        """The provider of every model name that says nothing else, registered or not."""
        return PROVIDERS[0]

    def chat(
        self,
        route: Route,
        request: ChatRequest,
        *,
        deadline: Deadline,
        cancelled: Cancelled,
        deltas: Deltas | None = None,
    ) -> ChatResponse:
        """Make one upstream call with ``route.model`` and say whose answer it is.

        ``deltas`` as in ``Provider.chat``. An error after the first piece says what had come until
        then in its ``partial``, with ``output_tokens``: what the upstream told, else the number of
        pieces. Such a call may have been billed, however the error alone would be taken.

        ``provider``, ``upstream_model`` and ``latency_ms`` are filled in here, into the answer and
        onto every ``ChatError``, so that no provider can forget them, and ``cost_usd`` where the
        provider left it out and a price is configured. Any other exception is a fault of the
        provider's code: it passes unchanged but for a note that names the route.

        Raises ``ProviderNotRegistered`` when the provider is not in this registry, and whatever
        ``Provider.chat`` raises.
        """
        provider = self._providers.get(route.provider)
        if provider is None:
            remedy = self._missing.get(route.provider, "start a worker for it")
            raise _not_registered(request.model, route.provider, remedy)
        noted = None if deltas is None else _Noted(deltas)
        begun = self._clock()
        try:
            asked = ChatRequest(route.model, *_ASKED(request))
            response = provider.chat(asked, deadline=deadline, cancelled=cancelled, deltas=noted)
        except ChatError as error:
            if noted is not None:
                noted.tell(error)
            error.provider = route.provider
            error.upstream_model = route.model
            error.latency_ms = self._milliseconds_since(begun)
            raise
        except Exception as error:
            error.add_note(f"provider {route.provider}, upstream model {quoted(route.model)}")
            raise
        cost_usd, took_ms = self._cost(route, response), self._milliseconds_since(begun)
        filled_in: tuple[Any, ...] = (cost_usd, route.provider, route.model, took_ms)
        return ChatResponse(*_SAID(response), *filled_in)

    def _cost(self, route: Route, response: ChatResponse) -> float | None:
        """The provider's own figure, which knows of caches and discounts, else the table's."""
        if response.cost_usd is not None:
            return response.cost_usd
        counts = response.input_tokens, response.output_tokens
        return cost_of(self._prices, route.provider, route.model, *counts)

    def _milliseconds_since(self, begun: float) -> int:
        return round((self._clock() - begun) * 1000)


class _Noted:
    """Takes the pieces of an answer, and keeps them beside handing them on."""

    def __init__(self, deltas: Deltas) -> None:
        self._deltas = deltas
        self._partial = Partial()

    def __call__(self, delta: Delta) -> None:
        self._partial.add(delta)
        self._deltas(delta)

    def tell(self, error: ChatError) -> None:
        """Put into ``error`` what had come before it."""
        told = error.partial or {}
        error.partial = None
        if self._partial.pieces:
            tokens = told.get("output_tokens", self._partial.pieces)
            error.partial = {**self._partial.to_wire(), "output_tokens": tokens}
            if error.billed is Billed.NO:
                error.billed = Billed.MAYBE


def registered(config: ChatdConfig, environ: Mapping[str, str]) -> Names:
    """Find out which providers have what they need: Ollama a URL, the others a key.

    ``enabled = false`` leaves a provider out whatever it has. ``enabled = true`` takes it in even
    without a key, and calls then carry no Authorization header: its ``base_url`` may be that of a
    proxy that adds one. An upstream that is called directly answers 401.
    """
    found: dict[str, str] = {}
    missing: dict[str, Missing] = {}
    for name in PROVIDERS:
        outcome = _registration(config.providers[name], environ)
        if isinstance(outcome, Missing):
            missing[name] = outcome
        else:
            found[name] = outcome
    return Names(
        registered=found,
        missing=missing,
        models=config.models,
        allow_local_cloud=config.allow_local_cloud,
    )


def log_registration(names: Names, logger: logging.Logger) -> None:
    """Say at boot which providers are registered, and for each of the others why it is not."""
    found = "; ".join(f"{name} ({reason})" for name, reason in names.registered.items())
    lacking = "; ".join(f"{name} ({missing.reason})" for name, missing in names.missing.items())
    logger.info("providers registered: %s. Not registered: %s.", found or "none", lacking or "none")


def _registration(provider: ProviderConfig, environ: Mapping[str, str]) -> str | Missing:
    """What registers the provider, or why it is missing."""
    if provider.enabled is False:
        return Missing(
            f"enabled = false in [chatd.providers.{provider.name}]",
            f"take enabled = false out of [chatd.providers.{provider.name}]",
        )
    if not provider.key_env:
        if provider.base_url:
            return "ollama_url is set"
        return Missing("ollama_url is empty", 'write ollama_url = "http://localhost:11434"')
    lookup = resolve_key(provider, environ)
    if lookup.secret is not None:
        return lookup.reason
    if provider.enabled:
        return f"enabled = true, calls go out without a key: {lookup.reason}"
    remedy = f"set {provider.key_env}"
    if provider.key_file:
        remedy += f" or put {provider.key_name}=... into {provider.key_file}"
    return Missing(lookup.reason, remedy)


def _not_registered(model: str, provider: str, remedy: str) -> ProviderNotRegistered:
    return ProviderNotRegistered(
        f"model {quoted(model)}: provider {provider} is not registered; {remedy}",
        param="model",
        provider=provider,
    )
