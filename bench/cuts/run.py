"""A life played again and again, struck at its first command, its second, and so on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench.cuts.lives import Life
from bench.cuts.verdict import Verdict
from bench.cuts.world import Action, World
from bench.redis_proxy import Place
from bench.scenes.scene import Report

__all__ = ["MOST", "Tally", "play"]

#: The most commands of one life that are struck one after the other.
MOST = 40
#: The books are looked at once in so many lives, and at the end of each kind.
_BOOKS_EVERY = 20
#: A life differs a little from one time to the next: one that ends early is played again so often.
_MISSES = 3
#: What goes wrong so often goes wrong every time.
_ENOUGH = 5


@dataclass(slots=True)
class Tally:
    """What came of one kind of life. ``wrong`` and ``books`` say what should not have been."""

    lives: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    books: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Series:
    """The strikes of one action in one place."""

    reached: int = 0
    whole: bool = False
    ends: Counter[str] = field(default_factory=Counter)
    further: Counter[str] = field(default_factory=Counter)


def play(
    world: World, life: Life, report: Report, *, actions: Iterable[Action], most: int = MOST
) -> Tally:
    """Strike every command of a life, up to ``most``, in both places; print what came of it."""
    tally = Tally()
    print(f"{life.title}: {life.told}", flush=True)
    _one(world, life, tally, 0, Place.BEFORE, Action.CUT)
    report.say("commands of an undisturbed life", _shortened(world.proxy.seen))
    for action in actions:
        for place in Place:
            _series(world, life, tally, report, action=action, place=place, most=most)
    tally.books += world.books()
    report.say("struck, by command", _counted(tally.struck))
    for fault in [*tally.wrong, *tally.books]:
        report.say("WRONG", fault)
    report.rule(
        f"{life.title}: each of {tally.lives} lives ended once, as it should, whichever "
        f"of {tally.struck.total()} commands was struck",
        not tally.wrong,
    )
    report.rule(f"{life.title}: the books add up, and the audit finds no breach", not tally.books)
    return tally


def _series(
    world: World,
    life: Life,
    tally: Tally,
    report: Report,
    *,
    action: Action,
    place: Place,
    most: int,
) -> None:
    series, began, misses = _Series(), time.monotonic(), 0
    mended, deaths, known = world.mended, world.deaths, len(tally.wrong)
    while series.reached < most and len(tally.wrong) - known < _ENOUGH:
        reached, verdict = _one(world, life, tally, series.reached + 1, place, action)
        series.ends.update(verdict.ends)
        series.further.update(verdict.further)
        misses = 0 if reached else misses + 1
        series.reached += reached
        if misses == _MISSES:
            series.whole = True
            break
    if world.deaths > deaths:
        tally.wrong.append(
            f"{action} {place}: the process ended by itself {world.deaths - deaths} times"
        )
    told = [
        f"n = 1 to {series.reached}{'' if series.whole else ' (not all of them)'}",
        _counted(series.ends),
        f"further calls: {_counted(series.further)}" if series.further else "no further calls",
    ]
    if world.mended > mended:
        told.append(f"wake-ups sent again: {world.mended - mended}")
    report.say(f"{action} {place}", f"{'; '.join(told)}; {time.monotonic() - began:.1f} s")


def _one(
    world: World, life: Life, tally: Tally, n: int, place: Place, action: Action
) -> tuple[bool, Verdict]:
    """Play a life once; whether its n-th command came, and how it ended."""
    tally.lives += 1
    before = world.stack.store.counters().get("accepted", 0)
    world.prepare(n, place, action)
    # It serves as an Idempotency-Key too, and so has no spaces.
    question = f"{life.process}-{life.name}-{action}-{place}-{n}-{tally.lives}"
    try:
        verdict = life.play(world, question)
    except AssertionError as error:  # What is waited for did not come.
        verdict = Verdict(["unended"], wrong=[str(error)])
    world.rest()
    accepted = world.stack.store.counters()["accepted"] - before
    if accepted != life.jobs:
        verdict.wrong.append(f"{accepted} jobs accepted in place of {life.jobs}")
    command = world.proxy.seen[n - 1] if world.reached else "none"
    if world.struck:
        tally.struck[command] += 1
    if verdict.wrong:
        faults = "; ".join(verdict.wrong)
        tally.wrong.append(f"{life.title}, {action} {place} command {n} ({command}): {faults}")
    if tally.lives % _BOOKS_EVERY == 0:
        tally.books += world.books()
    return world.reached, verdict


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"


def _shortened(names: Sequence[str]) -> str:
    """The names in their order; those that repeat as a number."""
    told: list[tuple[str, int]] = []
    for name in names:
        if told and told[-1][0] == name:
            told[-1] = (name, told[-1][1] + 1)
        else:
            told.append((name, 1))
    return " · ".join(name if count == 1 else f"{count} x {name}" for name, count in told)
