"""Is it alive, is it ready, and what does it offer."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from flask import Blueprint, Response

from api.frontend import front_end
from api.openapi import document
from api.output import json_response
from chat.errors import QueueUnavailable
from chat.types import JSON

__all__ = ["blueprint", "chatd_version"]

blueprint = Blueprint("health", __name__)


@cache
def chatd_version() -> str:
    """The version of the installed package; a source tree that is not installed has none."""
    try:
        return version("chatd")
    except PackageNotFoundError:
        return "0+unknown"


@blueprint.get("/health")
def health() -> Response:
    """200 from a live process. Redis is not asked: a restart of chatd would not bring it back."""
    return json_response({"status": "ok", "version": chatd_version()})


@blueprint.get("/ready")
def ready() -> Response:
    """200 when Redis answers and every registered provider (at least one) has a live worker.

    ``workers`` has the seconds since a worker of each provider was last seen.
    """
    front = front_end()
    names = front.names.names
    workers: dict[str, float | None] = dict.fromkeys(names)
    trouble = None
    try:
        store = front.connections().store
        store.ping()
        workers = store.workers(names)
    except QueueUnavailable as error:
        trouble = error.message
    grace = front.config.worker_grace_s
    served = bool(workers) and all(seen is not None and seen <= grace for seen in workers.values())
    is_ready = trouble is None and served
    body: JSON = {
        "status": "ready" if is_ready else "not ready",
        "redis": trouble or "ok",
        "workers": {
            name: None if seen is None else round(seen, 3) for name, seen in workers.items()
        },
    }
    return json_response(body, 200 if is_ready else 503, {} if is_ready else {"Retry-After": "5"})


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The contract as OpenAPI 3.1."""
    return json_response(document(chatd_version()))
