"""What people feel of 5,000 batch items behind the same permits, and what the batch gets."""

from __future__ import annotations

import time
from bisect import bisect, insort
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    short = Case(permits=8, call_s=0.2, seconds=run.seconds(60, 15), batch=batch)
    fast = _Found(
        short,
        _people(report, short, beside=False),
        _people(report, short, beside=True),
        _one_queue(report, short),
        computed=False,
    )
    _saturated(report, short, run.seconds(40, 20))
    slow = _long_calls(report, run, batch)
    for found in (fast, slow):
        _compare(report, found)
    run.svg.parent.mkdir(parents=True, exist_ok=True)
    run.svg.write_text(
        draw("Chats beside a batch on one budget", [_panel(fast), _panel(slow)]), "utf-8"
    )
    report.say("chart", run.svg)


def _long_calls(report: Report, run: Run, batch: int) -> _Found:
    """One permit and calls of 10 s, three times over, since few people ask within five minutes.

    Such calls leave the machine idle, so that all runs can share it.
    """
    cases = [
        Case(permits=1, call_s=10.0, seconds=run.seconds(300, 60), batch=batch, seed=seed)
        for seed in range(1, run.count(4, 2))
    ]
    seconds = Case(permits=1, call_s=1.0, seconds=60, batch=batch)
    with ThreadPoolExecutor(2 * len(cases) + 2) as pool:
        alone = [pool.submit(_people, report, case, beside=False) for case in cases]
        beside = [pool.submit(_people, report, case, beside=True) for case in cases]
        behind = pool.submit(_one_queue, report, cases[0])
        pool.submit(_saturated, report, seconds, run.seconds(90, 30)).result()
        found = _Found(
            cases[0],
            _flat(future.result() for future in alone),
            _flat(future.result() for future in beside),
            _flat(case.in_one_queue() for case in cases),
            computed=True,
        )
        unanswered = sum(asked.status == 0 for asked in behind.result())
    report.rule(
        f"{cases[0].name}: in one queue none of {len(cases[0].moments)} was answered in"
        f" {cases[0].seconds:.0f} s; those times are computed",
        unanswered == len(cases[0].moments),
    )
    return found


# -- the runs -------------------------------------------------------------------------------------


def _people(report: Report, case: Case, *, beside: bool) -> list[Asked]:
    """The interactive requests of a case, alone or beside its batch."""
    with running(concurrency=case.permits, delay_s=case.call_s) as scene:
        if beside:
            scene.admit_many(case.batch, tag="batch")
            _nobody(report, scene, case)
        began = time.monotonic()
        found = ask_at(
            scene.stack.url,
            case.moments,
            lane="interactive",
            tag="person",
            limit_s=case.seconds + 60 * case.call_s + 60,
        )
        if beside:
            _while_people(report, scene, case, began)
        scene.upstream.delay_s = 0.0
    return found


def _nobody(report: Report, scene: Scene, case: Case) -> None:
    """With nobody there, the batch has all permits but one, or the only one."""
    name = f"{case.name}, run {case.seed}: batch alone"
    seconds = max(5.0, 3 * case.call_s)
    since = time.monotonic() + max(1.0, case.call_s / 2)
    until(since + seconds)
    most = max(1, case.permits - 1)
    used = _in_use(scene.accepted(), since, since + seconds)
    report.say(f"{name}, permits in use", f"{used:.2f} of {most} it may have")
    report.rule(f"{name} uses 90 % of what it may have", used >= 0.9 * most)
    report.rule(f"{name} never has more", scene.upstream.peak <= most)


def _while_people(report: Report, scene: Scene, case: Case, began: float) -> None:
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


def _one_queue(report: Report, case: Case) -> list[Asked]:
    """The interactive requests sent in the batch lane: one queue, first come, first served."""
    with running(concurrency=case.permits, delay_s=case.call_s) as scene:
        scene.admit_many(case.batch, tag="batch")
        whole = case.batch * case.call_s / case.permits
        limit_s = case.seconds if whole > 600 else 2 * whole + 2 * case.seconds
        found = ask_at(scene.stack.url, case.moments, lane="batch", tag="person", limit_s=limit_s)
        scene.upstream.delay_s = 0.0
    answered = sum(asked.status == 200 for asked in found)
    report.say(f"{case.name}: one queue for both, answered", f"{answered} of {len(found)}")
    return found


def _saturated(report: Report, case: Case, seconds: float) -> None:
    """People ask for more than there is: the batch gets its trickle all the same."""
    share, patience = ChatdConfig().batch_min_share, 5.0
    with running(
        concurrency=case.permits,
        delay_s=case.call_s,
        settings=f"max_batch_wait_s = {patience}",
    ) as scene:
        scene.admit_many(1000, tag="batch")
        began = time.monotonic()
        people = ask_in_turn(
            scene.stack.url, 3 * case.permits, seconds, lane="interactive", tag="person"
        )
        calls = [
            seen for seen in scene.accepted() if began + patience + 1 <= seen.at < began + seconds
        ]
        scene.upstream.delay_s = 0.0
    batch = sum(seen.question.startswith("batch") for seen in calls)
    part = batch / max(1, len(calls))
    used = len(calls) * case.call_s / (seconds - patience - 1)
    times = [asked.latency_s for asked in people]
    name = f"{case.name}: saturated by people"
    report.say(f"{name}, batch's part of the calls", f"{part:.1%} ({batch} of {len(calls)})")
    report.say(f"{name}, permits in use", f"{used:.2f} of {case.permits}")
    report.say(
        f"{name}, their p50 / p99",
        f"{percentile(times, 0.5):.2f} / {percentile(times, 0.99):.2f} s",
    )
    report.rule(f"{name}, all are answered", all(asked.status == 200 for asked in people))
    bound = 2 * sum(times) / len(times) + case.call_s
    report.rule(
        f"{name}, in turn: p99 {percentile(times, 0.99):.2f} s <= 2 x the mean + one call"
        f" = {bound:.2f} s",
        percentile(times, 0.99) <= bound,
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
