"""The Flask application: blueprints, limits, errors, and the request id on every response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask, Response, g, request

from api import (
    access,
    batches,
    chat,
    completions,
    errors,
    evaluations,
    files,
    health,
    jobs,
    metrics,
    models,
    request_log,
    unread,
)
from api.frontend import EXTENSION, FrontEnd
from api.headers import request_id

__all__ = ["build"]


class _Application(Flask):
    """Flask, told that no view of ours is a coroutine: it would look into each for each request."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """What calls ``func`` and waits for it."""
        return func


def build(front: FrontEnd) -> Flask:
    """The application that serves ``front``."""
    app = _Application("api", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = front.config.body_limit
    app.extensions[EXTENSION] = front
    # A path is one path: nothing is answered by a redirect to a tidier spelling of it.
    app.url_map.merge_slashes = False

    @app.before_request
    def begin() -> None:
        g.started = front.clock()
        g.request_id = request_id(request.headers)

    @app.after_request
    def identify(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.request_id
        return response

    request_log.install(app)
    errors.install(app)
    access.install(app)
    unread.install(app)
    for module in (chat, completions, jobs, files, batches, evaluations, models, health, metrics):
        app.register_blueprint(module.blueprint)
    return app
