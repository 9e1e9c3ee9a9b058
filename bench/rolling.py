"""A rolling restart under load: nobody is refused, and no call is sent twice.

    python -m bench.rolling [--seconds N] [--rate N] [--quick]

A real `chatd up` with its own Redis and two workers, before an upstream that takes 50 to 300 ms.
Callers ask at a steady pace and never ask twice; two batches run beside them; `chatd restart`
replaces every process twice. Then the same with calls that take longer than ``drain_s``: their
callers are handed the job's id, and fetch the answer. Prints what was counted and the rules it
checked; the exit code is 1 when a rule was broken.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import requests

from bench.scenes.callers import Call, Callers, Way, clients
from bench.scenes.scene import Report, percentile
from bench.upstream import Conduct, Upstream
from tests.servers import python
from tests.up import Up
from tests.waiting import eventually

__all__ = ["Run", "main", "scene_of_hand_over", "scene_of_two_restarts"]

_PERMITS = 24
_LINES = 400
#: Seconds that the callers of the second scene are kept waiting, and that their slow calls take.
_DRAIN_S = 2
_SLOW_S = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How long callers ask at least, and how often; ``batches`` of so many lines beside them."""

    seconds: float = 60.0
    rate: float = 50.0
    lines: int = _LINES


@dataclass(slots=True)
class World:
    """A running chatd, the upstream behind it, and when it was restarted.

    ``sent_again`` is known at its end: how many wake-ups were lost on the way.
    """

    up: Up
    upstream: Upstream
    sent_again: int = 0
    restarts: list[tuple[float, float]] = field(default_factory=list)

    def restart(self) -> bool:
        """`chatd restart`; whether it says that it is done."""
        began = time.monotonic()
        done = subprocess.run(
            python("-m", "cli", "--config", str(self.up.config), "restart"),
            capture_output=True,
            check=False,
            timeout=300,
        )
        self.restarts.append((began, time.monotonic()))
        return done.returncode == 0

    def during(self, call: Call) -> bool:
        """Whether a call was in flight while parts were restarted."""
        ended_at = call.ended_at or time.monotonic()
        return any(call.sent_at < end and ended_at > begin for begin, end in self.restarts)


@contextmanager
def _running(conduct: Callable[[str], Conduct], settings: str = "") -> Iterator[World]:
    upstream = Upstream(conduct=conduct).start()
    with tempfile.TemporaryDirectory(prefix="chatd-rolling-") as folder:
        up = None
        try:
            up = Up(
                Path(folder),
                upstream,
                settings=f"models_refresh_s = 0\n{settings}",
                tail=f"[chatd.providers.ollama]\nworkers = 2\nconcurrency = {_PERMITS}",
            )
            world = World(up, upstream)
            yield world
            overview = requests.get(f"{up.url}/v1/chat/providers", timeout=10).json()
            world.sent_again = overview["jobs"]["republished"]
        finally:
            if up is not None:
                up.child.stop(60)
            upstream.stop()


def scene_of_two_restarts(run: Run, report: Report) -> None:
    """The mixed load, two batches, two restarts."""
    print(f"two rolling restarts at {run.rate:g} requests/s")
    chance = random.Random(5)  # noqa: S311 - delays, no secret
    mix = {Way.KEPT: 5, Way.FRESH: 2, Way.JOB: 3}
    with _running(lambda _: Conduct(chance.uniform(0.05, 0.3))) as world:
        before = world.up.pids()
        began = time.monotonic()
        batches, dones = [], []
        with Callers(world.up.url, run.rate, mix) as callers:
            time.sleep(run.seconds / 6)
            for number in (1, 2):
                batches.append(_submit(world.up.url, f"batch {number}", run.lines))
                eventually(partial(world.upstream.calls.get, f"batch {number} 0"))
                dones.append(world.restart())
                time.sleep(run.seconds / 6)
            time.sleep(max(0.0, began + run.seconds - time.monotonic()))
        after = world.up.pids()
        results = [_results(world.up.url, batch) for batch in batches]
    _told(report, world, callers.calls)
    report.say("answers of the batches", sum(map(len, results)))
    expected = [sorted(_lines_of(f"batch {number}", run.lines)) for number in (1, 2)]
    report.rule(
        f"each of the {2 * run.lines} lines has one right answer",
        [sorted(result) for result in results] == expected,
    )
    report.rule("both restarts say that they are done", dones == [True, True])
    same = {name for name in before if before[name] == after[name]}
    report.rule("every process but Redis is another one", all("redis" in name for name in same))
    _nobody_harmed(report, world, callers.calls)
    handed = [call for call in callers.calls if call.handed_over]
    report.rule("nobody had to come back for an answer", not handed)


def scene_of_hand_over(run: Run, report: Report) -> None:
    """Calls of four seconds, and a front end that waits for two."""
    print(f"a restart with drain_s = {_DRAIN_S} while some calls take {_SLOW_S:g} s")
    mix = {Way.KEPT: 3, Way.FRESH: 1, Way.OPENAI: 1}

    def question(number: int) -> str:
        return f"slow {number}" if number % 4 == 0 else f"question {number}"

    def conduct(question: str) -> Conduct:
        return Conduct(_SLOW_S if question.startswith("slow") else 0.1)

    with (
        _running(conduct, f"drain_s = {_DRAIN_S}") as world,
        Callers(world.up.url, min(run.rate, 12), mix, question) as callers,
    ):
        eventually(lambda: sum(q.startswith("slow") for q in list(world.upstream.calls)) >= 9)
        done = world.restart()
    _told(report, world, callers.calls)
    report.rule("the restart says that it is done", done)
    handed = Counter(call.way for call in callers.calls if call.handed_over)
    chats = handed[Way.KEPT] + handed[Way.FRESH]
    report.say("chats answered by 202, completions by 503", f"{chats}, {handed[Way.OPENAI]}")
    report.rule("some callers were handed the id of their job", chats > 0)
    late = [c for c in callers.calls if c.handed_over and not c.question.startswith("slow")]
    report.rule("only those whose call took longer than drain_s", not late)
    _nobody_harmed(report, world, callers.calls)


def _told(report: Report, world: World, calls: Sequence[Call]) -> None:
    """What callers were told, and how long it took them."""
    rows = []
    for way in Way:
        mine = [call for call in calls if call.way is way]
        said = Counter(call.said for call in mine)
        if mine:
            errors = len(mine) - said["answered"] - said["wrong"]
            handed = sum(call.handed_over for call in mine)
            rows.append((way, len(mine), said["answered"], handed, said["wrong"], errors))
    report.table(("", "sent", "answered", "handed over", "wrong", "errors"), rows)
    for began, ended in world.restarts:
        report.say("a restart took", f"{ended - began:.1f} s")
    # A job waits its turn in the batch lane, behind the batches.
    waited = [call for call in calls if call.way is not Way.JOB]
    during = [_took(call) for call in waited if world.during(call)]
    beside = [_took(call) for call in waited if not world.during(call)]
    for name, times in (("during a restart", during), ("beside it", beside)):
        p50, p99 = (1000 * percentile(times, share) for share in (0.5, 0.99))
        report.say(f"{len(times)} chats {name}", f"p50 {p50:.0f} ms, p99 {p99:.0f} ms")


def _nobody_harmed(report: Report, world: World, calls: Sequence[Call]) -> None:
    wrong = Counter(call.said for call in calls if call.said != "answered")
    report.rule(f"client errors and wrong answers: {json.dumps(wrong)}", not wrong)
    beyond = {question: n for question, n in world.upstream.calls.items() if n > 1}
    report.say("upstream calls", world.upstream.calls.total())
    report.rule(f"upstream calls beyond one per question: {len(beyond)}", not beyond)
    # A stopping worker gives back what it holds: otherwise that waits for half a minute.
    lost = world.sent_again
    report.rule(f"wake-ups that had to be sent again: {lost}", not lost)
    asked = {call.question for call in calls}
    report.rule("every question reached the upstream", asked <= set(world.upstream.calls))


def _took(call: Call) -> float:
    assert call.ended_at is not None
    return call.ended_at - call.sent_at


def _submit(url: str, name: str, lines: int) -> str:
    """A batch of so many questions; its id."""
    text = "".join(
        json.dumps(
            {
                "custom_id": f"{name} {number}",
                "method": "POST",
                "url": "/v1/chat",
                "body": {
                    "model": "echo",
                    "messages": [{"role": "user", "content": f"{name} {number}"}],
                },
            }
        )
        + "\n"
        for number in range(lines)
    )
    http = clients(1)
    fields: dict[str, Any] = {"purpose": "batch", "file": ("in.jsonl", text.encode())}
    file = http.request("POST", f"{url}/v1/files", fields=fields).json()
    body = {
        "input_file_id": file["id"],
        "endpoint": "/v1/chat",
        "completion_window": "24h",
    }
    batch = http.request("POST", f"{url}/v1/batches", json=body).json()
    http.clear()
    identity: str = batch["id"]
    return identity


def _results(url: str, batch: str) -> list[tuple[str, str]]:
    """The questions of a batch and their answers, once it is over."""
    http = clients(1)

    def over() -> str | None:
        found = http.request("GET", f"{url}/v1/batches/{batch}").json()
        file: str | None = found["output_file_id"]
        return file if found["status"] == "completed" else None

    file = eventually(over, within_s=300, what=f"{batch} is completed")
    text = http.request("GET", f"{url}/v1/files/{file}/content").data.decode()
    http.clear()
    lines = [json.loads(line) for line in text.splitlines()]
    return [(line["custom_id"], line["response"]["body"]["content"]) for line in lines]


def _lines_of(name: str, lines: int) -> list[tuple[str, str]]:
    """What the results of a batch have to be."""
    return [(f"{name} {number}", f"echo: {name} {number}") for number in range(lines)]


def main(argv: Sequence[str]) -> int:
    """Both scenes; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.rolling")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the first load, at least")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--quick", action="store_true", help="a third of it")
    arguments = parser.parse_args(argv)
    run = Run(seconds=arguments.seconds, rate=arguments.rate)
    if arguments.quick:
        run = Run(seconds=arguments.seconds / 3, rate=arguments.rate, lines=_LINES // 4)
    report = Report()
    scene_of_two_restarts(run, report)
    print()
    scene_of_hand_over(run, report)
    for name in report.broken:
        print(f"BROKEN: {name}", file=sys.stderr)
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
