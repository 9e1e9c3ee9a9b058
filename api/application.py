"""The Flask application: blueprints, limits, errors, and the request id on every response."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import MapAdapter

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
from api.current import Notes, notes, this_request
from api.frontend import EXTENSION, FrontEnd
from api.headers import request_id

__all__ = ["build"]


class _NoSessions(SessionInterface):
    """Nothing is known of a caller but what the request says."""

    _none = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:  # noqa: ARG002 - Flask's
        """The one that nobody has."""
        return self._none


class _Application(Flask):
    """Flask for the views of ``front``, with what comes before and after each as plain calls.

    Flask's own hooks, ``before_request`` and the like, are not run: it looks for them at each
    request, in the application and in the blueprint, and each looks for the request again.
    """

    app_ctx_globals_class = Notes  # type: ignore[assignment]  # any class will do
    session_interface = _NoSessions()

    def __init__(self, front: FrontEnd) -> None:
        super().__init__("api", static_folder=None)
        self._front = front
        self.config["MAX_CONTENT_LENGTH"] = front.config.body_limit
        self.extensions[EXTENSION] = front
        # A path is one path: nothing is answered by a redirect to a tidier spelling of it.
        self.url_map.merge_slashes = False
        # Whether a host is one at all takes longer to find out than which view a path has.
        self._bound = lru_cache(maxsize=64)(self.url_map.bind)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """What calls ``func`` and waits for it: no view of ours is a coroutine."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """What finds the view of a request. Raises ``BadHost``."""
        if request is None or "HTTP_UPGRADE" in request.environ:
            return super().create_url_adapter(request)
        bound = self._bound(request.host)
        return MapAdapter(
            self.url_map,
            bound.server_name,
            bound.script_name,
            "",
            request.scheme,
            request.path,
            request.method,
        )

    def preprocess_request(self) -> Response | None:
        """Before each view."""
        front, request, noted = self._front, this_request(), notes()
        noted.started = front.clock()
        noted.request_id = request_id(request.headers)
        noted.caller = noted.error_code = noted.job_id = None
        request_log.begin(request, noted)
        answer = access.admit(front, request, noted)
        if answer is None:
            unread.begin(request)
        return answer

    def process_response(self, response: Response) -> Response:
        """After each view, and after each error."""
        front, request, noted = self._front, this_request(), notes()
        unread.end(request, response)
        access.protect(front, request, response)
        milliseconds = (front.clock() - noted.started) * 1000
        request_log.answered(request, noted, response.status_code, milliseconds)
        response.headers["X-Request-Id"] = noted.request_id
        return response

    def do_teardown_request(self, exc: BaseException | None = None) -> None:  # noqa: ARG002 - Flask's
        """After each request, whatever became of it."""
        access.leave(self._front, notes())
        request_log.end(this_request())


def build(front: FrontEnd) -> Flask:
    """The application that serves ``front``."""
    app = _Application(front)
    errors.install(app)
    for module in (chat, completions, jobs, files, batches, evaluations, models, health, metrics):
        app.register_blueprint(module.blueprint)
    return app
