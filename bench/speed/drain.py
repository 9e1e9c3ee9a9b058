"""Ten thousand queued jobs, five hundred of them in flight at a time: how long until all ended.

The jobs are admitted while an operator drains the provider, so that the worker is there and warm
and nothing begins until all are queued. The time is Redis' own, from the first call that began to
the last job that ended.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from bench.sampling import Sampler
from bench.speed.batch_files import batch_file, batch_object, make_batch, upload
from bench.speed.filling import fill
from bench.speed.working import DELAY_S, PERMITS, working
from chat.jobs import JobState
from tests.stack import Stack
from tests.waiting import eventually

__all__ = ["Drained", "DrainedBatch", "drained", "drained_batch"]

_TAG = "drain"
_READ_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Drained:
    """What became of ``jobs`` queued ones.

    ``seconds`` from the first start to the last end, ``ideal_s`` the same if all permits were in
    use all the time; ``in_flight`` the most calls at a time; ``wrong`` answers are another
    question's; ``cpu_s`` by part.
    """

    jobs: int
    workers: int
    seconds: float
    ideal_s: float
    in_flight: int
    missing: int
    wrong: int
    cpu_s: dict[str, float]

    @property
    def ratio(self) -> float:
        """How many times the ideal it took."""
        return self.seconds / self.ideal_s

    def to_wire(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "ratio": self.ratio}


@dataclass(frozen=True, slots=True)
class DrainedBatch:
    """What became of one batch file, from the call that makes it to its files of results."""

    lines: int
    seconds: float
    in_flight: int
    missing: int
    wrong: int
    cpu_s: dict[str, float]

    def to_wire(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def drained(jobs: int, workers: int) -> Drained:
    """Queue ``jobs``, let them go, and look at each of them afterwards."""
    with working(workers) as (stack, parts):
        stack.store.drain("ollama")
        fill(stack.store, jobs, _TAG, noted=True)
        before = parts.cpu()
        with _Most(stack) as most:
            stack.store.resume("ollama")
            eventually(lambda: _over(stack), within_s=120, what="all jobs end")
        spent = parts.spent(before)
        began, ended, missing, wrong = _looked_at(stack, jobs)
        stack.balanced()
    return Drained(
        jobs=jobs,
        workers=workers,
        seconds=(ended - began) / 1000,
        ideal_s=jobs * DELAY_S / PERMITS,
        in_flight=most.found,
        missing=missing,
        wrong=wrong,
        cpu_s=spent,
    )


def drained_batch(lines: int) -> DrainedBatch:
    """Make a batch of a file with so many lines, and follow it to its files of results."""
    content = batch_file(lines)
    with working(1) as (stack, parts):
        file_id = upload(stack, content)
        cpu, began = parts.cpu(), time.monotonic()
        batch_id = make_batch(stack, file_id)
        with _Most(stack) as most:
            eventually(
                lambda: batch_object(stack, batch_id)["status"] == "completed",
                within_s=240,
                what="the batch is completed",
            )
        seconds, spent = time.monotonic() - began, parts.spent(cpu)
        found = batch_object(stack, batch_id)
        reply = stack.http.get(
            f"{stack.url}/v1/files/{found['output_file_id']}/content", timeout=120
        )
        wrong = sum(not _is_right(json.loads(line)) for line in reply.text.splitlines())
        stack.balanced()
    return DrainedBatch(
        lines=lines,
        seconds=seconds,
        in_flight=most.found,
        missing=lines - found["request_counts"]["completed"],
        wrong=wrong,
        cpu_s=spent,
    )


def _is_right(result: dict[str, Any]) -> bool:
    number = result["custom_id"].removeprefix("r")
    message = result["response"]["body"]["choices"][0]["message"]
    right: bool = message["content"] == f"echo: question {number}"
    return right


class _Most(Sampler):
    """The most calls in flight at a time, looked at a hundred times a second."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(self._count, 0.01)
        self.found = 0
        self._client: Any = stack.redis.client

    def _count(self) -> None:
        self.found = max(self.found, int(self._client.zcard("leases:ollama")))


def _over(stack: Stack) -> bool:
    acct = stack.store.counters()
    return not any(acct.get(state, 0) for state in ("queued", "waiting", "calling"))


def _looked_at(stack: Stack, jobs: int) -> tuple[int, int, int, int]:
    """When the first call began and the last job ended (ms), how many are missing, and wrong."""
    client: Any = stack.redis.client
    ids: list[str] = client.zrange("jobs", 0, -1)
    began: list[int] = []
    ended: list[int] = []
    questions: set[str] = set()
    wrong = 0
    for at in range(0, len(ids), _READ_AT_ONCE):
        for record in stack.store.records(ids[at : at + _READ_AT_ONCE]):
            question = record.metadata.get("question", "") if record is not None else ""
            if record is None or not question.startswith(f"{_TAG} "):
                continue
            questions.add(question)
            answer = record.response or {}
            right = answer.get("content") == f"echo: {question}"
            wrong += record.state is not JobState.SUCCEEDED or not right
            began += [attempt.started_at for attempt in record.attempts]
            ended += [attempt.ended_at for attempt in record.attempts if attempt.ended_at]
    return min(began), max(ended), jobs - len(questions), wrong
