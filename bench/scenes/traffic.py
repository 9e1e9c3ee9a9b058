"""People who chat: requests at given moments, or one after another, each timed.

The clock of a request runs from the moment it was due, so that nothing is hidden by a sender that
comes late. One asyncio loop holds them all, each on a connection of its own.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Asked", "arrivals", "ask_at", "ask_in_turn"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when it was due (seconds from the start), and how long it took.

    ``status`` is 0 when nothing had come at the end of the run; ``latency_s`` is then how long it
    had waited until there.
    """

    due: float
    latency_s: float
    status: int


def arrivals(seed: int, per_second: float, seconds: float) -> list[float]:
    """Moments of a Poisson process, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - arrivals, no secret
    moments, now = [], chance.expovariate(per_second)
    while now < seconds:
        moments.append(now)
        now += chance.expovariate(per_second)
    return moments


async def ask_at(
    url: str, moments: Sequence[float], *, lane: str, tag: str, limit_s: float
) -> list[Asked]:
    """One chat at each moment, and all of them waited for until ``limit_s`` from the start."""
    began = time.monotonic()
    asked = (
        _ask(url, began, due, f"{tag} {number}", lane, began + limit_s)
        for number, due in enumerate(moments)
    )
    return list(await asyncio.gather(*asked))


async def ask_in_turn(
    url: str, clients: int, seconds: float, *, lane: str, tag: str
) -> list[Asked]:
    """``clients`` of which each asks again as soon as it was answered, for so many seconds."""
    began = time.monotonic()
    found: list[Asked] = []

    async def one(client: int) -> None:
        turn = 0
        while (due := time.monotonic() - began) < seconds:
            question = f"{tag} {client} {turn}"
            found.append(await _ask(url, began, due, question, lane, began + seconds + 60))
            turn += 1

    await asyncio.gather(*(one(client) for client in range(clients)))
    return found


async def _ask(url: str, began: float, due: float, question: str, lane: str, until: float) -> Asked:
    await asyncio.sleep(began + due - time.monotonic())
    try:
        status = await asyncio.wait_for(
            _chat(url, question, lane), timeout=until - time.monotonic()
        )
    except TimeoutError:
        status = 0
    return Asked(due, time.monotonic() - began - due, status)


async def _chat(url: str, question: str, lane: str) -> int:
    """POST /v1/chat; the status. Raises ``AssertionError`` for an answer to another question."""
    body = json.dumps(
        {
            "model": "echo",
            "messages": [{"role": "user", "content": question}],
            "lane": lane,
            "timeout_s": 3600,
        }
    ).encode()
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    try:
        head = f"POST /v1/chat HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer_head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        status = int(answer_head.split(b" ", 2)[1])
        if status == 200:
            content = json.loads(answer)["content"]
            assert content == f"echo: {question}", f"{question!r} was answered {content!r}"
        return status
    finally:
        writer.close()
