"""Many streams at once, from a process of its own whose CPU is known.

``run`` starts it and says when the time that counts begins and ends. A ``flood`` asks for one
stream after another on each of its lanes, for so many seconds; ``breaking`` asks once for each of
so many streams, leaves it at random points and comes back each time. What came is held against
what the script of each says, byte for byte.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import uvloop

from bench.processes import allow_descriptors
from bench.programs import tell, told_by
from bench.streams.lanes import Lane, Left, Streamed
from bench.streams.reading import FORMS
from bench.streams.script import Script

__all__ = ["Load", "Outcome", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to ask: in ``form``, at ``url``, streams of so many pieces at this pace.

    A flood has ``lanes`` and ``seconds``; streams of its first ``warm_s`` seconds do not count.
    With ``drops`` it is ``streams`` in all over ``lanes``, each of which is left so many times.
    ``tag`` begins the names of all scripts.
    """

    url: str
    form: str
    lanes: int
    tag: str
    pieces: int
    every_ms: float = 20.0
    first_ms: float = 50.0
    seconds: float = 0.0
    warm_s: float = 0.0
    streams: int = 0
    drops: int = 0

    def script(self, number: int) -> Script:
        """What stream ``number`` is to say."""
        return Script(
            name=f"{self.tag}-{number}",
            pieces=self.pieces,
            first_ms=self.first_ms,
            every_ms=self.every_ms,
        )


@dataclass(slots=True)
class Outcome:
    """What came of a load: the streams that count, and what the generator itself used of a core."""

    streams: list[Streamed]
    seconds: float
    cpu_s: float
    verdicts: dict[str, int] = field(default_factory=dict)


def run(
    load: Load,
    *,
    begins: Callable[[], object] = lambda: None,
    ends: Callable[[], object] = lambda: None,
) -> Outcome:
    """Send a load from a process of its own and wait for all of it.

    Raises ``RuntimeError`` when the generator fails, as when nothing listens.
    """
    told = told_by("bench.streams.load", asdict(load), begins, ends)
    told["streams"] = [Streamed.of(stream) for stream in told["streams"]]
    return Outcome(**told)


async def _flood(load: Load) -> Outcome:
    lane = Lane(load.url, FORMS[load.form])
    found: list[Streamed] = []
    asked = 0
    counts_from, until = time.monotonic() + load.warm_s, 0.0

    async def go_on(wait_s: float) -> None:
        nonlocal asked
        # Not all at once: lanes are spread over the time between two pieces and over a stream.
        await asyncio.sleep(wait_s)
        while not until or time.monotonic() < until:
            asked += 1
            streamed = await lane.whole(load.script(asked))
            if streamed.began >= counts_from:
                found.append(streamed)

    length_s = (load.first_ms + load.pieces * load.every_ms) / 1000
    spread_s = min(length_s, load.warm_s)
    lanes = [
        asyncio.create_task(go_on(spread_s * number / load.lanes)) for number in range(load.lanes)
    ]
    await asyncio.sleep(max(counts_from - time.monotonic(), 0))
    print("begins", flush=True)
    began, cpu = time.monotonic(), time.process_time()
    until = began + load.seconds
    await asyncio.sleep(load.seconds)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    print("ends", flush=True)
    await asyncio.gather(*lanes)
    return Outcome(found, seconds, cpu)


async def _breaking(load: Load) -> Outcome:
    numbers = iter(range(load.streams))
    found: list[Streamed] = []
    began, cpu = time.monotonic(), time.process_time()

    async def go_on() -> None:
        for number in numbers:
            # Both formats, one after the other.
            form = FORMS[("chat", "completion")[number % 2]]
            left = Left(load.drops, seed=number)
            found.append(await Lane(load.url, form).in_parts(load.script(number), left))

    print("begins", flush=True)
    await asyncio.gather(*(asyncio.create_task(go_on()) for _ in range(load.lanes)))
    print("ends", flush=True)
    return Outcome(found, time.monotonic() - began, time.process_time() - cpu)


def main(argument: str) -> None:
    """Run the load that is described and print what came of it."""
    allow_descriptors()
    load = Load(**json.loads(argument))
    outcome = uvloop.run((_breaking if load.drops else _flood)(load))
    for streamed in outcome.streams:
        told = streamed.verdict
        outcome.verdicts[told] = outcome.verdicts.get(told, 0) + 1
    tell(asdict(outcome))


if __name__ == "__main__":
    main(sys.argv[1])
