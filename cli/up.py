"""``chatd up``: everything one machine needs, in one command."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import redis
import requests

from chat.connection import await_redis, connect
from chat.errors import ConfigError, QueueUnavailable
from chat.registry import registered
from cli.redis_server import prepare
from cli.supervisor import Supervisor

if TYPE_CHECKING:
    from chat.config import ChatdConfig

__all__ = ["up"]

_log = logging.getLogger(__name__)

#: Seconds everything may take to be ready before `up` says what is missing.
_READY_S = 60.0
#: Seconds Redis may take to start before `up` says what it waits for.
_QUIET_S = 2.0
#: Seconds beyond the longest call that each part gets to end: a little more than the front end's
#: own limit, so that it is not killed while it gives up.
_GRACE_S = 35


def up(config: ChatdConfig) -> int:
    """Run chatd until SIGINT or SIGTERM; returns the exit code."""
    environ = dict(os.environ)
    if config.source is not None:
        environ["LAKEHOUSE_CONFIG"] = str(config.source)
    names = registered(config, environ).names
    if not names:
        raise ConfigError(
            "no provider is registered, so nothing could be answered; `chatd check` says why"
        )
    _check_bind(config)
    supervisor = Supervisor(grace_s=config.timeout_s + _GRACE_S, environ=environ)
    supervisor.follow_signals()
    try:
        url = config.redis_url
        if not url:
            server = prepare(config)
            url = server.url
            supervisor.add(f"redis ({server.name})", server.command, (server.lock.fileno(),))
        if not _redis_came(supervisor, connect(url, timeout_s=1, retries=0)):
            return 0
        chatd = _command()
        supervisor.add("keeper", [*chatd, "keeper"])
        for provider in names:
            supervisor.add(f"worker {provider}", [*chatd, "worker", provider])
        supervisor.add("api", [*chatd, "api"])
        began = time.monotonic()
        late = False

        def ready() -> bool:
            nonlocal late
            if not late and time.monotonic() - began > _READY_S:
                late = True
                _log.warning(
                    "not ready after %.0f s; look at the lines above and at http://%s/ready",
                    _READY_S,
                    config.bind,
                )
            return _ready(config.bind)

        if supervisor.watch(ready):
            _log.info("chatd is ready on http://%s", config.bind)
            supervisor.watch(lambda: False)
    finally:
        supervisor.stop()
    return 0


def _redis_came(supervisor: Supervisor, client: redis.Redis) -> bool:
    """Wait for Redis and say what is wrong with it meanwhile; false when told to stop first."""
    begun = time.monotonic()
    said = ""

    def answers() -> bool:
        nonlocal said
        trouble = _trouble(client)
        if trouble and trouble != said and time.monotonic() - begun > _QUIET_S:
            _log.warning("waiting for Redis: %s", trouble)
            said = trouble
        return not trouble

    return supervisor.watch(answers)


def _trouble(client: redis.Redis) -> str:
    """Why Redis cannot be used yet; empty when it can."""
    try:
        await_redis(client, timeout_s=0)
    except QueueUnavailable as error:
        return error.message
    return ""


def _check_bind(config: ChatdConfig) -> None:
    """Raises ``ConfigError`` when somebody else listens where the front end should."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        config.host, config.port, type=socket.SOCK_STREAM
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise ConfigError(
                f"{config.bind} cannot be listened on ({error.strerror}); stop what is there, or "
                "set [chatd] bind to another port"
            ) from error


def _ready(bind: str) -> bool:
    session = requests.Session()
    # The environment's proxy is for the way out, not for this machine.
    session.trust_env = False
    try:
        return session.get(f"http://{bind}/ready", timeout=2).ok
    except requests.RequestException:
        return False


def _command() -> list[str]:
    """How a child is started, so that its command line reads ``chatd worker …``."""
    script = Path(sys.executable).with_name("chatd")
    return [sys.executable, str(script)] if script.exists() else [sys.executable, "-m", "cli"]
