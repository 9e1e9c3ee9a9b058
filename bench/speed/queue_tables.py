"""The tables of queue and jobs: what holding, draining, submitting, waiting and scaling cost.

Each command measures everything in two passes of opposite order and holds the worse one to its
bounds. A missed bound is told; the exit code is 1 when something was lost or answered wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any, TypeVar

from bench.speed.backlog import Cost, ascending_and_back
from bench.speed.capacity import Held, direct, held
from bench.speed.drain import Drained, DrainedBatch, drained, drained_batch
from bench.speed.figures import Bound
from bench.speed.scaling import DELAY_S, Scaled, scaled
from bench.speed.sheet import Sheet
from bench.speed.stock import Queued, WorkedOff, queued, worked_off
from bench.speed.submit import Accepted, Submitted, accepted, submitted
from bench.speed.weight import weights
from bench.speed.working import PERMITS

__all__ = ["TABLES", "both_ways"]

T = TypeVar("T")

_Measures = Mapping[str, Callable[[], Any]]


def both_ways(measures: _Measures, runs: int = 1) -> dict[str, list[list[Any]]]:
    """Run each measure ``runs`` times in this order, and as often in the opposite one.

    Of each there are two lists: what the runs of the first and of the second pass found.
    """
    found: dict[str, list[list[Any]]] = {name: [] for name in measures}
    for order in (list(measures), list(measures)[::-1]):
        for name in order:
            found[name].append([measures[name]() for _ in range(runs)])
    return found


def medians(passes: Sequence[Sequence[T]], figure: Callable[[T], float]) -> list[float]:
    """A figure of each pass: the median of its runs."""
    return [median(map(figure, runs)) for runs in passes]


def capacity(*, quick: bool = False, runs: int | None = None) -> int:
    """1,000 calls at once on an upstream that takes 10 s."""
    calls, delay_s = (100, 2.0) if quick else (1000, 10.0)
    sheet = Sheet(name="capacity")
    sheet.begin(f"{calls} calls at the same moment, {delay_s:g} s upstream")
    measures: _Measures = {
        "direct": lambda: direct(calls, delay_s),
        "chatd": lambda: held(calls, delay_s),
    }
    found = both_ways(measures, runs or (1 if quick else 2))
    bare, chatd = found["direct"], found["chatd"]
    sheet.table(
        ("", "answered", "p50 s", "p99 s", "most s", "direct p99 s"),
        [
            (
                f"pass {number}",
                " ".join(str(h.outcome.counts.right) for h in mine),
                *(
                    f"{median(h.outcome.percentile_ms(share) for h in mine) / 1000:.2f}"
                    for share in (0.5, 0.99, 1.0)
                ),
                f"{median(o.percentile_ms(0.99) for o in theirs) / 1000:.2f}",
            )
            for number, (mine, theirs) in enumerate(zip(chatd, bare, strict=True), 1)
        ],
    )
    every = [h for mine in chatd for h in mine]
    sheet.table(
        ("part", "MiB idle", "MiB at most (PSS)", "RSS", "threads", "CPU ms/call"),
        [
            (
                part,
                f"{median(h.idle_mib[part] for h in every):.0f}",
                f"{median(h.proportional_mib[part] for h in every):.0f}",
                f"{median(h.resident_mib[part] for h in every):.0f}",
                max(h.threads[part] for h in every),
                f"{1000 * median(h.cpu_s[part] for h in every) / calls:.2f}",
            )
            for part in every[0].idle_mib
        ],
    )
    sheet.bound(Bound("p99, s", delay_s * 1.1, at_least=False), medians(chatd, _p99_s))
    sheet.bound(
        Bound("front end + worker, MiB (PSS)", 350, at_least=False),
        medians(chatd, lambda h: h.front_and_worker_mib),
    )
    sheet.rule(
        "every call has its own answer, here and without chatd",
        not any(h.outcome.counts.failed - h.outcome.counts.late for h in every)
        and not any(o.counts.failed for theirs in bare for o in theirs),
    )
    sheet.raw["chatd"] = [[h.to_wire() for h in mine] for mine in chatd]
    return sheet.end()


def _p99_s(found: Held) -> float:
    return found.outcome.percentile_ms(0.99) / 1000


def drain(*, quick: bool = False, runs: int | None = None) -> int:
    """10,000 queued jobs, 50 ms upstream, 500 in flight."""
    jobs = 1000 if quick else 10_000
    sheet = Sheet(name="drain")
    sheet.begin(f"{jobs} queued jobs, 50 ms upstream, {PERMITS} permits")
    measures: _Measures = {
        "one worker": lambda: drained(jobs, 1),
        "two workers": lambda: drained(jobs, 2),
        "batch file": lambda: drained_batch(jobs),
        "textbook": lambda: worked_off(jobs),
    }
    found = both_ways(measures, runs or 1)
    ideal = found["one worker"][0][0].ideal_s
    every: list[tuple[str, int, Drained | DrainedBatch | WorkedOff]] = [
        (name, number, each)
        for name, both in found.items()
        for number, of_pass in enumerate(both, 1)
        for each in of_pass
    ]
    sheet.say("ideal, s", f"{ideal:.2f}")
    sheet.table(
        ("", "pass", "seconds", "x ideal", "in flight", "CPU ms/job", "of which"),
        [
            (
                name,
                number,
                f"{each.seconds:.2f}",
                f"{each.seconds / ideal:.1f}",
                getattr(each, "in_flight", "-"),
                f"{1000 * sum(each.cpu_s.values()) / jobs:.2f}",
                _parts(each.cpu_s, jobs),
            )
            for name, number, each in every
        ],
    )
    one, two, book = (
        medians(found[name], lambda each: each.seconds)
        for name in ("one worker", "two workers", "textbook")
    )
    sheet.bound(
        Bound("drain of one worker, x ideal", 8, 3, at_least=False), [s / ideal for s in one]
    )
    sheet.bound(
        Bound("drain of two workers, x ideal", 8, 3, at_least=False), [s / ideal for s in two]
    )
    sheet.bound(
        Bound("two workers, x one in time", 1.0, at_least=False),
        [b / a for a, b in zip(one, two, strict=True)],
    )
    sheet.bound(
        Bound("textbook, x one worker in time", 1.0),
        [b / a for a, b in zip(one, book, strict=True)],
    )
    sheet.rule(
        "no job is missing, each has its own answer",
        not any(each.wrong or getattr(each, "missing", 0) for _, _, each in every),
    )
    sheet.raw["measured"] = [{"name": n, "pass": p, **e.to_wire()} for n, p, e in every]
    return sheet.end()


def submit(*, quick: bool = False, runs: int | None = None) -> int:
    """Confirmed 202s, and a batch file of 50,000 lines."""
    seconds, lines, tasks = (1.0, 5000, 500) if quick else (5.0, 50_000, 5000)
    sheet = Sheet(name="submit")
    sheet.begin(f"POST /v1/jobs from 64 clients; a batch of {lines} lines; apply_async")
    measures: _Measures = {
        "alone": lambda: submitted(seconds, is_working=False),
        "alone, two front ends": lambda: submitted(seconds, is_working=False, front_ends=2),
        "while a worker works": lambda: submitted(seconds, is_working=True),
        "apply_async": lambda: queued(tasks),
        "batch": lambda: accepted(lines),
    }
    found = both_ways(measures, runs or 1)
    jobs: list[tuple[str, int, Submitted]] = [
        (name, number, each)
        for name in ("alone", "alone, two front ends", "while a worker works")
        for number, of_pass in enumerate(found[name], 1)
        for each in of_pass
    ]
    sheet.table(
        ("202s", "pass", "a second", "p50 ms", "p99 ms", "CPU ms/job", "of which"),
        [
            (
                name,
                number,
                f"{each.per_second:.0f}",
                f"{each.p50_ms:.1f}",
                f"{each.p99_ms:.1f}",
                f"{sum(each.cpu_ms.values()):.2f}",
                _parts(each.cpu_ms, 1000),
            )
            for name, number, each in jobs
        ],
    )
    stock: list[list[Queued]] = found["apply_async"]
    sheet.say(
        "apply_async in one process, a second",
        " / ".join(f"{value:.0f}" for value in medians(stock, lambda q: q.per_second)),
    )
    batches: list[list[Accepted]] = found["batch"]
    sheet.table(
        (f"{lines} lines, s", "uploaded", "batch made", "each line checked", "CPU s"),
        [
            (
                f"pass {number}",
                f"{each.uploaded_s:.2f}",
                f"{each.made_s:.2f}",
                f"{each.checked_s:.2f}",
                _parts(each.cpu_s, 1000),
            )
            for number, of_pass in enumerate(batches, 1)
            for each in of_pass
        ],
    )
    alone = medians(found["alone"], lambda each: each.per_second)
    sheet.bound(Bound("confirmed 202s a second, one front end", 3000, 4500), alone)
    sheet.bound(
        Bound("confirmed 202s a second, two front ends", 3000, 4500),
        medians(found["alone, two front ends"], lambda each: each.per_second),
    )
    rates = medians(stock, lambda each: each.per_second)
    sheet.bound(
        Bound("202s, x apply_async", 1.0),
        [mine / theirs for mine, theirs in zip(alone, rates, strict=True)],
    )
    most = lines / 50_000
    sheet.bound(
        Bound("batch: each line checked, s", 10 * most, 3 * most, at_least=False),
        medians(batches, lambda each: each.checked_s),
    )
    sheet.bound(
        Bound("batch: on disk, s", 10 * most, 3 * most, at_least=False),
        medians(batches, lambda each: each.made_s),
    )
    sheet.say(
        "apply_async of as many, by its rate, s",
        " / ".join(f"{lines / rate:.1f}" for rate in rates),
    )
    sheet.rule("every job that was confirmed is there", not any(e.failed for _, _, e in jobs))
    sheet.raw["jobs"] = [{"name": n, "pass": p, **e.to_wire()} for n, p, e in jobs]
    sheet.raw["batches"] = [[e.to_wire() for e in of_pass] for of_pass in batches]
    sheet.raw["apply_async"] = [[e.to_wire() for e in of_pass] for of_pass in stock]
    return sheet.end()


def backlog(*, quick: bool = False, runs: int | None = None) -> int:
    """The cost of a job while 10^3 to 10^6 others wait, and the memory of one that waits."""
    del runs  # Each size is measured once on the way up and once on the way down.
    sizes = [1000, 10_000, 100_000] if quick else [1000, 10_000, 100_000, 1_000_000]
    sheet = Sheet(name="backlog")
    sheet.begin("jobs admitted past HTTP, an instant upstream, 64 permits, one worker")
    texts = [100, 1000, 4000, 16_000, 64_000]
    heavy = weights(texts[:3] if quick else texts)
    sheet.table(
        ("bytes of a waiting job", "request", "in Redis", "beside it", "allowed"),
        [
            (
                "",
                each.request,
                f"{each.redis:.0f}",
                f"{each.redis - each.request:.0f}",
                each.allowed,
            )
            for each in heavy
        ],
    )
    sheet.bound(
        Bound("the heaviest of them, x (2 x request + 2 kB)", 1.0, at_least=False),
        [max(each.redis / each.allowed for each in heavy)],
    )
    both = ascending_and_back(sizes, 1000 if quick else 4000)
    sheet.table(
        (
            "waiting",
            *("pass", "admit us", "start us", "finish us", "Redis ms", "worker ms", "keeper ms"),
            *("CPU ms/job", "jobs/s", "keeper, of a core"),
        ),
        [
            (
                f"{each.waiting:,}",
                number,
                *(f"{us:.0f}" for us in (each.admit_us, each.start_us, each.finish_us)),
                *(f"{ms:.3f}" for ms in (each.redis_ms, each.worker_ms, each.keeper_ms)),
                f"{each.cpu_ms:.2f}",
                f"{1000 / each.wall_ms:.0f}",
                f"{each.keeper_share:.1%}",
            )
            for number, costs in enumerate(both, 1)
            for each in costs
        ],
    )
    for name, figure in _GROWTH.items():
        sheet.bound(
            Bound(f"{name}, {sizes[-1]:,} x {sizes[0]:,}", 1.2, at_least=False),
            [figure(costs[-1]) / figure(costs[0]) for costs in both],
        )
    sheet.raw["costs"] = [[each.to_wire() for each in costs] for costs in both]
    sheet.raw["weights"] = [each.to_wire() for each in heavy]
    return sheet.end()


_GROWTH: Mapping[str, Callable[[Cost], float]] = {
    "CPU for one job": lambda cost: cost.cpu_ms,
    "Redis' CPU for one job": lambda cost: cost.redis_ms,
    "scripts of one job": lambda cost: cost.scripts_us,
    "time for one job": lambda cost: cost.wall_ms,
}


def workers(*, quick: bool = False, runs: int | None = None) -> int:
    """Throughput and CPU with 1 and 2 workers, and with 1, 3 and 5 providers."""
    requests = 900 if quick else 6000
    sheet = Sheet(name="workers")
    sheet.begin(f"POST /v1/chat from 256 callers, {1000 * DELAY_S:.0f} ms upstream")
    shapes = [(1, 1), (1, 2), (3, 1), (5, 1)]
    names = {(p, w): f"{p} provider{'s' * (p > 1)} x {w} worker{'s' * (w > 1)}" for p, w in shapes}
    measures: _Measures = {
        name: partial(scaled, p, w, connections=255, requests=requests)
        for (p, w), name in names.items()
    }
    found: dict[str, list[list[Scaled]]] = both_ways(measures, runs or 1)
    every = [
        (name, number, each)
        for name, both in found.items()
        for number, of_pass in enumerate(both, 1)
        for each in of_pass
    ]
    sheet.table(
        ("", "pass", "requests/s", "p50 ms", "p99 ms", "CPU ms/request", "of which", "RSS MiB"),
        [
            (
                name,
                number,
                f"{each.per_second:.0f}",
                f"{each.p50_ms:.0f}",
                f"{each.p99_ms:.0f}",
                f"{sum(each.cpu_ms.values()):.2f}",
                _parts(each.cpu_ms, 1000),
                f"{sum(each.resident_mib.values()):.0f}",
            )
            for name, number, each in every
        ],
    )
    base = medians(found[names[1, 1]], lambda each: each.per_second)
    for shape in shapes[1:]:
        rates = medians(found[names[shape]], lambda each: each.per_second)
        told = " / ".join(f"{rate / first:.2f}" for first, rate in zip(base, rates, strict=True))
        sheet.say(f"{names[shape]}, x {names[1, 1]}", told)
    sheet.rule("every call has its own answer", not any(each.failed for _, _, each in every))
    sheet.raw["measured"] = [{"name": n, "pass": p, **e.to_wire()} for n, p, e in every]
    return sheet.end()


def _parts(cpu: Mapping[str, float], per: float) -> str:
    """CPU by part, in seconds of so many: milliseconds of one."""
    return ", ".join(f"{part} {1000 * used / per:.2f}" for part, used in cpu.items() if used)


TABLES: dict[str, Callable[..., int]] = {
    "capacity": capacity,
    "drain": drain,
    "submit": submit,
    "backlog": backlog,
    "workers": workers,
}
