"""The Flask front end: HTTP in, jobs out. It holds no key and makes no upstream call."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from api.frontend import Store
    from api.stopping import Stopping
    from chat.catalogue import Catalogue
    from chat.registry import Names
    from chat.replies import Replies
    from chat.settings import ChatdConfig

__all__ = ["create_app"]


def create_app(
    config: ChatdConfig,
    *,
    names: Names | None = None,
    store: Store | None = None,
    replies: Replies | None = None,
    catalogue: Catalogue | None = None,
    stopping: Stopping | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Flask:
    """The application for ``config``; nothing is connected before the first request needs it.

    What is not given is made: ``names`` from the environment's keys, ``store``, ``replies`` and
    ``catalogue`` from the configured Redis, once per process. ``stopping`` is begun by the server
    when it is told to end. ``clock`` is monotonic, in seconds.
    """
    # A gevent worker of gunicorn replaces the standard library's blocking calls after the fork and
    # before it asks for the application; what is imported here never sees the originals.
    from api.application import build  # noqa: PLC0415
    from api.frontend import FrontEnd  # noqa: PLC0415
    from chat.registry import log_registration, registered  # noqa: PLC0415

    if names is None:
        names = registered(config, os.environ)
    log_registration(names, logging.getLogger(__name__))
    front = FrontEnd(
        config,
        names,
        store=store,
        replies=replies,
        catalogue=catalogue,
        stopping=stopping,
        clock=clock,
    )
    return build(front)
