"""What waits, and what it costs: parked jobs, jobs in a cool-down, and a full queue."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

import requests

from bench.limits import Closed, FixedWindow
from bench.scenes.scene import Report, Run, Scene, percentile, running, until
from chat.jobs import queue_name
from chat.types import Lane
from tests.waiting import eventually

__all__ = ["cap", "cooldown", "free"]


# -- free -----------------------------------------------------------------------------------------

FREE_MODEL, PAID_MODEL = "vendor/small:free", "vendor/large"
FREE_BUDGET = "openrouter:*:free"
FREE = """
[[chatd.providers.openrouter.limits]]
match = "*:free"
requests_per_minute = {per_minute}
"""
MINUTE = 60.0


def free(report: Report, run: Run) -> None:
    """50,000 `:free` jobs: each is parked once or twice, and none stands before a paid job.

    First at the 20 a minute that there are, with paid jobs behind them; then at a thousand times
    as many, so that all of them end.
    """
    jobs = run.count(50_000, 3_000)
    with _free(20) as scene:
        _admit_free(report, scene, jobs)
        for lane in Lane:
            _paid(report, scene, lane, "20 a minute")
    with _free(20_000) as scene:
        began = time.monotonic()
        ids = _admit_free(report, scene, jobs)
        for lane in Lane:
            _paid(report, scene, lane, "20,000 a minute")
        eventually(scene.over, within_s=300, what="every job ends")
        acct = scene.books(report)
        report.say("seconds from the first to the last", f"{time.monotonic() - began:.0f}")
        parks = acct.get("parks", 0) / jobs
        report.say("park operations per job", f"{parks:.3f}")
        report.rule("at most 2 park operations per job", parks <= 2)
        calls = [seen.at for seen in scene.upstream.log if seen.model == FREE_MODEL]
        refused = sum(not seen.accepted for seen in scene.upstream.log)
        most = max(_in_any(calls, MINUTE))
        report.say("most free calls in any 60 s; 429s", f"{most}; {refused}")
        report.rule("never more than 20,000 in 60 s, and no 429", most <= 20_000 and refused == 0)
        ended = acct.get("succeeded", 0)
        report.rule(
            f"every job was answered by one call ({ended})",
            ended == acct["accepted"] == scene.upstream.calls.total() and len(ids) == jobs,
        )


@contextmanager
def _free(per_minute: int) -> Iterator[Scene]:
    with running(
        provider="openrouter",
        concurrency=16,
        delay_s=0.01,
        limits={"*:free": FixedWindow(per_minute, MINUTE)},
        lines=FREE.format(per_minute=per_minute),
    ) as scene:
        yield scene


def _admit_free(report: Report, scene: Scene, jobs: int) -> list[str]:
    began = time.monotonic()
    ids = scene.admit_many(jobs, tag="free", model=FREE_MODEL)
    parked = scene.stack.redis.client.zcard(f"parked:{FREE_BUDGET}:batch")
    report.say(
        f"{jobs} free jobs admitted, seconds; parked then",
        f"{time.monotonic() - began:.1f}; {parked}",
    )
    return ids


def _paid(report: Report, scene: Scene, lane: Lane, name: str) -> None:
    """Paid jobs one by one behind the free ones: from admission to arrival at the upstream."""
    times = []
    for number in range(20):
        question = f"paid {lane.value} {number}"
        began = time.monotonic()
        scene.admit(question, lane, model=PAID_MODEL)
        eventually(
            partial(scene.upstream.calls.__contains__, question), what=f"{question} is called"
        )
        arrived = next(s.at for s in reversed(scene.upstream.log) if s.question == question)
        times.append(arrived - began)
        time.sleep(0.05)
    behind = scene.stack.redis.client.zcard(f"parked:{FREE_BUDGET}:batch")
    report.say(
        f"paid {lane.value} behind {behind} at {name}, median / worst ms",
        f"{1000 * percentile(times, 0.5):.0f} / {1000 * max(times):.0f}",
    )
    report.rule(
        f"paid {lane.value} jobs start at once at {name}: within 1 s, and half within 0.25 s",
        max(times) <= 1.0 and percentile(times, 0.5) <= 0.25,
    )


def _in_any(moments: list[float], seconds: float) -> Iterator[int]:
    """For each call, how many began in the stretch of ``seconds`` that ends with it."""
    first = 0
    for number, moment in enumerate(moments):
        while moments[first] <= moment - seconds:
            first += 1
        yield number - first + 1


# -- cooldown -------------------------------------------------------------------------------------

COOL_S = 3
#: When every job has left the workers' hands: the calls that ran have ended, the rest is parked.
_FIRST_S = 0.5


def cooldown(report: Report, run: Run) -> None:
    """A 429 with Retry-After: 3 while 500 jobs are queued: meanwhile no worker holds any."""
    jobs = run.count(500, 200)
    with running(concurrency=8, delay_s=0.2) as scene:
        budget = f"{scene.provider}:*"
        ids = scene.admit_many(jobs, tag="cool")
        eventually(lambda: scene.stack.store.counters().get("succeeded", 0) >= 20)
        closed = time.monotonic()
        scene.upstream.limits = {"*": Closed(closed, closed + COOL_S)}
        eventually(lambda: any(not seen.accepted for seen in scene.upstream.log))
        first = next(seen for seen in scene.upstream.log if not seen.accepted)
        samples: list[tuple[float, int]] = []

        def sample() -> None:
            held, _ = scene.in_hands([budget])
            samples.append((time.monotonic() - first.at, held))

        until(first.at + float(first.retry_after or 0) - 0.05, sample, every_s=0.01)
        scene.upstream.limits = {}
        ended = time.monotonic()
        eventually(scene.over, within_s=180, what="every job ends")
        acct = scene.books(report)
        later = [held for moment, held in samples if moment > _FIRST_S]
        emptied = next((moment for moment, held in samples if held == 0), None)
        report.say("Retry-After", first.retry_after)
        report.say(
            "seconds after the first 429 until no job was held",
            "never" if emptied is None else f"{emptied:.2f}",
        )
        report.say(f"jobs in hands after {_FIRST_S} s: samples by number", dict(Counter(later)))
        report.rule("no worker holds a job during the cool-down", bool(later) and max(later) == 0)
        log = scene.upstream.log
        refused = [seen for seen in log if not seen.accepted]
        during = [seen for seen in log if first.at + _FIRST_S < seen.at < first.at + COOL_S]
        after = [seen.at for seen in log if seen.at >= first.at + COOL_S]
        report.say("429s; calls during the cool-down", f"{len(refused)}; {len(during)}")
        report.rule("no call during the cool-down", not during)
        report.say("seconds from its end to the next call", f"{after[0] - first.at - COOL_S:.2f}")
        report.say("seconds from its end to the last answer", f"{time.monotonic() - ended:.1f}")
        report.say("park operations per job", f"{acct.get('parks', 0) / jobs:.3f}")
        report.rule(f"all {jobs} were answered", scene.endings(ids) == {"succeeded": jobs})


# -- cap ------------------------------------------------------------------------------------------

CLIENTS = 64
CAPS = {Lane.BATCH: 200, Lane.INTERACTIVE: 100}


def cap(report: Report, run: Run) -> None:
    """64 clients at the cap of each lane: never one job over it, the rest refused cleanly."""
    lines = "\n".join(f"max_{lane.value} = {most}" for lane, most in CAPS.items())
    with running(concurrency=8, delay_s=0.05, lines=lines) as scene:
        worker = scene.stack.workers[scene.provider]
        worker.stop(60)
        for lane, most in CAPS.items():
            found, peak = _flood(scene, lane, requests_each=10)
            _check_cap(report, lane, "no worker", found, peak)
            report.rule(
                f"{lane.value}, no worker: exactly {most} are accepted", found["202"] == most
            )
        worker.start()
        eventually(scene.over, within_s=60, what="the queue is worked off")
        for lane, most in CAPS.items():
            found, peak = _flood(scene, lane, seconds=run.seconds(10, 3))
            _check_cap(report, lane, "worked off meanwhile", found, peak)
            report.rule(
                f"{lane.value}, worked off meanwhile: more than the cap in time",
                found["202"] > most,
            )
        eventually(scene.over, within_s=60, what="the queue is worked off")
        scene.books(report)


def _flood(
    scene: Scene, lane: Lane, *, requests_each: int | None = None, seconds: float = 60.0
) -> tuple[Counter[str], int]:
    """All clients at once; answers by status and code, and the most that waited at any moment."""
    client = scene.stack.redis.client
    stop, ready = threading.Event(), threading.Barrier(CLIENTS)
    peak = 0

    def watch() -> None:
        nonlocal peak
        while not stop.is_set():
            held = client.hget(f"lane:{queue_name(scene.provider, lane)}", "jobs")
            peak = max(peak, int(held or 0))

    def ask(number: int) -> Counter[str]:
        found: Counter[str] = Counter()
        with requests.Session() as session:
            session.trust_env = False
            ready.wait()
            end = time.monotonic() + seconds
            for turn in range(requests_each) if requests_each else count():
                if time.monotonic() > end:
                    break
                found[_post(session, scene.stack.url, lane, f"{number} {turn}")] += 1
        return found

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            return sum(pool.map(ask, range(CLIENTS)), Counter()), peak
    finally:
        stop.set()
        watcher.join()


def _post(session: requests.Session, url: str, lane: Lane, question: str) -> str:
    body: dict[str, Any] = {
        "model": "echo",
        "messages": [{"role": "user", "content": question}],
        "lane": lane.value,
    }
    reply = session.post(f"{url}/v1/jobs", json=body, timeout=60)
    if reply.status_code == 202:
        return "202"
    told = "with" if int(reply.headers.get("Retry-After", 0)) > 0 else "without"
    return f"{reply.status_code} {reply.json()['error']['code']} {told} Retry-After"


def _check_cap(report: Report, lane: Lane, name: str, found: Counter[str], peak: int) -> None:
    most = CAPS[lane]
    report.say(f"{lane.value}, {name}: answers", dict(found))
    report.say(f"{lane.value}, {name}: most that waited", f"{peak} of {most}")
    report.rule(f"{lane.value}, {name}: never one over the cap", peak <= most)
    report.rule(
        f"{lane.value}, {name}: each refusal is 429 queue_full with Retry-After",
        set(found) == {"202", "429 queue_full with Retry-After"},
    )
