"""The Lua scripts of ``chat/lua``, loaded from their files and run on one Redis."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast

import redis
from redis.exceptions import NoScriptError

from chat.connection import redis_errors
from chat.pipeline import ScriptPipeline

if TYPE_CHECKING:
    from chat.settings import ChatdConfig

__all__ = ["Scripts", "load_script"]

#: What stands before every script, in this order.
_PRELUDE = ("prelude", "rates", "budget", "recall", "standing")

_NAMES = (
    "admit",
    "audit",
    "cancel",
    "client",
    "deliver",
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

#: Those that carry a job or a call: quick, each about one job or some pieces of answers, and all
#: that many callers run at the same time. None of the others may hold them up, nor wait behind
#: them.
_TOGETHER = frozenset(
    {"admit", "cancel", "client", "deliver", "expire", "finish", "start", "watch"}
)


#: Where the next definition of a shared file begins: all are `local` and stand at the margin.
_DEFINITION = re.compile(r"^(?=local )", re.MULTILINE)
_DEFINED = re.compile(r"\blocal (?:function )?(\w+(?:, \w+)*)")
_COMMENT = re.compile(r"--.*")
_NAME = re.compile(r"\w+")
#: A number with a name. Redis would hand it to every function that uses it, at each call.
_CONSTANT = re.compile(r"local ([A-Z_]+) = ([\d./ ]+)\s*")


def load_script(name: str) -> str:
    """The text of ``chat/lua/<name>.lua`` behind what it needs of that which all scripts share.

    Redis runs all of a script at each call, and making every shared function would take it longer
    than most scripts do. What a script does not name, nor anything that it names, is left out, and
    in place of a constant's name stands its number.
    """
    folder = files("chat") / "lua"
    shared, constants = _shared()
    script = _in_numbers((folder / f"{name}.lua").read_text(), constants)
    needed = _names(script)
    kept: list[str] = []
    # A definition names only what stands before it.
    for text, defined, names in reversed(shared):
        if not needed.isdisjoint(defined):
            needed |= names
            kept.append(text)
    return "".join([*reversed(kept), script])


@cache
def _shared() -> tuple[list[tuple[str, set[str], set[str]]], dict[str, str]]:
    """The shared definitions in their order, and the constants.

    Of each definition the text, the names it defines, and those it contains.
    """
    folder = files("chat") / "lua"
    whole = "\n".join((folder / f"{part}.lua").read_text() for part in _PRELUDE)
    _, *texts = _DEFINITION.split(_COMMENT.sub("", whole))
    found = [_CONSTANT.fullmatch(text) for text in texts]
    constants = {one[1]: f"({one[2].strip()})" for one in found if one is not None}
    others = [
        _in_numbers(text, constants) for text, one in zip(texts, found, strict=True) if one is None
    ]
    return [(text, _defined(text), _names(text)) for text in others], constants


def _in_numbers(text: str, constants: dict[str, str]) -> str:
    return _NAME.sub(lambda found: constants.get(found[0], found[0]), text)


def _defined(text: str) -> set[str]:
    first, *_inner = _DEFINED.findall(text)
    return set(first.split(", "))


def _names(script: str) -> set[str]:
    return set(_NAME.findall(_COMMENT.sub("", script)))


class Scripts:
    """Runs the scripts. Trouble with Redis is ``QueueUnavailable``, whatever its shape.

    ``pipelined``: those of many threads that are run at the same time travel together, on up to so
    many connections. It pays where many calls are under way in one process, and it is for one
    process: not across a fork.
    """

    def __init__(self, client: redis.Redis, config: ChatdConfig, *, pipelined: int = 0) -> None:
        self.redis = client
        self._config = config
        self._scripts = {name: client.register_script(load_script(name)) for name in _NAMES}
        self._pipeline = ScriptPipeline(client, pipelined) if pipelined else None

    def _run(self, name: str, *args: str | int) -> Any:
        script = self._scripts[name]
        with redis_errors():
            if self._pipeline is not None and name in _TOGETHER:
                try:
                    return self._pipeline.run(script.sha, args)
                except NoScriptError:
                    # Redis has been started anew, or was never asked. It learns the script and runs
                    # it at once: between the two it could be started anew once more.
                    return self.redis.eval(cast("str", script.script), 0, *args)
            return script(args=args)

    def _run_all(self, name: str, calls: Iterable[Sequence[str | int]]) -> list[Any]:
        """The replies of one script for several lists of arguments, in one round trip."""
        with redis_errors():
            pipeline = self.redis.pipeline(transaction=False)
            for args in calls:
                self._scripts[name](args=args, client=pipeline)
            return pipeline.execute()
