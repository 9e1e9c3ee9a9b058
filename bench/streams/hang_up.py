"""Clients that hang up: how long until the upstream sees its connection closed."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from typing import Any

from bench.scenes.scene import percentile
from bench.speed.sheet import Sheet
from bench.streams.follower import Follower
from bench.streams.reading import FORMS
from bench.streams.script import Script
from bench.streams.upstream import Call
from bench.streams.world import World, running
from tests.waiting import eventually

__all__ = ["WAYS", "Way", "hang_up", "hung_up"]

#: Seconds within which the upstream has to see it.
_BOUND_S = 1.0


@dataclass(frozen=True, slots=True)
class Way:
    """How a client leaves: after how many pieces (0 is before the first one), and whether rudely.

    Before the first piece it leaves once the upstream has its call.
    """

    form: str
    pieces: int
    reset: bool

    @property
    def name(self) -> str:
        """For a table."""
        moment = f"after {self.pieces} pieces" if self.pieces else "before the first piece"
        return f"{self.form}, {moment}, {'reset' if self.reset else 'closed'}"


#: All that are tried, in turns.
WAYS = tuple(
    Way(form, pieces, reset)
    for pieces in (1, 12, 0, 40)
    for form in ("chat", "completion")
    for reset in (False, True)
)


@dataclass(frozen=True, slots=True)
class HungUp:
    """One that hung up: seconds until the upstream saw it (None: never), and the job's record."""

    way: Way
    seconds: float | None
    call: Call
    received: int
    record: dict[str, Any]

    @property
    def kept(self) -> str:
        """What is wrong with the record, or "right".

        It is cancelled, and has all that the client had, with a count of the tokens that came.
        """
        error = self.record["error"] or {}
        if self.record["state"] != "cancelled":
            return f"state {self.record['state']}"
        if not self.call.sent:
            return "right"
        partial = error.get("partial") or {}
        whole = Script(name=self.call.name, pieces=len(self.call.sent)).whole()
        content = partial.get("content") or ""
        if not whole.startswith(content):
            return "a partial text that is another one"
        if len(content) < self.received:
            return "less in the partial text than the client had"
        return "right" if partial.get("output_tokens") else "no count of tokens"


def hung_up(world: World, url: str, way: Way) -> HungUp:
    """Ask for a stream that would go on for 10 s, and hang up on it."""
    script = Script(name=secrets.token_hex(8), pieces=500, first_ms=0 if way.pieces else 3000)
    upstream = world.upstream
    with Follower.asking(url, FORMS[way.form], script.question) as follower:
        if way.pieces:
            follower.until(lambda reading: len(reading.arrivals) >= way.pieces)
        else:
            eventually(lambda: upstream.calls_of(script.name), what="the upstream's call")
        follower.close(reset=way.reset)
    received = len(follower.reading.text)
    call = eventually(
        lambda: next((c for c in upstream.calls_of(script.name) if c.became), None),
        what="the end of the call",
    )
    assert call is not None
    seconds = call.ended_at - follower.closed_at if call.became == "dropped" else None
    # Before its first piece a client was not told its job's id yet.
    job_id = follower.job_id or _newest(world)
    return HungUp(way, seconds, call, received, world.stack.ended(job_id))


def _newest(world: World) -> str:
    found = world.stack.http.get(f"{world.stack.url}/v1/jobs?limit=1", timeout=60).json()
    job_id: str = found["jobs"][0]["id"]
    return job_id


def show(sheet: Sheet, found: Sequence[HungUp], title: str = "") -> None:
    """A line for each way, and the rules."""
    rows = []
    for way in dict.fromkeys(one.way for one in found):
        mine = [one for one in found if one.way == way]
        rows.append((way.name, len(mine), *_spread(mine)))
    rows.append(("all", len(found), *_spread(found)))
    sheet.table(("hung up", "tries", "p50 ms", "p99 ms", "most ms", "missed"), rows)
    records = Counter(one.kept for one in found)
    tokens = sum(len(one.call.sent) for one in found)
    sheet.say(f"{title}what the records say", dict(records))
    sheet.say(f"{title}pieces that the upstream sent of 500 each", f"{tokens / len(found):.0f}")
    late = [one for one in found if one.seconds is None or one.seconds > _BOUND_S]
    sheet.rule(f"{title}the upstream saw each of them within {_BOUND_S:g} s", not late)
    sheet.rule(
        f"{title}each record is cancelled and keeps what had come", set(records) == {"right"}
    )


def _spread(found: Sequence[HungUp]) -> tuple[str, str, str, int]:
    seconds = [one.seconds for one in found if one.seconds is not None]
    p50, p99, most = (percentile(seconds, share) * 1000 for share in (0.5, 0.99, 1.0))
    return f"{p50:.0f}", f"{p99:.0f}", f"{most:.0f}", len(found) - len(seconds)


def hang_up(*, tries: int) -> int:
    """In both formats, early and late, closed and reset, one after the other."""
    sheet = Sheet(name="streams-hang-up")
    sheet.begin(f"{tries} clients hang up on a stream of 50 tokens a second")
    with running() as world:
        found = [hung_up(world, world.stack.url, way) for way in islice(cycle(WAYS), tries)]
    show(sheet, found)
    sheet.raw["tries"] = [
        {"way": one.way.name, "seconds": one.seconds, "record": one.kept, "call": asdict(one.call)}
        for one in found
    ]
    return sheet.end()
