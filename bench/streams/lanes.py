"""One stream of a load: asked for whole, or left and resumed again and again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, cast
from urllib.parse import urlsplit

from bench.streams.decoding import Response
from bench.streams.follower import request
from bench.streams.reading import Form, Reading
from bench.streams.script import Script

__all__ = ["Lane", "Left", "Streamed"]

#: Seconds without a byte after which a stream is given up.
_PATIENCE_S = 60.0
#: Seconds that a client that left is away, at the most.
_AWAY_S = 0.3


@dataclass(slots=True)
class Streamed:
    """What came of one stream. ``began`` is when it was asked for; ``first_s`` follows from it.

    ``arrivals`` are those of ``Reading``. ``ways`` counts how it was asked for: ``POST``, and
    ``GET`` of its job's events; ``events`` how many events came over all of them.
    """

    name: str
    began: float
    arrivals: list[tuple[float, int]]
    verdict: str
    events: int = 0
    job_id: str = ""
    ways: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, wire: dict[str, Any]) -> Self:
        """Read what ``asdict`` made of one."""
        return cls(**wire)

    @property
    def first_s(self) -> float:
        """Seconds from the request to the first piece of text."""
        return self.arrivals[0][0] - self.began if self.arrivals else float("nan")


class Left:
    """When a client leaves its stream: ``drops`` times, each after some events at random."""

    def __init__(self, drops: int, seed: int) -> None:
        self.drops = drops
        self._chance = random.Random(seed)  # noqa: S311 - a run is to be the same as the last one

    def after(self, events: int) -> int:
        """After how many events of ``events`` it leaves next; 0 is before the first one."""
        return self._chance.randrange(events)

    def away_s(self) -> float:
        """How long it is away then."""
        return self._chance.random() * _AWAY_S

    def resets(self) -> bool:
        """Whether it breaks its connection rather than close it."""
        return self._chance.random() < 0.5

    def early_s(self, first_s: float) -> float | None:
        """In a tenth of all cases it leaves before the first piece, which is this far away."""
        return self._chance.random() * first_s if self._chance.random() < 0.1 else None


class _Connection(asyncio.Protocol):
    """One request; ``over`` tells how it ended: ``end``, ``dropped`` by us, or ``broke``."""

    def __init__(
        self,
        sent: bytes,
        reading: Reading,
        *,
        leave_after: int = -1,
        leave_in_s: float | None = None,
    ) -> None:
        self.response = Response()
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.heard_at = time.monotonic()
        self.events = 0
        self._sent = sent
        self._reading = reading
        self._leave_after = leave_after
        self._leave_in_s = leave_in_s
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        # uvloop's transports have asyncio's methods, not its classes.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._sent)
        self.heard_at = time.monotonic()
        if self._leave_in_s is not None:
            asyncio.get_running_loop().call_later(self._leave_in_s, self._done, "dropped")

    def data_received(self, data: bytes) -> None:
        """Take what is there, up to where it is to be left."""
        self.heard_at = time.monotonic()
        for event in self.response.feed(data):
            if self.events == self._leave_after:
                break
            self._reading.take(event)
            self.events += bool(event.data)
        if self._leave_after == self.events and self.response.status:
            self._done("dropped")
        elif self.response.over:
            self._done("end")

    def connection_lost(self, _: Exception | None) -> None:
        """It ended before its end."""
        self._done("broke")

    def leave(self, *, reset: bool) -> None:
        """Close the connection."""
        if reset:
            self._transport.abort()
        else:
            self._transport.close()

    def _done(self, how: str) -> None:
        if not self.over.done():
            self.over.set_result(how)


class Lane:
    """Asks for streams in one form, each over connections of its own."""

    def __init__(self, url: str, form: Form) -> None:
        self._url = url
        self._form = form
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 80)

    async def whole(self, script: Script) -> Streamed:
        """Ask once and read to the end."""
        reading = Reading(self._form.format)
        sent = request(self._url, "POST", self._form.path, self._form.body(script.question))
        connection = await self._open(_Connection(sent, reading))
        began = connection.heard_at
        how = await self._ended(connection)
        connection.leave(reset=False)
        return self._streamed(script, reading, began, how, connection)

    async def in_parts(self, script: Script, left: Left) -> Streamed:
        """Ask, leave, come back by the key or by the job's id in turns, and at last read the end.

        The last event's id is told each time, so that what comes goes on behind it.
        """
        reading = Reading(self._form.format)
        ways: dict[str, int] = {}
        events, job_id, began = 0, "", time.monotonic()
        drop = 0
        while True:
            last = drop == left.drops
            way = "GET" if drop % 2 and job_id else "POST"
            ways[way] = ways.get(way, 0) + 1
            sent = self._again(script, way, job_id, reading.last_id)
            connection = await self._open(
                _Connection(
                    sent,
                    reading,
                    leave_after=-1 if last else left.after(max(script.pieces // left.drops, 1)),
                    leave_in_s=None if last else left.early_s(script.first_ms / 1000),
                )
            )
            how = await self._ended(connection)
            connection.leave(reset=how == "dropped" and left.resets())
            events += connection.events
            job_id = job_id or connection.response.headers.get("x-chatd-job-id", "")
            if how != "dropped":
                break
            await asyncio.sleep(left.away_s())
            drop += 1
        streamed = self._streamed(script, reading, began, how, connection)
        streamed.events, streamed.ways, streamed.job_id = events, ways, job_id
        return streamed

    def _again(self, script: Script, way: str, job_id: str, last_id: str) -> bytes:
        headers: Mapping[str, str] = {"Last-Event-ID": last_id} if last_id else {}
        if way == "GET":
            path = f"/v1/jobs/{job_id}/events"
            path += "?format=openai" if self._form.format == "openai" else ""
            return request(self._url, "GET", path, headers=headers)
        headers = {**headers, "Idempotency-Key": script.name}
        body = self._form.body(script.question)
        return request(self._url, "POST", self._form.path, body, headers)

    async def _open(self, connection: _Connection) -> _Connection:
        await asyncio.get_running_loop().create_connection(lambda: connection, *self._server)
        return connection

    async def _ended(self, connection: _Connection) -> str:
        while True:
            rest_s = connection.heard_at + _PATIENCE_S - time.monotonic()
            if rest_s <= 0:
                return "silent"
            # The future is not cancelled when the time is over: it is asked again.
            await asyncio.wait({connection.over}, timeout=rest_s)
            if connection.over.done():
                return connection.over.result()

    def _streamed(
        self, script: Script, reading: Reading, began: float, how: str, connection: _Connection
    ) -> Streamed:
        response = connection.response
        if how == "end" and response.streams:
            verdict = reading.verdict(script.whole())
        elif response.streams or how != "end":
            verdict = f"{how} after {len(reading.arrivals)} pieces"
        else:
            verdict = f"status {response.status}: {response.body[:120]!r}"
        job_id = response.headers.get("x-chatd-job-id", "")
        return Streamed(script.name, began, reading.arrivals, verdict, connection.events, job_id)
