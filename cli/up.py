"""``chatd up``: everything one machine needs, in one command."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import redis
import requests

from chat.connection import await_redis, connect
from chat.errors import QueueUnavailable
from chat.registry import registered
from cli.redis_server import prepare
from cli.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    from chat.config import ChatdConfig

__all__ = ["up"]

#: Seconds everything may take to be ready before `up` says what is missing.
_READY_S = 60.0


def up(config: ChatdConfig, say: Callable[[str], None]) -> int:
    """Run chatd until SIGINT or SIGTERM; returns the exit code."""
    environ = dict(os.environ)
    if config.source is not None:
        environ["LAKEHOUSE_CONFIG"] = str(config.source)
    supervisor = Supervisor(grace_s=config.timeout_s + 30, environ=environ, say=say)
    supervisor.follow_signals()
    try:
        url = config.redis_url
        if not url:
            server = prepare(config)
            url = server.url
            supervisor.add(f"redis ({server.name})", server.command, (server.lock.fileno(),))
        client = connect(url, timeout_s=1, retries=0)
        if not supervisor.watch(lambda: _answers(client)):
            return 0
        chatd = _command()
        supervisor.add("keeper", [*chatd, "keeper"])
        for provider in registered(config, environ).names:
            supervisor.add(f"worker {provider}", [*chatd, "worker", provider])
        supervisor.add("api", [*chatd, "api"])
        began = time.monotonic()
        late = False

        def ready() -> bool:
            nonlocal late
            if not late and time.monotonic() - began > _READY_S:
                late = True
                say(
                    f"not ready after {_READY_S:.0f} s; look at the lines above "
                    f"and at http://{config.bind}/ready"
                )
            return _ready(config.bind)

        if supervisor.watch(ready):
            say(f"chatd is ready on http://{config.bind}")
            supervisor.watch(lambda: False)
    finally:
        supervisor.stop()
    return 0


def _answers(client: redis.Redis) -> bool:
    try:
        await_redis(client, timeout_s=0)
    except QueueUnavailable:
        return False
    return True


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
