"""How much later tokens come through chatd, and what each of them costs its processes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.processes import cpu_s
from bench.speed.passes import TURNS
from bench.speed.sheet import Sheet
from bench.streams.figures import Times, spread
from bench.streams.load import Load, run
from bench.streams.world import World, running

__all__ = ["first_token"]

#: Each form with the one that asks the same upstream directly.
_BESIDE = {
    "chat": "ollama",
    "completion": "ollama",
    "chat-sse": "openai",
    "completion-sse": "openai",
}
_FORMS = ("ollama", "openai", *_BESIDE)
#: Tokens of a stream where one is asked at a time: short ones, so that there are many first ones.
_SHORT = 10


@dataclass(frozen=True, slots=True)
class Measured:
    """One form at so many streams in one pass; CPU is microseconds for each token."""

    form: str
    lanes: int
    turn: int
    times: Times
    tokens: int
    seconds: float
    verdicts: dict[str, int]
    twice: int
    cpu_us: dict[str, float]

    @property
    def wrong(self) -> int:
        """Streams that were not right, and calls beyond one for each."""
        return sum(self.verdicts.values()) - self.verdicts.get("right", 0) + self.twice

    def to_wire(self) -> dict[str, Any]:
        """What is kept: figures, not every token."""
        shares = (0.01, 0.5, 0.9, 0.99, 0.999, 1.0)
        times = {
            name: dict(
                zip(map(str, shares), spread(getattr(self.times, name), shares), strict=True)
            )
            for name in ("first", "late", "gaps")
        }
        counts = {"streams": len(self.times.first), "tokens_timed": len(self.times.late)}
        return {**asdict(self), "times": times, **counts}


def _measure(world: World, load: Load, turn: int) -> Measured:
    upstream = world.upstream
    target = world.parts("openrouter" if load.form.endswith("sse") else "ollama")
    marks: list[tuple[dict[str, float], int]] = []

    def mark() -> None:
        parts = {**target.cpu_s(), "upstream": cpu_s(upstream.pid)}
        marks.append((parts, upstream.pieces()))

    outcome = run(load, begins=mark, ends=mark)
    (before, sent_before), (after, sent_after) = marks
    tokens = max(sent_after - sent_before, 1)
    cpu = {name: (after[name] - before[name]) * 1e6 / tokens for name in before}
    calls = upstream.calls()
    return Measured(
        load.form,
        load.lanes,
        turn,
        Times.of(outcome.streams, calls),
        tokens,
        outcome.seconds,
        outcome.verdicts,
        sum(len(calls[each.name]) - 1 for each in outcome.streams if each.name in calls),
        {**cpu, "generator": outcome.cpu_s * 1e6 / tokens},
    )


def _tell(one: Measured) -> None:
    p50, p99 = spread(one.times.first)
    rate = one.tokens / one.seconds
    print(
        f"  pass {one.turn}, {one.form:<14} {one.lanes:>4} streams: {rate:>7,.0f} tokens/s, first "
        f"p50 {p50:6.1f} ms, p99 {p99:6.1f} ms"
        + (f", {one.wrong} WRONG: {one.verdicts}" if one.wrong else ""),
        flush=True,
    )


def first_token(
    *, quick: bool, streams: Sequence[int], tokens: int, per_second: float, seconds: float
) -> int:
    """Every form at each number of streams, in two passes of opposite order."""
    sheet = Sheet(name="streams-first-token")
    sheet.begin(f"streams of {tokens} tokens at {per_second:g}/s, {seconds:g} s each")
    found: list[Measured] = []
    with running(("ollama", "openrouter")) as world:
        for turn in TURNS:
            for lanes in streams:
                for form in _FORMS if turn == 1 else _FORMS[::-1]:
                    direct = form in _BESIDE.values()
                    load = Load(
                        url=world.upstream.url if direct else world.stack.url,
                        form=form,
                        lanes=lanes,
                        tag=secrets.token_hex(4),
                        pieces=_SHORT if lanes == 1 else tokens,
                        every_ms=1000 / per_second,
                        seconds=seconds,
                        warm_s=0.5 if lanes == 1 else (0.5 if quick else tokens / per_second),
                    )
                    found.append(_measure(world, load, turn))
                    _tell(found[-1])
        failed = world.stack.balanced().get("failed", 0)
    _show(sheet, found)
    sheet.rule(
        "every stream has its own text, byte for byte, its end, and one upstream call",
        not any(one.wrong for one in found),
    )
    sheet.rule(f"jobs that failed: {failed}", not failed)
    sheet.raw["measured"] = [one.to_wire() for one in found]
    return sheet.end()


def _show(sheet: Sheet, found: Sequence[Measured]) -> None:
    by: Mapping[tuple[str, int, int], Measured] = {
        (one.form, one.lanes, one.turn): one for one in found
    }
    keys = list(dict.fromkeys((one.form, one.lanes) for one in found))
    rows = []
    for form, lanes in sorted(keys, key=lambda key: (key[1], _FORMS.index(key[0]))):
        passes = [by[form, lanes, turn] for turn in TURNS]
        beside = [by[_BESIDE.get(form, form), lanes, turn] for turn in TURNS]
        cells = [_both([spread(one.times.first)[at] for one in passes]) for at in (0, 1)]
        cells += [
            _both(
                [
                    spread(one.times.first)[at] - spread(direct.times.first)[at]
                    for one, direct in zip(passes, beside, strict=True)
                ]
            )
            for at in (0, 1)
        ]
        cells += [_both([spread(one.times.late)[at] for one in passes]) for at in (0, 1)]
        cells.append(_both([spread(one.times.gaps, (0.99,))[0] for one in passes]))
        rows.append((form, lanes, *cells, sum(one.wrong for one in passes)))
    head = ("form", "streams", "first p50 ms", "p99", "added p50", "p99", "token late p50", "p99")
    print("\ntimes in ms, pass 1 / pass 2; added to the same upstream asked directly", flush=True)
    sheet.table((*head, "gap p99", "wrong"), rows)
    print(
        "\nus of a core for each token, with its share of a stream's beginning and end", flush=True
    )
    parts = ("front end", "worker", "Redis", "upstream", "generator")
    sheet.table(
        ("form", "streams", "tokens/s", *parts),
        [
            (
                form,
                lanes,
                _both([by[form, lanes, t].tokens / by[form, lanes, t].seconds for t in TURNS], 0),
                *(_both([by[form, lanes, t].cpu_us[part] for t in TURNS], 0) for part in parts),
            )
            for form, lanes in keys
            if lanes > 1
        ],
    )


def _both(values: Sequence[float], digits: int = 1) -> str:
    return " / ".join(f"{value:,.{digits}f}" for value in values)
