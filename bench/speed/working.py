"""chatd at work, as the tables of queue and jobs need it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.speed.generator import Load, run
from bench.speed.parts import Parts
from bench.speed.upstream import UpstreamProcess
from cli.redis_server import free_port
from tests.stack import Stack
from tests.waiting import eventually

__all__ = ["CLIENTS", "DELAY_S", "FIRST", "PERMITS", "started", "working"]

#: What the upstream takes for a call, and how many calls it is to have at a time.
DELAY_S = 0.05
PERMITS = 500
#: Connections of the load generator, and the chats that come before anything is measured.
CLIENTS = 64
FIRST = 20 * CLIENTS


@contextmanager
def started(stack: Stack, workers: int) -> Iterator[Parts]:
    """``stack``, with so many workers of each of its providers; stopped at the end."""
    names = list(stack.workers)
    further = [
        stack.child(f"worker-{name}-{number}", "worker", name, "--instance", str(number))
        for name in names
        for number in range(2, workers + 1)
    ]
    try:
        stack.start()
        for child in further:
            child.start()
        client: Any = stack.redis.client
        eventually(
            lambda: all(client.zcard(f"workers:{name}") == workers for name in names),
            within_s=60,
            what=f"{workers} workers of {len(names)} providers work",
        )
        yield Parts.of(stack, further)
    finally:
        for child in further:
            child.stop(60)
        stack.stop()


@contextmanager
def working(
    workers: int,
    *,
    delay_s: float = DELAY_S,
    permits: int = PERMITS,
    settings: str = "",
) -> Iterator[tuple[Stack, Parts]]:
    """chatd with so many workers of one provider, warm, before an upstream of its own."""
    with tempfile.TemporaryDirectory(prefix="chatd-drain-") as name:
        folder = Path(name)
        upstream = UpstreamProcess(folder, free_port(), delay_s).start()
        stack = Stack(
            folder / "stack", {"ollama": upstream.url}, concurrency=permits, settings=settings
        )
        try:
            with started(stack, workers) as parts:
                run(Load(url=stack.url, form="chat", connections=CLIENTS, count=FIRST))
                yield stack, parts
        finally:
            upstream.stop()
