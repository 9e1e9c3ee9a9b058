"""Streams that are left at random points, and resumed until all of each is there."""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from bench.speed.sheet import Sheet
from bench.streams.follower import Follower, request
from bench.streams.lanes import Streamed
from bench.streams.load import Load, run
from bench.streams.reading import Reading
from bench.streams.upstream import Call
from bench.streams.world import World, running

__all__ = ["resume"]

#: How many jobs are looked at once more when they are over.
_AFTERWARDS = 50


def resume(*, streams: int, lanes: int, tokens: int, drops: int) -> int:
    """Half of them in chatd's format and half in OpenAI's, with a key each."""
    sheet = Sheet(name="streams-resume")
    sheet.begin(
        f"{streams} streams of {tokens} tokens at 50/s, {lanes} at a time, each left {drops} times"
    )
    with running() as world:
        load = Load(
            url=world.stack.url,
            form="",
            lanes=lanes,
            tag=secrets.token_hex(4),
            pieces=tokens,
            first_ms=100.0,
            streams=streams,
            drops=drops,
        )
        outcome = run(load)
        afterwards = Counter(
            verdict
            for each in outcome.streams[:_AFTERWARDS]
            for verdict in _afterwards(world, load, each)
        )
        calls = world.upstream.calls()
        states = Counter(world.stack.record(each.job_id)["state"] for each in outcome.streams)
    ways: Counter[str] = Counter()
    for each in outcome.streams:
        ways.update(each.ways)
    resumed = ways.total() - streams
    sheet.say("asked for by POST with its key, by GET of its events", dict(ways))
    sheet.say("times a stream was resumed", resumed)
    sheet.say("events that came", sum(each.events for each in outcome.streams))
    sheet.say("seconds", f"{outcome.seconds:.1f}")
    sheet.say("what came of the streams", outcome.verdicts)
    sheet.say("what the records say", dict(states))
    sheet.say("jobs that were over, asked for whole and from the middle", dict(afterwards))
    sheet.rule(
        "every text is complete byte for byte, no event came twice or out of order",
        outcome.verdicts == {"right": streams},
    )
    sheet.rule("the streams were left and resumed", resumed >= streams * drops * 0.9)
    sheet.rule("so is every stream of a job that is over", set(afterwards) == {"right"})
    sheet.rule("each cost one upstream call", _once(load, calls))
    sheet.raw["streams"] = [
        {**asdict(each), "arrivals": len(each.arrivals)} for each in outcome.streams
    ]
    sheet.raw["verdicts"], sheet.raw["generator_cpu_s"] = outcome.verdicts, outcome.cpu_s
    return sheet.end()


def _once(load: Load, calls: Mapping[str, Sequence[Call]]) -> bool:
    expected = {load.script(number).name: 1 for number in range(load.streams)}
    return {name: len(made) for name, made in calls.items()} == expected


def _afterwards(world: World, load: Load, streamed: Streamed) -> list[str]:
    """Verdicts on the events of a job that is over: all of them, and those behind one of them."""
    whole = load.script(int(streamed.name.rpartition("-")[2])).whole()
    first = _events(world, streamed.job_id)
    told = first.verdict(whole)
    if told != "right":
        return [told]
    at = random.Random(streamed.name).randrange(len(first.ids))  # noqa: S311 - the same each run
    rest = _events(world, streamed.job_id, first.ids[at])
    same = rest.ids == first.ids[at + 1 :] and first.text.endswith(rest.text)
    return [told, "right" if same and not rest.faults else f"not what follows {first.ids[at]}"]


def _events(world: World, job_id: str, last_id: str = "") -> Reading:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    url = world.stack.url
    sent = request(url, "GET", f"/v1/jobs/{job_id}/events", headers=headers)
    with Follower(url, sent, Reading("chat")) as follower:
        follower.rest()
    return follower.reading
