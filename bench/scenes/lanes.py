"""What people feel of 5,000 batch items behind the same permits, and what the batch gets."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect, insort
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from bench.chart import Panel, Series, draw
from bench.scenes.scene import Report, Run, Scene, percentile, running, until
from bench.scenes.traffic import Asked, arrivals, ask_at, ask_in_turn
from bench.upstream import Seen
from chat.settings import ChatdConfig

__all__ = ["chart"]

#: Share of the upstream's capacity that people alone use.
LOAD = 0.4
BATCH = 5_000
#: ``max_batch_wait_s`` where people saturate the upstream, so that its end is soon seen.
PATIENCE_S = 5.0
_ALONE, _BESIDE, _FIFO = "#0072b2", "#d55e00", "#999999"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Permits and the length of a call: what the upstream can do. Times are seconds."""

    permits: int
    call_s: float
    seconds: float
    batch: int
    seed: int = 1

    @property
    def name(self) -> str:
        """As the tables show it."""
        length = f"{self.call_s:g} s" if self.call_s >= 1 else f"{self.call_s * 1000:g} ms"
        return f"{self.permits} permit{'s' if self.permits > 1 else ''}, {length} calls"

    @property
    def moments(self) -> list[float]:
        """When people ask: the same moments in every run."""
        return arrivals(self.seed, LOAD * self.permits / self.call_s, self.seconds)

    def in_one_queue(self) -> list[Asked]:
        """Computed: the same requests behind the batch, first come, first served."""
        free = [0.0] * self.permits
        for _ in range(self.batch):
            free[0] += self.call_s
            free.sort()
        found = []
        for due in self.moments:
            free[0] = max(free[0], due) + self.call_s
            found.append(Asked(due, free[0] - due, 200))
            free.sort()
        return found


@dataclass(frozen=True, slots=True)
class _Found:
    """The three runs of one case. ``fifo`` is computed where measuring would take hours."""

    case: Case
    alone: list[Asked]
    beside: list[Asked]
    fifo: list[Asked]
    computed: bool


def chart(report: Report, run: Run) -> None:
    """What people wait alone, beside a batch and in one queue with it; what the batch gets."""
    batch = run.count(BATCH, 800)
    fast = _short_calls(report, run, batch)
    slow = _long_calls(report, run, batch)
    for found in (fast, slow):
        _compare(report, found)
    run.svg.parent.mkdir(parents=True, exist_ok=True)
    run.svg.write_text(
        draw("Chats beside a batch on one budget", [_panel(fast), _panel(slow)]), "utf-8"
    )
    report.say("chart", run.svg)


def _short_calls(report: Report, run: Run, batch: int) -> _Found:
    """Eight permits and calls of 200 ms, one run after the other."""
    case = Case(permits=8, call_s=0.2, seconds=run.seconds(60, 15), batch=batch)
    with _before(case) as scene:
        alone = asyncio.run(_people(scene, case))
    with _before(case) as scene:
        scene.admit_many(batch, tag="batch")
        _batch_alone(report, {case: scene})
        began = time.monotonic()
        beside = asyncio.run(_people(scene, case))
        _batch_beside(report, case, scene, began)
    with _before(case) as scene:
        scene.admit_many(batch, tag="batch")
        fifo = asyncio.run(_one_queue(scene, case))
    with _before(case, f"max_batch_wait_s = {PATIENCE_S}") as scene:
        scene.admit_many(1000, tag="batch")
        crowd = asyncio.run(_crowd(scene, case, run.seconds(40, 20)))
        _saturated(report, case, crowd)
    return _Found(case, alone, beside, fifo, computed=False)


def _long_calls(report: Report, run: Run, batch: int) -> _Found:
    """One permit and calls of 10 s, three times over, since few people ask within five minutes.

    Such calls leave the machine idle, so that all runs share it, and the one that is saturated by
    people and has calls of 1 s besides.
    """
    cases = [
        Case(permits=1, call_s=10.0, seconds=run.seconds(300, 60), batch=batch, seed=seed)
        for seed in range(1, run.count(4, 2))
    ]
    full = Case(permits=1, call_s=1.0, seconds=run.seconds(90, 30), batch=batch)
    with ExitStack() as stack:
        alone = {case: stack.enter_context(_before(case)) for case in cases}
        beside = {case: stack.enter_context(_before(case)) for case in cases}
        queue = stack.enter_context(_before(cases[0]))
        crowded = stack.enter_context(_before(full, f"max_batch_wait_s = {PATIENCE_S}"))
        for scene in (*beside.values(), queue, crowded):
            scene.admit_many(batch, tag="batch")
        _batch_alone(report, beside)

        async def ask() -> tuple[list[list[Asked]], list[list[Asked]], list[Asked], _Crowd]:
            async with asyncio.TaskGroup() as group:
                first = [group.create_task(_people(s, c)) for c, s in alone.items()]
                second = [group.create_task(_people(s, c)) for c, s in beside.items()]
                third = group.create_task(_one_queue(queue, cases[0]))
                fourth = group.create_task(_crowd(crowded, full, full.seconds))
            return (
                [task.result() for task in first],
                [task.result() for task in second],
                third.result(),
                fourth.result(),
            )

        began = time.monotonic()
        alone_asked, beside_asked, queue_asked, crowd = asyncio.run(ask())
        for case, scene in beside.items():
            _batch_beside(report, case, scene, began)
        _saturated(report, full, crowd)
    unanswered = sum(asked.status == 0 for asked in queue_asked)
    report.rule(
        f"{cases[0].name}: in one queue none of {len(queue_asked)} was answered in"
        f" {cases[0].seconds:.0f} s; those times are computed",
        unanswered == len(queue_asked),
    )
    return _Found(
        cases[0],
        _flat(alone_asked),
        _flat(beside_asked),
        _flat(case.in_one_queue() for case in cases),
        computed=True,
    )


# -- the runs -------------------------------------------------------------------------------------


def _before(case: Case, settings: str = "") -> AbstractContextManager[Scene]:
    """chatd before the upstream of a case."""
    return running(concurrency=case.permits, delay_s=case.call_s, settings=settings)


async def _people(scene: Scene, case: Case) -> list[Asked]:
    """The interactive requests of a case."""
    limit_s = case.seconds + 60 * case.call_s + 60
    return await ask_at(
        scene.stack.url, case.moments, lane="interactive", tag="person", limit_s=limit_s
    )


async def _one_queue(scene: Scene, case: Case) -> list[Asked]:
    """The same requests sent in the batch lane: one queue for all."""
    whole = case.batch * case.call_s / case.permits
    limit_s = case.seconds if whole > 600 else 2 * whole + 2 * case.seconds
    return await ask_at(scene.stack.url, case.moments, lane="batch", tag="person", limit_s=limit_s)


@dataclass(frozen=True, slots=True)
class _Crowd:
    """What came of people who ask for more than there is, from when the batch had waited."""

    asked: list[Asked]
    calls: list[Seen]
    seconds: float


async def _crowd(scene: Scene, case: Case, seconds: float) -> _Crowd:
    """Three people for each permit, each asking again once answered."""
    since = time.monotonic() + PATIENCE_S + 1
    till = time.monotonic() + seconds
    asked = await ask_in_turn(
        scene.stack.url, 3 * case.permits, seconds, lane="interactive", tag="person"
    )
    return _Crowd(asked, [s for s in scene.accepted() if since <= s.at < till], till - since)


# -- what is asked of them ------------------------------------------------------------------------


def _batch_alone(report: Report, scenes: Mapping[Case, Scene]) -> None:
    """With nobody there, the batch has all permits but one, or the only one."""
    longest = max(case.call_s for case in scenes)
    since = time.monotonic() + max(1.0, longest / 2)
    till = since + max(5.0, 3 * longest)
    until(till)
    for case, scene in scenes.items():
        name = f"{case.name}, run {case.seed}: batch alone"
        most = max(1, case.permits - 1)
        used = _in_use(scene.accepted(), since, till)
        report.say(f"{name}, permits in use", f"{used:.2f} of {most} it may have")
        report.rule(f"{name} uses 90 % of what it may have", used >= 0.9 * most)
        report.rule(f"{name} never has more", scene.upstream.peak <= most)


def _batch_beside(report: Report, case: Case, scene: Scene, began: float) -> None:
    """While people ask, the batch has what they leave, in its order."""
    name = f"{case.name}, run {case.seed}: beside people, batch"
    till = began + case.moments[-1]
    calls = [seen for seen in scene.accepted() if began <= seen.at < till]
    batch = sum(seen.question.startswith("batch") for seen in calls)
    used = _in_use(scene.accepted(), began, till)
    report.say(
        f"{name} calls",
        f"{batch} of {len(calls)}; {used:.2f} of {case.permits} permits in use",
    )
    overtaken = _most_overtaken(
        [
            int(seen.question.removeprefix("batch "))
            for seen in scene.accepted()
            if seen.question.startswith("batch ")
        ]
    )
    report.rule(
        f"{name} stays in order: none was overtaken by more than {10 * case.permits} ({overtaken})",
        overtaken <= 10 * case.permits,
    )


def _most_overtaken(started: Sequence[int]) -> int:
    """How many younger jobs began before the one that was overtaken most.

    ``started`` are the places of admission in the order of starting. A place that is missing below
    the highest one was overtaken by all above it.
    """
    before: list[int] = []
    most = 0
    for place in started:
        most = max(most, len(before) - bisect(before, place))
        insort(before, place)
    missing = set(range(max(started, default=0))).difference(started)
    return max([most, *(len(before) - bisect(before, place) for place in missing)])


def _saturated(report: Report, case: Case, crowd: _Crowd) -> None:
    """People ask for more than there is: the batch gets its trickle all the same."""
    share = ChatdConfig().batch_min_share
    batch = sum(seen.question.startswith("batch") for seen in crowd.calls)
    part = batch / max(1, len(crowd.calls))
    times = [asked.latency_s for asked in crowd.asked]
    p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
    name = f"{case.name}: saturated by people"
    report.say(f"{name}, batch's part of the calls", f"{part:.1%} ({batch} of {len(crowd.calls)})")
    used = len(crowd.calls) * case.call_s / crowd.seconds
    report.say(f"{name}, permits in use", f"{used:.2f} of {case.permits}")
    report.say(f"{name}, their p50 / p99", f"{p50:.2f} / {p99:.2f} s")
    report.rule(f"{name}, all are answered", all(asked.status == 200 for asked in crowd.asked))
    bound = 2 * sum(times) / len(times) + case.call_s
    report.rule(
        f"{name}, in turn: p99 {p99:.2f} s <= 2 x the mean + one call = {bound:.2f} s", p99 <= bound
    )
    report.rule(f"{name}, batch gets its trickle of {share:.0%}", 0.7 * share <= part <= 2 * share)


# -- what they came to ----------------------------------------------------------------------------


def _compare(report: Report, found: _Found) -> None:
    case = found.case
    rows = []
    for name, asked in (
        ("alone", found.alone),
        (f"beside {case.batch} batch items", found.beside),
        (f"one queue{', computed' if found.computed else ''}", found.fifo),
    ):
        times = [one.latency_s for one in asked]
        right = sum(one.status == 200 for one in asked)
        rows.append(
            (
                name,
                len(asked),
                right,
                *(f"{percentile(times, share):.2f}" for share in (0.5, 0.9, 0.99, 1)),
            )
        )
    report.table((case.name, "asked", "answered", "p50 s", "p90 s", "p99 s", "worst s"), rows)
    alone, beside = (_p99(asked) for asked in (found.alone, found.beside))
    bound = 1.5 * alone + case.call_s
    report.rule(
        f"{case.name}: p99 beside a batch {beside:.2f} s <= 1.5 x {alone:.2f} s + one call"
        f" = {bound:.2f} s",
        beside <= bound,
    )
    report.rule(
        f"{case.name}: everybody was answered",
        all(one.status == 200 for one in (*found.alone, *found.beside)),
    )


def _flat(parts: Iterable[Sequence[Asked]]) -> list[Asked]:
    return [asked for part in parts for asked in part]


def _p99(asked: Sequence[Asked]) -> float:
    return percentile((one.latency_s for one in asked), 0.99)


def _panel(found: _Found) -> Panel:
    def series(name: str, colour: str, asked: Sequence[Asked], *, hollow: bool = False) -> Series:
        times = [one.latency_s for one in asked]
        p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
        return Series(
            f"{name}: p50 {_shown(p50)}, p99 {_shown(p99)} (dashed)",
            colour,
            [(one.due, one.latency_s) for one in asked],
            line=p99,
            open=hollow,
        )

    case = found.case
    return Panel(
        f"{case.name}; people use {LOAD:.0%} of it; {case.batch:,} batch items",
        [
            series(
                "one queue for both" + (" (computed)" if found.computed else ""),
                _FIFO,
                found.fifo,
                hollow=found.computed,
            ),
            series("chats beside the batch", _BESIDE, found.beside),
            series("the same chats alone", _ALONE, found.alone),
        ],
    )


def _shown(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _in_use(calls: Sequence[Seen], since: float, till: float) -> float:
    """Calls that ran at the same time, on average between two moments."""

    def clipped(seen: Seen) -> float:
        return max(0.0, min(till, seen.ended_at or till) - max(since, seen.at))

    return sum(map(clipped, calls)) / (till - since)
