"""nginx before chatd: first tokens, the times between events, and a stream of minutes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bench.speed.passes import TURNS
from bench.speed.sheet import Sheet
from bench.streams.figures import Times, spread
from bench.streams.follower import Follower
from bench.streams.hang_up import WAYS, hung_up, show
from bench.streams.load import Load, run
from bench.streams.reading import FORMS
from bench.streams.script import Script
from bench.streams.world import World, running
from tests.nginx import Nginx

__all__ = ["through"]

#: Longer than nginx waits for by itself, at both ends.
_PAUSE_S = 75.0
_HANG_UPS = 24


@dataclass(frozen=True, slots=True)
class Long:
    """A stream of minutes: how it ended, how long it was, and its longest time without a byte."""

    what: str
    verdict: str
    seconds: float
    pieces: int
    silent_s: float


def _long(url: str, what: str, script: Script, form: str, timeout_s: float) -> Long:
    with Follower.asking(
        url, FORMS[form], script.question, timeout_s=timeout_s, patience_s=120
    ) as follower:
        follower.rest()
        reading = follower.reading
        heard = sorted(at for at, _ in (*reading.arrivals, *reading.comments))
        seconds = heard[-1] - follower.began if heard else 0.0
    silent = max((after - before for before, after in pairwise(heard)), default=0.0)
    verdict = reading.verdict(script.whole())
    return Long(what, verdict, seconds, len(reading.arrivals), silent)


def _times(sheet: Sheet, world: World, nginx: Nginx, lanes: Sequence[int], seconds: float) -> None:
    """The same streams directly and through both proxies, in turns."""
    urls = {
        "direct": world.stack.url,
        "gateway": nginx.url,
        "plain nginx": nginx.control,
    }
    found: dict[tuple[int, str, int], Times] = {}
    wrong = 0
    for turn in TURNS:
        for count in lanes:
            for way in list(urls) if turn == 1 else list(urls)[::-1]:
                load = Load(
                    url=urls[way],
                    form="chat",
                    lanes=count,
                    tag=secrets.token_hex(4),
                    pieces=25,
                    seconds=seconds,
                    warm_s=0.5,
                )
                outcome = run(load)
                wrong += sum(outcome.verdicts.values()) - outcome.verdicts.get("right", 0)
                found[count, way, turn] = Times.of(outcome.streams, world.upstream.calls())
    rows = []
    for count in lanes:
        for way in urls:
            passes = [found[count, way, turn] for turn in TURNS]
            direct = [found[count, "direct", turn] for turn in TURNS]
            added = [
                spread(one.first)[0] - spread(other.first)[0]
                for one, other in zip(passes, direct, strict=True)
            ]
            rows.append(
                (
                    way,
                    count,
                    *(_both([spread(one.first)[at] for one in passes]) for at in (0, 1)),
                    _both(added, 2),
                    *(_both([spread(one.gaps)[at] for one in passes]) for at in (0, 1)),
                    _both([one.gaps[-1] for one in passes]),
                )
            )
    head = ("way", "streams", "first p50 ms", "p99", "added p50", "gap p50", "p99", "most")
    print("\npieces each 20 ms; times in ms, pass 1 / pass 2", flush=True)
    sheet.table(head, rows)
    sheet.raw["times"] = [list(map(str, row)) for row in rows]
    sheet.rule("every one of these streams is right", not wrong)
    # What is buffered comes in large pieces with long gaps between them.
    buffered = [key for key, times in found.items() if spread(times.gaps)[0] > 2 * 20]
    sheet.rule(f"no way holds events back {buffered or ''}", not buffered)


def _both(values: Sequence[float], digits: int = 1) -> str:
    return " / ".join(f"{value:,.{digits}f}" for value in values)


def through(*, minutes_s: float, lanes: Sequence[int], seconds: float) -> int:
    """Streams of so many seconds go on, and beside them one after another is measured."""
    sheet = Sheet(name="streams-gateway")
    sheet.begin(f"nginx before chatd; streams of {minutes_s:g} s beside short ones")
    timeout_s = minutes_s * 2 + 60
    pause_s = min(_PAUSE_S, minutes_s / 4)
    steady = {"pieces": int(minutes_s * 10), "every_ms": 100.0}
    sparse = {"pieces": 4, "every_ms": pause_s * 1000, "first_ms": pause_s * 1000}
    longs: dict[str, tuple[dict[str, Any], str]] = {
        "10 tokens a second": (steady, "chat"),
        "the same in OpenAI's format": (steady, "completion"),
        f"a token each {pause_s:g} s": (sparse, "chat"),
    }
    with (
        # Of one upstream call too, whatever the request says.
        running(settings=f"timeout_s = {timeout_s}") as world,
        Nginx(world.folder / "nginx", world.stack.url, world.stack.config, patient=True) as nginx,
        ThreadPoolExecutor(2 * len(longs)) as pool,
    ):
        asked = [
            pool.submit(
                _long,
                url,
                f"{what}, {way}",
                Script(name=secrets.token_hex(8), **fields),
                form,
                timeout_s,
            )
            for way, url in (("gateway", nginx.url), ("plain nginx", nginx.control))
            for what, (fields, form) in longs.items()
        ]
        _times(sheet, world, nginx, lanes, seconds)
        found = [hung_up(world, nginx.url, way) for way in (WAYS * 3)[:_HANG_UPS]]
        show(sheet, found, "through the gateway: ")
        streams = [one.result() for one in asked]
    sheet.table(
        ("stream", "seconds", "events of text", "longest silence s", "came"),
        [
            (one.what, f"{one.seconds:.1f}", one.pieces, f"{one.silent_s:.1f}", one.verdict)
            for one in streams
        ],
    )
    cut = [one.what for one in streams if one.verdict != "right"]
    sheet.rule(f"no long stream was cut {cut or ''}", not cut)
    sheet.raw["long"] = [f"{one}" for one in streams]
    return sheet.end()
