"""The Lua scripts of ``chat/lua``, loaded from their files and run on one Redis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import redis

from chat.connection import redis_errors

if TYPE_CHECKING:
    from chat.settings import ChatdConfig

__all__ = ["Scripts", "load_script"]

#: What stands before every script, in this order.
_PRELUDE = ("prelude", "rates", "budget", "recall")

_NAMES = (
    "admit",
    "audit",
    "cancel",
    "client",
    "drain",
    "expire",
    "finish",
    "heartbeat",
    "life",
    "list",
    "overview",
    "place",
    "reassert",
    "reclaim",
    "release",
    "republish",
    "retire",
    "room",
    "settle",
    "start",
    "watch",
)


def load_script(name: str) -> str:
    """The text of ``chat/lua/<name>.lua`` behind what all scripts share."""
    folder = files("chat") / "lua"
    return "\n".join((folder / f"{part}.lua").read_text() for part in (*_PRELUDE, name))


class Scripts:
    """Runs the scripts. Trouble with Redis is ``QueueUnavailable``, whatever its shape."""

    def __init__(self, client: redis.Redis, config: ChatdConfig) -> None:
        self.redis = client
        self._config = config
        self._scripts = {name: client.register_script(load_script(name)) for name in _NAMES}

    def _run(self, name: str, *args: str | int) -> Any:
        with redis_errors():
            return self._scripts[name](args=args)

    def _run_all(self, name: str, calls: Iterable[Sequence[str | int]]) -> list[Any]:
        """The replies of one script for several lists of arguments, in one round trip."""
        with redis_errors():
            pipeline = self.redis.pipeline(transaction=False)
            for args in calls:
                self._scripts[name](args=args, client=pipeline)
            return pipeline.execute()
