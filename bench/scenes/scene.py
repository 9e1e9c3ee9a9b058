"""chatd as real processes before an upstream that has limits, and what is asked of it there."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.limits import Limit
from bench.upstream import Seen, Upstream
from chat.jobs import NewJob, new_job_id, queue_name
from chat.types import ChatRequest, Lane, Message, Role
from tests.servers import Child
from tests.stack import Stack
from tests.waiting import eventually

__all__ = ["Report", "Run", "Scene", "percentile", "running", "until"]

ALIVE = ("queued", "waiting", "calling")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a scenario is run. ``quick`` makes it short: enough to see it work, not to believe it."""

    quick: bool = False
    svg: Path = Path("var/budget-chart.svg")

    def seconds(self, full: float, quick: float) -> float:
        """How long something goes on."""
        return quick if self.quick else full

    def count(self, full: int, quick: int) -> int:
        """How many of something there are."""
        return quick if self.quick else full


@dataclass(slots=True)
class Report:
    """Prints what was counted and which claims hold; ``broken`` has those that do not."""

    broken: list[str] = field(default_factory=list)

    def say(self, name: str, value: object) -> None:
        """One figure."""
        print(f"  {name:<58} {value}", flush=True)

    def rule(self, name: str, holds: bool) -> None:  # noqa: FBT001 - a claim holds or it does not
        """One claim, checked."""
        print(f"  {'holds ' if holds else 'BROKEN'} {name}", flush=True)
        if not holds:
            self.broken.append(name)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Rows under a head, the first column to the left and the others to the right."""
        lines = [list(head), *([str(cell) for cell in row] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for first, *rest in lines:
            cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
            print(f"  {first.ljust(widths[0])}  {'  '.join(cells)}", flush=True)


@dataclass(slots=True)
class Scene:
    """A running chatd with one provider, and the upstream behind it."""

    stack: Stack
    upstream: Upstream
    provider: str
    _further: list[Child] = field(default_factory=list)

    def worker(self) -> Child:
        """One more worker, started. Restarted, it has its name again."""
        number = str(len(self._further) + 2)
        child = self.stack.child(
            f"worker-{self.provider}-{number}", "worker", self.provider, "--instance", number
        ).start()
        self._further.append(child)
        return child

    def stop_further(self) -> None:
        """Stop the workers that ``worker`` started."""
        for child in self._further:
            child.stop(60)

    def admit(
        self,
        question: str,
        lane: Lane = Lane.BATCH,
        *,
        model: str = "echo",
        timeout_s: float = 7200,
    ) -> str:
        """Put a job into the queue the way the front end does it, without HTTP in between."""
        request = ChatRequest(model, (Message(Role.USER, question),))
        job = NewJob(new_job_id(), request, self.provider, model, lane, int(timeout_s * 1000))
        return self.stack.store.admit(job).job_id

    def admit_many(
        self, count: int, lane: Lane = Lane.BATCH, *, tag: str = "job", model: str = "echo"
    ) -> list[str]:
        """``count`` jobs at once; the question of each is the tag and its number."""
        return [self.admit(f"{tag} {number}", lane, model=model) for number in range(count)]

    def alive(self) -> dict[str, int]:
        """How many jobs are in each state that is not the last."""
        acct = self.stack.store.counters()
        return {state: acct.get(state, 0) for state in ALIVE}

    def over(self) -> bool:
        """Whether no job is alive."""
        return not any(self.alive().values())

    def in_hands(self, budgets: Sequence[str]) -> tuple[int, int]:
        """Jobs that a worker holds, and jobs that are alive, read at one moment.

        Whatever lives lies in a list, is parked or due, or is in a worker's hands: in a call, or
        taken from the list and not decided on.
        """
        client = self.stack.redis.client
        pipeline = client.pipeline(transaction=True)
        pipeline.hmget("acct", list(ALIVE))
        pipeline.zcard("due")
        for lane in Lane:
            pipeline.llen(queue_name(self.provider, lane))
            for budget in budgets:
                pipeline.zcard(f"parked:{budget}:{lane.value}")
        states, *aside = pipeline.execute()
        alive = sum(int(count or 0) for count in states)
        return alive - sum(aside), alive

    def accepted(self) -> list[Seen]:
        """The calls that the upstream took."""
        return [seen for seen in list(self.upstream.log) if seen.accepted]

    def endings(self, ids: Iterable[str]) -> Counter[str]:
        """How jobs ended: the state, or the error's code."""
        found: Counter[str] = Counter()
        for job_id in ids:
            record = self.stack.store.record(job_id)
            found[record.error["code"] if record.error else record.state.value] += 1
        return found

    def cancel(self, ids: Iterable[str]) -> None:
        """Cancel what has not ended and wait until it has."""
        for job_id in ids:
            self.stack.store.cancel(job_id)
        eventually(self.over, within_s=60, what="cancelled jobs end")

    def books(self, report: Report) -> dict[str, int]:
        """The counters, with the rule that they add up."""
        acct = self.stack.store.counters()
        try:
            self.stack.balanced()
        except AssertionError as error:
            report.rule(f"the counters add up: {error}", holds=False)
        else:
            report.say("counters", json.dumps(acct))
            report.rule("the counters add up", holds=True)
        return acct


@contextmanager
def running(
    *,
    concurrency: int,
    provider: str = "ollama",
    workers: int = 1,
    delay_s: float = 0.0,
    limits: Mapping[str, Limit] | None = None,
    settings: str = "",
    lines: str = "",
) -> Iterator[Scene]:
    """Start everything, and stop it by process id at the end, Ctrl-C included.

    ``settings`` are further lines of [chatd], ``lines`` further lines of the provider's own table.
    """
    with tempfile.TemporaryDirectory() as folder:
        upstream = Upstream(delay_s=delay_s, limits=limits or {}).start()
        # The provider's table is the last that the stack writes, so what follows belongs to it.
        stack = Stack(
            Path(folder),
            {provider: upstream.url},
            concurrency=concurrency,
            environ={f"{provider.upper()}_API_KEY": "sk-made-up"},
            settings=settings,
            tail=lines,
        )
        scene = Scene(stack, upstream, provider)
        try:
            stack.start()
            for _ in range(workers - 1):
                scene.worker()
            eventually(lambda: _workers(stack, provider) == workers, what=f"{workers} workers")
            yield scene
        finally:
            # Calls that are held would keep the workers from stopping.
            upstream.release()
            upstream.delay_s = 0.0
            scene.stop_further()
            stack.stop()
            upstream.stop()


def _workers(stack: Stack, provider: str) -> int:
    client: Any = stack.redis.client
    return int(client.zcard(f"workers:{provider}"))


def until(
    moment: float, each: Callable[[], object] | None = None, *, every_s: float = 0.02
) -> None:
    """Wait until a monotonic moment, and meanwhile do ``each`` again and again."""
    while (left := moment - time.monotonic()) > 0:
        if each is not None:
            each()
            left = min(left, every_s)
        time.sleep(left)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that ``share`` of all do not exceed; NaN when there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan
