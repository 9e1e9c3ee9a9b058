"""Rates that nobody configured: learned from refusals, and followed when they change."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.limits import Limit, SlidingWindow, TokenBucket
from bench.scenes.scene import Report, Run, Scene, running, until
from bench.upstream import Seen

__all__ = ["drop", "learn"]

LIMIT = 20.0
BURST = 3.0
CALL_S = 0.2


# -- learn ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Learned:
    """What one run came to, after it had settled if not said else.

    ``used`` is the share of what the upstream allowed while it had not asked to be left alone; it
    says little where that is hardly ever.
    """

    name: str
    per_second: float
    used: float
    refused: float
    refused_of_all: float
    calls: int
    cool_downs_s: float
    succeeded: int
    waiting: int
    failed: int


def learn(report: Report, run: Run) -> None:
    """An upstream of 20 a second that nobody configured, offered five times as much.

    Three worker processes share what one of them learns.
    """
    burst, tells = "burst of 3, no header", "burst of 3, Retry-After"
    window = "20 in any second, Retry-After"
    learned = [
        _offered(report, run, name, limit, learning=True)
        for name, limit in (
            (burst, TokenBucket(LIMIT, BURST)),
            (tells, TokenBucket(LIMIT, BURST, tells=True)),
            (window, SlidingWindow(int(LIMIT), 1.0, tells=True)),
        )
    ]
    plain = [
        _offered(report, run, f"{name}, not learning", limit, learning=False)
        for name, limit in (
            (burst, TokenBucket(LIMIT, BURST)),
            (window, SlidingWindow(int(LIMIT), 1.0, tells=True)),
        )
    ]
    report.table(
        (
            "",
            "accepted/s",
            "used",
            "429s",
            "429s of all",
            "calls",
            "cool-downs s",
            "succeeded",
            "left",
            "failed",
        ),
        (
            (
                row.name,
                f"{row.per_second:.2f}",
                f"{row.used:.1%}" if row in learned else "",
                f"{row.refused:.2%}",
                f"{row.refused_of_all:.2%}",
                row.calls,
                f"{row.cool_downs_s:.1f}",
                row.succeeded,
                row.waiting,
                row.failed,
            )
            for row in (*learned, *plain)
        ),
    )
    for row in learned:
        report.rule(f"{row.name}: 90 % of what it allows is used ({row.used:.1%})", row.used >= 0.9)
        report.rule(
            f"{row.name}: at most 1 % of the calls are refused ({row.refused:.2%})",
            row.refused <= 0.01,
        )


def _offered(report: Report, run: Run, name: str, limit: Limit, *, learning: bool) -> _Learned:
    seconds, settled = run.seconds(60, 25), 10.0
    with running(
        concurrency=32,
        workers=3,
        delay_s=CALL_S,
        limits={"*": limit},
        lines=f"learn = {str(learning).lower()}",
    ) as scene:
        began = time.monotonic()
        ids: list[str] = []
        while (past := time.monotonic() - began) < seconds:
            while len(ids) < 5 * LIMIT * past:
                ids.append(scene.admit(f"offered {len(ids)}"))
            time.sleep(0.01)
        log = list(scene.upstream.log)
        before = scene.stack.store.counters()
        scene.cancel(ids)
        ended = scene.endings(ids)
        report.say(f"{name}: offered, and how they ended", f"{len(ids)}, {dict(ended)}")
        report.rule(f"{name}: every job ended", ended.total() == len(ids))
        _once_each(report, scene, name)
        scene.books(report)
    counted = [seen for seen in log if began + settled <= seen.at < began + seconds]
    asked = _asked(log, began + settled, began + seconds)
    accepted = sum(seen.accepted for seen in counted)
    return _Learned(
        name=name,
        per_second=accepted / (seconds - settled),
        used=accepted / (LIMIT * (seconds - settled - asked)),
        refused=_refused(counted),
        refused_of_all=_refused(log),
        calls=len(log),
        cool_downs_s=_asked(log, began, began + seconds),
        succeeded=before.get("succeeded", 0),
        waiting=sum(before.get(state, 0) for state in ("queued", "waiting", "calling")),
        failed=before.get("failed", 0),
    )


def _once_each(report: Report, scene: Scene, name: str) -> None:
    """No question was accepted twice: a retry follows a refusal and nothing else."""
    counts = Counter(seen.question for seen in scene.accepted())
    report.rule(f"{name}: no job was accepted twice", max(counts.values(), default=0) == 1)


def _refused(log: Sequence[Seen]) -> float:
    return sum(not seen.accepted for seen in log) / max(1, len(log))


def _asked(log: Iterable[Seen], since: float, till: float) -> float:
    """Seconds between ``since`` and ``till`` for which a Retry-After asked to be left alone."""
    total, reached = 0.0, since
    for seen in log:
        if seen.retry_after is not None:
            end = min(till, seen.at + float(seen.retry_after))
            total += max(0.0, end - max(reached, seen.at))
            reached = max(reached, end)
    return total


# -- drop -----------------------------------------------------------------------------------------

#: How long a rate has to hold to count as reached.
_HOLDS_S = 5.0


def drop(report: Report, run: Run) -> None:
    """The limit falls to a quarter in mid-run, and comes back."""
    low_s, most_s = run.seconds(60, 20), run.seconds(420, 40)
    with running(
        concurrency=32, workers=3, delay_s=CALL_S, limits={"*": TokenBucket(LIMIT, burst=BURST)}
    ) as scene:
        ids = scene.admit_many(int(LIMIT * (20 + most_s) + LIMIT * low_s), tag="drop")
        began = time.monotonic()
        until(began + 20)
        fell = time.monotonic()
        scene.upstream.limits = {"*": TokenBucket(LIMIT / 4, burst=BURST)}
        until(fell + low_s)
        rose = time.monotonic()
        scene.upstream.limits = {"*": TokenBucket(LIMIT, burst=BURST)}
        while time.monotonic() < rose + most_s:
            time.sleep(0.5)
            if _reached(scene.upstream.log, LIMIT, 0.9, rose, time.monotonic()) is not None:
                break
        till = time.monotonic()
        log = list(scene.upstream.log)
        down = {share: _reached(log, LIMIT / 4, share, fell, rose) for share in (0.8, 0.9)}
        up = {share: _reached(log, LIMIT, share, rose, till) for share in (0.8, 0.9)}
        phases = {
            "20/s, from 10 s on": (began + 10, fell, LIMIT),
            "5/s": (fell, rose, LIMIT / 4),
            "20/s again": (rose, till, LIMIT),
        }
        report.table(
            ("", "seconds", "calls", "accepted/s", "of the limit", "429s"),
            (
                (name, f"{end - start:.0f}", *_phase(log, start, end, limit))
                for name, (start, end, limit) in phases.items()
            ),
        )
        for share in (0.8, 0.9):
            report.say(f"seconds until {share:.0%} of 5/s without a 429", _seconds(down[share]))
            report.say(
                f"seconds until {share:.0%} of 20/s again without a 429", _seconds(up[share])
            )
        low = [seen for seen in log if fell <= seen.at < rose]
        scene.cancel(ids)
        scene.books(report)
        found = down[0.8]
        report.rule("down within 15 s", found is not None and found <= 15)
        refused = sum(not seen.accepted for seen in low)
        report.rule(
            f"at most 5 % of the calls at the low limit are refused ({refused} of {len(low)})",
            refused <= 0.05 * len(low),
        )
        if not run.quick:
            found = up[0.8]
            report.rule("up again within 5 minutes", found is not None and found <= 300)


def _phase(log: Iterable[Seen], start: float, end: float, limit: float) -> tuple[object, ...]:
    calls = [seen for seen in log if start <= seen.at < end]
    rate = sum(seen.accepted for seen in calls) / (end - start)
    return len(calls), f"{rate:.2f}", f"{rate / limit:.1%}", sum(not s.accepted for s in calls)


def _reached(
    log: Sequence[Seen], limit: float, share: float, start: float, end: float
) -> float | None:
    """Seconds after ``start`` from which ``share`` of the limit was used, for 5 s without a 429."""
    calls = [seen for seen in list(log) if start <= seen.at < end]
    moment = start
    while moment + _HOLDS_S <= end:
        held = [seen for seen in calls if moment <= seen.at < moment + _HOLDS_S]
        accepted = sum(seen.accepted for seen in held)
        if accepted == len(held) and share <= accepted / (limit * _HOLDS_S) <= 2 - share:
            return moment - start
        moment += 0.25
    return None


def _seconds(value: float | None) -> str:
    return "not reached" if value is None else f"{value:.1f}"
