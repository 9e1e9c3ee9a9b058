"""The Lua scripts of ``chat/lua``, loaded from their files and run on one Redis."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

import redis
from redis.exceptions import NoScriptError

from chat.connection import redis_errors
from chat.pipeline import ScriptPipeline

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

#: Those that carry a job or a call: quick, each about one job, and all that many callers run at the
#: same time. None of the others may hold them up, nor wait behind them.
_TOGETHER = frozenset({"admit", "cancel", "client", "expire", "finish", "start", "watch"})


def load_script(name: str) -> str:
    """The text of ``chat/lua/<name>.lua`` behind what all scripts share."""
    folder = files("chat") / "lua"
    return "\n".join((folder / f"{part}.lua").read_text() for part in (*_PRELUDE, name))


class Scripts:
    """Runs the scripts. Trouble with Redis is ``QueueUnavailable``, whatever its shape.

    ``pipelined``: those of many threads that are run at the same time travel together. It pays
    where many calls are under way in one process, and it is for one process: not across a fork.
    """

    def __init__(
        self, client: redis.Redis, config: ChatdConfig, *, pipelined: bool = False
    ) -> None:
        self.redis = client
        self._config = config
        self._scripts = {name: client.register_script(load_script(name)) for name in _NAMES}
        self._pipeline = ScriptPipeline(client) if pipelined else None

    def _run(self, name: str, *args: str | int) -> Any:
        script = self._scripts[name]
        with redis_errors():
            if self._pipeline is not None and name in _TOGETHER:
                try:
                    return self._pipeline.run(script.sha, args)
                except NoScriptError:
                    pass  # Redis has been started anew, or was never asked: below it learns it.
            return script(args=args)
