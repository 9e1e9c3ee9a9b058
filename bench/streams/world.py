"""chatd as it comes, as processes of its own, before a scripted upstream that streams."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.speed.target import Target
from bench.streams.upstream import StreamUpstream
from cli.redis_server import free_port
from tests.stack import Stack
from tests.waiting import eventually

__all__ = ["World", "running"]

#: Calls at the same time that each worker may make.
_PERMITS = 512


@dataclass(frozen=True, slots=True)
class World:
    """What runs: all of chatd, its upstream, and a folder for what is started beside them."""

    stack: Stack
    upstream: StreamUpstream
    folder: Path

    def parts(self, provider: str = "ollama") -> Target:
        """The processes, told apart; the worker is that of one provider."""
        stack = self.stack
        parts = {
            "front end": stack.api.pid,
            "worker": stack.workers[provider].pid,
            "Redis": stack.redis.child.pid,
        }
        return Target(stack.url, "chat", parts)


@contextmanager
def running(providers: Sequence[str] = ("ollama",), *, settings: str = "") -> Iterator[World]:
    """Start everything, and stop it by process id at the end, Ctrl-C included."""
    with tempfile.TemporaryDirectory(prefix="chatd-streams-") as name:
        folder = Path(name)
        upstream = StreamUpstream(folder, free_port())
        stack = Stack(
            folder / "chatd",
            dict.fromkeys(providers, upstream.url),
            concurrency=_PERMITS,
            # A provider with a key and without a worker would keep the front end from being ready.
            environ={f"{name.upper()}_API_KEY": "sk-made-up" for name in providers},
            settings=settings,
        )
        try:
            upstream.start()
            stack.start()
            eventually(lambda: _workers(stack, providers), what="all workers")
            yield World(stack, upstream, folder)
        finally:
            stack.stop()
            upstream.stop()


def _workers(stack: Stack, providers: Sequence[str]) -> bool:
    client = stack.redis.client
    return all(client.zcard(f"workers:{name}") for name in providers)
