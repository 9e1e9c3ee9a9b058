"""What a job costs while 10^3 to 10^6 others wait, and what each of those takes of Redis' memory.

The jobs before it are admitted past HTTP (``bench.speed.filling``), by the same script with the
same arguments. At each size two things are measured. The scripts alone: Redis' own count of the
microseconds of ``admit``, ``start`` and ``finish``, while worker and keeper stand still. And the
whole: a worker before an instant upstream ends some thousand jobs from the front of the backlog,
and the CPU time of Redis, worker and keeper is divided by how many they were.

Redis does not rewrite its append-only file meanwhile: when it does is a matter of bytes, and would
be charged to one size and not to another.
"""

from __future__ import annotations

import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.speed.filling import fill
from bench.speed.parts import Parts
from bench.upstream import Upstream
from chat.jobs import Ending, JobState, new_token, queue_name
from chat.store import Grant, JobStore
from chat.types import JSON, Billed, Lane
from tests.stack import Stack
from tests.waiting import eventually

__all__ = ["Backlog", "Cost", "ascending_and_back", "backlog"]

_PERMITS = 64
#: Jobs that are started and finished past the worker to time the scripts, and how many at a time.
_TIMED, _AT_A_TIME = 960, 32
#: Jobs that the worker ends before its time is taken: it has just been started.
_WARM = 500
_QUEUE = queue_name("ollama", Lane.BATCH)
_ROOM = 'max_queued = 3000000\nmax_queued_bytes = "64GiB"'
_LANE_ROOM = 'max_batch = 3000000\nmax_batch_bytes = "64GiB"'
_ANSWER = "An answer of the usual length for a question that was not long. " * 4


@dataclass(frozen=True, slots=True)
class Cost:
    """What one job costs in front of ``waiting`` others.

    ``admit_us``, ``start_us`` and ``finish_us`` are Redis' microseconds for one script. The rest is
    of jobs that a worker ends: ``*_ms`` are CPU milliseconds for one, ``wall_ms`` is the time for
    one, ``keeper_share`` how much of a core the keeper took, ``ended`` how many they were.
    """

    waiting: int
    admit_us: float
    start_us: float
    finish_us: float
    redis_ms: float
    worker_ms: float
    keeper_ms: float
    wall_ms: float
    keeper_share: float
    ended: int

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds of all three for one job."""
        return self.redis_ms + self.worker_ms + self.keeper_ms

    @property
    def scripts_us(self) -> float:
        """Redis' microseconds for one job's three scripts."""
        return self.admit_us + self.start_us + self.finish_us

    def to_wire(self) -> dict[str, float]:
        """JSON-ready form."""
        return {**asdict(self), "cpu_ms": self.cpu_ms, "scripts_us": self.scripts_us}


class Backlog:
    """chatd without a front end before an instant upstream, and a queue that grows."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._parts = Parts.of(stack)
        self._worker = stack.workers["ollama"]
        self._client: Any = stack.redis.client

    def cost(self, waiting: int, jobs: int) -> Cost:
        """What one of ``jobs`` costs that are worked off in front of ``waiting`` others.

        Raises ``AssertionError`` when the counters do not add up afterwards.
        """
        self._stack.keeper.send(signal.SIGSTOP)
        there = int(self._client.hget("acct", "queued") or 0)
        fill(self._stack.store, max(0, waiting + jobs + _WARM - there))
        admit_us = self._timed(lambda: fill(self._stack.store, _TIMED), _TIMED)
        start_us, finish_us = self._past_the_worker()
        self._stack.keeper.send(signal.SIGCONT)
        self._worker.start()
        self._until_ended(_WARM)
        cpu, began = self._parts.cpu(), time.monotonic()
        ended = self._until_ended(jobs)
        spent, seconds = self._parts.spent(cpu), time.monotonic() - began
        self._worker.stop(60)
        self._stack.balanced()
        return Cost(
            waiting=waiting,
            admit_us=admit_us,
            start_us=start_us,
            finish_us=finish_us,
            redis_ms=1000 * spent["Redis"] / ended,
            worker_ms=1000 * spent["worker"] / ended,
            keeper_ms=1000 * spent["keeper"] / ended,
            wall_ms=1000 * seconds / ended,
            keeper_share=spent["keeper"] / seconds,
            ended=ended,
        )

    def _until_ended(self, jobs: int) -> int:
        """Wait until so many more jobs have an answer; how many it were."""

        def ended() -> int:
            return int(self._client.hget("acct", "succeeded") or 0)

        before = ended()
        return eventually(
            lambda: found - before if (found := ended()) - before >= jobs else 0,
            within_s=300,
            what=f"{jobs} jobs end",
        )

    def _past_the_worker(self) -> tuple[float, float]:
        """Start and finish the first jobs of the queue; Redis' microseconds for each of the two."""
        store = self._stack.store
        # Whoever is first to run a script also loads it.
        for job_id in self._next(1):
            store.finish(_ending(_granted(store, job_id)))
        starts, finishes = [], []
        for _ in range(_TIMED // _AT_A_TIME):
            grants: list[Grant] = []

            def start(into: list[Grant] = grants) -> None:
                into.extend(_granted(store, job_id) for job_id in self._next(_AT_A_TIME))

            def finish(those: list[Grant] = grants) -> None:
                for grant in those:
                    store.finish(_ending(grant))

            starts.append(self._timed(start, _AT_A_TIME))
            finishes.append(self._timed(finish, _AT_A_TIME))
        return sum(starts) / len(starts), sum(finishes) / len(finishes)

    def _next(self, count: int) -> list[str]:
        """The jobs whose wake-ups come next, taken from the list as a worker takes them."""
        messages: list[str] = self._client.rpop(_QUEUE, count)
        return [found[0] for message in messages if (found := re.search(_JOB_ID, message))]

    def _timed(self, act: Callable[[], object], calls: int) -> float:
        """Microseconds that Redis takes for each of the ``calls`` scripts that ``act`` runs."""
        before = self._scripts()
        act()
        after = self._scripts()
        assert after["calls"] - before["calls"] == calls, "other scripts ran meanwhile"
        return float(after["usec"] - before["usec"]) / calls

    def _scripts(self) -> dict[str, Any]:
        # Without one yet, there is no entry.
        found: dict[str, Any] = self._client.info("commandstats").get(
            "cmdstat_evalsha", {"calls": 0, "usec": 0}
        )
        return found


_JOB_ID = "job_[0-9a-z]{26}"


def _granted(store: JobStore, job_id: str) -> Grant:
    grant = store.start(job_id, worker="bench", token=new_token())
    assert isinstance(grant, Grant), grant
    return grant


def _ending(grant: Grant) -> Ending:
    """The end of a call as a worker tells it, with an answer of 260 characters."""
    answer: JSON = {
        "model": grant.model,
        "provider": "ollama",
        "upstream_model": grant.upstream_model,
        "content": _ANSWER,
        "reasoning": None,
        "tool_calls": [],
        "finish_reason": "stop",
        "input_tokens": 20,
        "output_tokens": 60,
        "latency_ms": 5,
        "queue_ms": grant.queue_ms,
        "attempt_count": grant.attempt,
    }
    return Ending(
        job_id=grant.job_id,
        token=grant.token,
        record=grant.record,
        provider="ollama",
        worker="bench",
        state=JobState.SUCCEEDED.value,
        payload=answer,
        outcome="succeeded",
        upstream_status=200,
        billed=Billed.YES.value,
        signal="accepted",
        input_tokens=20,
        output_tokens=60,
    )


@contextmanager
def backlog() -> Iterator[Backlog]:
    """An empty queue with a keeper; stopped at the end, its memory and files given back."""
    upstream = Upstream(delay_s=0.0).start()
    with tempfile.TemporaryDirectory(prefix="chatd-backlog-") as folder:
        stack = Stack(
            Path(folder),
            {"ollama": upstream.url},
            concurrency=_PERMITS,
            settings=_ROOM,
            tail=_LANE_ROOM,
        )
        stack.redis.start()
        stack.redis.client.config_set("auto-aof-rewrite-percentage", 0)
        stack.keeper.start()
        try:
            eventually(
                lambda: stack.redis.client.exists(f"envelope:{_QUEUE}"),
                what="the keeper has said how wake-ups look",
            )
            stack.store.register_settings(["ollama"])
            yield Backlog(stack)
        finally:
            stack.stop()
            upstream.stop()


def ascending_and_back(sizes: Sequence[int], jobs: int) -> tuple[list[Cost], list[Cost]]:
    """What a job costs at each size (ascending), measured on the way up and then on the way down.

    On the way down each smaller backlog has a Redis of its own: waiting jobs are not taken away.
    """
    largest = sizes[-1]
    with backlog() as queue:
        up = [queue.cost(size, jobs) for size in sizes]
        down = [queue.cost(largest, jobs)]
    for size in reversed(sizes[:-1]):
        with backlog() as queue:
            down.append(queue.cost(size, jobs))
    return up, down[::-1]
