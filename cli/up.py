"""``chatd up``: everything one machine needs, in one command."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import redis
import requests

from chat.config import load_config
from chat.connection import await_redis, check_durability, connect
from chat.errors import ConfigError, QueueUnavailable
from chat.handover import LISTEN_FD
from chat.logs import configure
from chat.registry import registered
from cli.child import Part
from cli.instance import Instance
from cli.redis_server import prepare
from cli.rolling import Restarter
from cli.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chat.config import ChatdConfig

__all__ = ["check_fixed", "parts_of", "up"]

_log = logging.getLogger(__name__)

#: Seconds everything may take to be ready before `up` says what is missing.
_READY_S = 60.0
#: Seconds Redis may take to start before `up` says what it waits for.
_QUIET_S = 2.0
#: Seconds beyond the longest call that a worker gets to end, as well as keeper and Redis.
_GRACE_S = 35
#: Seconds beyond ``drain_s`` that the front end gets: a little more than its own limit, so that it
#: is not killed while it gives up.
_API_GRACE_S = 10
#: Seconds for the front end of a killed `chatd up` to close the port.
_BIND_WAIT_S = 3.0
_REDIS = "redis"
#: What those who run already have from their start: the place where all of them meet.
_FIXED = ("bind", "data_dir", "redis_url", "durability")


def up(config: ChatdConfig) -> int:
    """Run chatd until SIGINT or SIGTERM; returns the exit code. SIGHUP restarts its parts."""
    environ = dict(os.environ)
    if config.source is not None:
        environ["LAKEHOUSE_CONFIG"] = str(config.source)
    names = _registered(config, environ)
    supervisor = Supervisor(environ=environ)
    # Before anybody can know the process id: until then SIGHUP would end it.
    supervisor.follow_signals()
    instance = Instance(config.data_dir)
    try:
        with _bound(config) as listener:
            return _supervise(supervisor, config, names, instance, listener)
    finally:
        instance.close()


def _supervise(
    supervisor: Supervisor,
    config: ChatdConfig,
    names: Sequence[str],
    instance: Instance,
    listener: socket.socket,
) -> int:
    environ = supervisor.environ

    def plan() -> tuple[list[Part], list[str]]:
        fresh = load_config(environ=environ)
        check_fixed(config, fresh)
        parts = parts_of(fresh, _registered(fresh, environ), listener)
        configure("up", fresh.log_level, fresh.log_format)
        kept = {_REDIS, *(part.name for part in parts)}
        return parts, [p.name for p in supervisor.parts() if not {p.kind, p.name} & kept]

    restarter = Restarter(supervisor, instance, plan)
    readiness = _Readiness(config.url)

    def turn() -> bool:
        restarter.turn()
        readiness.look()
        return False

    try:
        url = config.redis_url
        if not url:
            server = prepare(config)
            url = server.url
            supervisor.add(
                Part(
                    name=f"redis ({server.name})",
                    kind=_REDIS,
                    command=server.command,
                    descriptors=(server.lock.fileno(),),
                    grace_s=config.timeout_s + _GRACE_S,
                )
            )
        client = connect(url, timeout_s=1, retries=0)
        if _redis_came(supervisor, client):
            check_durability(client, config.durability)
            for part in parts_of(config, names, listener):
                supervisor.add(part)
            supervisor.watch(turn)
    finally:
        # From now on nobody is let in who would only wait for the end.
        listener.close()
        supervisor.stop()
    return 0


def _registered(config: ChatdConfig, environ: dict[str, str]) -> Sequence[str]:
    names = registered(config, environ).names
    if not names:
        raise ConfigError(
            "no provider is registered, so nothing could be answered; `chatd check` says why"
        )
    return names


def parts_of(config: ChatdConfig, names: Sequence[str], listener: socket.socket) -> list[Part]:
    """Keeper, workers and front end, in the order in which they start."""
    chatd = _command()
    grace_s = config.timeout_s + _GRACE_S
    parts = [Part(name="keeper", kind="keeper", command=[*chatd, "keeper"], grace_s=grace_s)]
    parts += [
        Part(
            name=f"worker {provider}" + (f" {number}" if number > 1 else ""),
            kind="worker",
            command=[*chatd, "worker", provider],
            grace_s=grace_s,
        )
        for provider in names
        for number in range(1, config.providers[provider].workers + 1)
    ]
    parts.append(
        Part(
            name="api",
            kind="api",
            command=[*chatd, "api"],
            grace_s=config.drain_s + _API_GRACE_S,
            descriptors=(listener.fileno(),),
            environ={LISTEN_FD: str(listener.fileno())},
        )
    )
    return parts


def check_fixed(config: ChatdConfig, fresh: ChatdConfig) -> None:
    """Raises ``ConfigError`` for a change that needs an end of everything."""
    for key in _FIXED:
        if getattr(config, key) != getattr(fresh, key):
            raise ConfigError(
                f"{fresh.source or 'configuration'}: [chatd] {key} was changed, which a restart "
                "cannot do; stop `chatd up` and start it again, or change it back"
            )


class _Readiness:
    """Says once when everything is ready, or that it is late."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._began = time.monotonic()
        self._ready = self._late = False

    def look(self) -> None:
        if self._ready:
            return
        self._ready = _ready(self._url)
        if self._ready:
            _log.info("chatd is ready on %s", self._url)
        elif not self._late and time.monotonic() - self._began > _READY_S:
            self._late = True
            _log.warning(
                "not ready after %.0f s; look at the lines above and at %s/ready",
                _READY_S,
                self._url,
            )


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


def _bound(config: ChatdConfig) -> socket.socket:
    """The socket of the front end, whose first process begins to listen on it.

    It belongs to no single process of the front end: while that is restarted, callers wait in the
    kernel. Raises ``ConfigError`` when somebody else listens there.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        config.host, config.port, type=socket.SOCK_STREAM
    )[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    until = time.monotonic() + _BIND_WAIT_S
    while True:
        try:
            listener.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < until:
                time.sleep(0.1)
                continue
            listener.close()
            raise ConfigError(
                f"{config.bind} cannot be listened on ({error.strerror}); stop what is there, or "
                "set [chatd] bind to another port"
            ) from error
        return listener


def _ready(url: str) -> bool:
    session = requests.Session()
    # The environment's proxy is for the way out, not for this machine.
    session.trust_env = False
    try:
        return session.get(f"{url}/ready", timeout=2).ok
    except requests.RequestException:
        return False


def _command() -> list[str]:
    """How a child is started, so that its command line reads ``chatd worker …``."""
    script = Path(sys.executable).with_name("chatd")
    return [sys.executable, str(script)] if script.exists() else [sys.executable, "-m", "cli"]
