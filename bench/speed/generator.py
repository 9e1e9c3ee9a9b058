"""A load generator that counts every request and checks each answer against its question.

It runs as a process of its own, so that its CPU is known and does not slow whoever measures; a
request costs it some 30 microseconds. ``run`` starts it and says when the time that counts begins
and ends. Each connection asks one question after another (closed loop) and is kept alive.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import uvloop

from bench.processes import allow_descriptors
from bench.programs import tell, told_by
from bench.speed.client import Client
from bench.speed.forms import FORMS

__all__ = ["Counts", "Load", "Outcome", "percentile", "run"]

#: Connections that are opened at once: some servers have a short backlog.
_OPENED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send: for ``seconds``, or ``count`` requests in all, over so many ``connections``.

    With ``count`` equal to ``connections`` all of them leave at the same moment. Before that the
    same is sent for ``warm_s`` seconds, which is counted apart. An answer after ``late_s`` is late;
    one that is not there after ``patience_s`` is lost. ``form`` is one of ``forms.FORMS``; ``path``
    replaces its own. The question of each is ``tag`` and a number; each load has another tag, so
    that an upstream can tell a question that comes twice.
    """

    url: str
    form: str
    connections: int
    seconds: float = 0.0
    count: int = 0
    warm_s: float = 0.0
    model: str = "echo"
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    tag: str = field(default_factory=lambda: secrets.token_hex(4))
    late_s: float = 30.0
    patience_s: float = 60.0


@dataclass(slots=True)
class Counts:
    """What became of ``asked`` requests; ``late`` ones are right as well.

    ``lost`` had no answer of any kind; ``errors`` are counted by status and code; ``stray`` came
    unasked, beside the others.
    """

    asked: int = 0
    right: int = 0
    wrong: int = 0
    late: int = 0
    lost: int = 0
    stray: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Requests without a right answer in time, and answers without a request."""
        return self.asked - self.right + self.late + self.stray


@dataclass(slots=True)
class Outcome:
    """What came of a load.

    ``counts`` has every request that was sent in the time that counts, those too that were answered
    after it; ``latencies_ms`` are theirs, sorted. ``ended`` are the right answers that came within
    these ``seconds``, whenever they were asked for: a window cut out of a steady flow. With a
    ``count`` the window lasts from the first request to the last answer, so that both are the same.
    ``cpu_s`` is what the generator itself used in it.
    """

    counts: Counts
    warm: Counts
    ended: int
    seconds: float
    cpu_s: float
    latencies_ms: list[float]

    @property
    def per_second(self) -> float:
        """Right answers per second."""
        return self.ended / self.seconds if self.seconds else 0.0

    def percentile_ms(self, share: float) -> float:
        """The latency that ``share`` of the answers did not exceed; 0 if there are none."""
        return percentile(self.latencies_ms, share)


def percentile(ordered: list[float], share: float) -> float:
    """The least of the sorted values that ``share`` of them do not exceed; 0 without values."""
    if not ordered:
        return 0.0
    rank = -(-share * len(ordered) // 1)  # Rounded up.
    return ordered[min(max(int(rank), 1), len(ordered)) - 1]


def run(
    load: Load,
    *,
    begins: Callable[[], object] = lambda: None,
    ends: Callable[[], object] = lambda: None,
) -> Outcome:
    """Send a load from a process of its own and wait for all its answers.

    ``begins`` and ``ends`` are called when the time that counts begins and ends. Raises
    ``RuntimeError`` when the generator fails, as when nothing listens.
    """
    told = told_by("bench.speed.generator", asdict(load), begins, ends)
    told["counts"], told["warm"] = Counts(**told["counts"]), Counts(**told["warm"])
    return Outcome(**told)


class _Generator:
    """All connections of a load, and what they have counted."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self._counts, self._warm = Counts(), Counts()
        self._latencies_ms: list[float] = []
        self._asking = self._counting = False
        self._left = load.count
        self._number = 0
        self._ended = 0
        self._window_open = False
        self._clients: list[Client] = []
        self._idle: set[Client] = set()
        self._all_idle = asyncio.Event()

    # -- what a client asks and tells

    def next_question(self) -> int | None:
        """The number of the next question, None if there is none for now."""
        if not self._asking or (self._counting and self.load.count and not self._left):
            return None
        if self._counting:
            self._left -= 1
        self._number += 1
        (self._counts if self._counting else self._warm).asked += 1
        return self._number

    @property
    def counting(self) -> bool:
        """Whether what is asked now counts."""
        return self._counting

    def rest(self, client: Client) -> None:
        """The client has nothing to ask for now."""
        self._idle.add(client)
        if len(self._idle) == len(self._clients):
            self._all_idle.set()

    def answered(self, verdict: str, seconds: float, *, counted: bool) -> None:
        """An answer came: ``right``, ``wrong``, or the error's code; ``counted`` when asked."""
        counts = self._counts if counted else self._warm
        if verdict == "right":
            counts.right += 1
            counts.late += seconds > self.load.late_s
            self._ended += self._window_open
        elif verdict == "wrong":
            counts.wrong += 1
        else:
            counts.errors[verdict] = counts.errors.get(verdict, 0) + 1
        if counted:
            self._latencies_ms.append(seconds * 1000)

    def lost(self, *, counted: bool) -> None:
        """No answer came."""
        (self._counts if counted else self._warm).lost += 1

    def stray(self) -> None:
        """Something came that nobody had asked for."""
        self._counts.stray += 1

    # -- the course of a load

    async def run(self) -> Outcome:
        """Send it all and wait for what is in flight at the end."""
        load = self.load
        form = FORMS[load.form]
        url = urlsplit(load.url)
        server = (url.hostname or "127.0.0.1", url.port or 80)
        self._clients = [
            Client(
                self,
                form,
                server,
                path=load.path or form.path,
                headers=dict(load.headers),
                model=load.model,
                tag=load.tag,
            )
            for _ in range(load.connections)
        ]
        for at in range(0, load.connections, _OPENED):
            await asyncio.gather(*(c.connect() for c in self._clients[at : at + _OPENED]))
        impatience = asyncio.create_task(self._watch())
        self._idle.update(self._clients)
        if load.warm_s:
            self._start()
            await asyncio.sleep(load.warm_s)
            if load.count:
                await self._rested()
        print("begins", flush=True)
        began, cpu = time.perf_counter(), time.process_time()
        self._counting = self._window_open = True
        self._start()
        if load.count:
            await self._rested()
        else:
            await asyncio.sleep(load.seconds)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        self._window_open = False
        print("ends", flush=True)
        await self._rested()
        impatience.cancel()
        for client in self._clients:
            client.close()
        for counts in (self._counts, self._warm):
            known = counts.right + counts.wrong + counts.lost + sum(counts.errors.values())
            assert known == counts.asked, f"{known} outcomes of {counts.asked} requests"
        return Outcome(
            self._counts, self._warm, self._ended, seconds, cpu, sorted(self._latencies_ms)
        )

    def _start(self) -> None:
        self._asking = True
        idle, self._idle = self._idle, set()
        self._all_idle.clear()
        for client in idle:
            client.ask()

    async def _rested(self) -> None:
        """Until every client is idle: a count is asked to its end, all else ends with an answer."""
        if not (self._counting and self.load.count):
            self._asking = False
        await self._all_idle.wait()

    async def _watch(self) -> None:
        """Give up on answers that do not come."""
        while True:
            await asyncio.sleep(1)
            before = time.perf_counter() - self.load.patience_s
            for client in self._clients:
                client.give_up_before(before)


def _failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An exception in a callback: some client would wait for ever, so that the run is over."""
    loop.default_exception_handler(context)
    loop.stop()


def main(argument: str) -> None:
    """Run the load that is described and print what came of it."""
    allow_descriptors()
    load = Load(**json.loads(argument))

    async def send() -> Outcome:
        asyncio.get_running_loop().set_exception_handler(_failed)
        return await _Generator(load).run()

    tell(asdict(uvloop.run(send())))


if __name__ == "__main__":
    main(sys.argv[1])
