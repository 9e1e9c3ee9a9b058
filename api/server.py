"""gunicorn around the application, as ``chatd api`` and ``python -m api`` start it."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import gevent
from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from api import create_app
from api.stopping import Stopping
from chat.garbage import search_less
from chat.handover import say_ready
from chat.logs import greenlet_failed
from chat.settings import ChatdConfig

__all__ = ["FrontEndServer", "gunicorn_options"]

#: Seconds beyond ``drain_s`` that the front end has to answer those who have waited so long.
_GRACE_S = 5
#: gunicorn touches a file as a sign of life; in memory, a slow disk cannot look like a hang.
_MEMORY = Path("/dev/shm")  # noqa: S108 - gunicorn makes an anonymous file there


def gunicorn_options(
    config: ChatdConfig,
    listen_fd: int | None = None,
    waiting: MutableMapping[str, str] | None = None,
) -> dict[str, Any]:
    """Settings of gunicorn for ``config``, by their names in its documentation.

    ``listen_fd`` is a socket that is open already, instead of the address of the configuration;
    ``waiting`` says who waits for the word that the front end is ready.
    """
    host = f"[{config.host}]" if ":" in config.host else config.host
    return {
        "bind": f"{host}:{config.port}" if listen_fd is None else f"fd://{listen_fd}",
        "proc_name": "chatd api",
        # A waiting request costs a greenlet. The application is made after the fork, in the worker.
        "worker_class": "api.drain.DrainingWorker",
        "workers": config.api_processes,
        "worker_connections": 4000,
        "preload_app": False,
        # Not the length of a request: how long a worker may show no sign of life.
        "timeout": 60,
        "graceful_timeout": math.ceil(config.drain_s) + _GRACE_S,
        "keepalive": 75,
        "limit_request_line": 4094,
        "limit_request_fields": 64,
        "limit_request_field_size": 8190,
        # No proxy may rename paths by a header: what it filters by path would be open again.
        "forwarder_headers": "",
        "worker_tmp_dir": str(_MEMORY) if _MEMORY.is_dir() else None,
        "accesslog": None,
        "logger_class": _Log,
        "loglevel": config.log_level,
        # Two front ends of one user would fight for its one path, and nothing here uses it.
        "control_socket_disable": True,
        # In each process of the front end, when it begins to accept. The first one is enough.
        "post_worker_init": lambda _: say_ready(waiting or {}),
    }


class _Log(Logger):  # type: ignore[misc]  # gunicorn has no types
    """The messages of gunicorn in the form of all others: they go the way of the root logger."""

    def setup(self, cfg: Any) -> None:
        """Called by gunicorn in the master."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class FrontEndServer(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """The front end as a gunicorn application; ``run`` returns when the server has stopped.

    It accepts on the socket ``listen_fd`` if there is one, and tells those who are ``waiting``.
    ``stopping`` is begun by each worker for itself, after the fork.
    """

    def __init__(
        self,
        config: ChatdConfig,
        listen_fd: int | None = None,
        waiting: MutableMapping[str, str] | None = None,
    ) -> None:
        self._config = config
        self._listen_fd = listen_fd
        self._waiting = waiting
        self.stopping = Stopping()
        super().__init__()

    def load_config(self) -> None:
        """Called by gunicorn in the master."""
        options = gunicorn_options(self._config, self._listen_fd, self._waiting)
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Called by gunicorn in each worker, after the fork."""
        # gevent would write the traceback of a greenlet to standard error by itself.
        gevent.get_hub().print_exception = greenlet_failed
        app = create_app(self._config, stopping=self.stopping)
        search_less()
        return app
