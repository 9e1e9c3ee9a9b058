"""A batch without Redis and HTTP: a job store in memory, and files of requests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from chat.batches.batch import Batch
from chat.errors import ChatError, QueueUnavailable, ResultExpired
from chat.jobs import Attempt, JobRecord, JobState, NewJob, new_id
from chat.store import Admitted
from chat.types import JSON, Billed

__all__ = ["FakeJobs", "a_batch", "lines_of", "request_line", "results_in"]

CREATED_MS = 1_795_000_000_000


class FakeJobs:
    """``JobStore`` as a batch knows it, in memory. ``faults`` are raised by the next calls."""

    def __init__(self) -> None:
        self.admitted: dict[str, NewJob] = {}
        self.admissions: list[str] = []
        self.ended: dict[str, JobRecord] = {}
        self.settled: list[str] = []
        self.cancelled: list[str] = []
        self.faults: list[ChatError] = []

    def admit(self, job: NewJob) -> Admitted:
        if self.faults:
            raise self.faults.pop(0)
        self.admissions.append(job.id)
        self.admitted.setdefault(job.id, job)
        return Admitted(job.id)

    def admit_all(self, jobs: Sequence[NewJob]) -> list[Admitted | ChatError]:
        answers: list[Admitted | ChatError] = []
        for job in jobs:
            try:
                answers.append(self.admit(job))
            except QueueUnavailable:
                raise  # As when Redis goes away: what it has accepted by then it has.
            except ChatError as error:
                answers.append(error)
        return answers

    def over(self, job_ids: Sequence[str]) -> list[str]:
        return [each for each in job_ids if each in self.ended or each not in self.admitted]

    def states(self, job_ids: Sequence[str]) -> list[JobState | None]:
        return [
            self.ended[job_id].state
            if job_id in self.ended
            else (JobState.QUEUED if job_id in self.admitted else None)
            for job_id in job_ids
        ]

    def records(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        return [self.ended.get(job_id) for job_id in job_ids]

    def settle(self, job_ids: Sequence[str]) -> int:
        if self.faults:
            raise self.faults.pop(0)
        known = [job_id for job_id in job_ids if job_id in self.ended]
        self.settled.extend(known)
        for job_id in known:
            del self.ended[job_id], self.admitted[job_id]
        return len(known)

    def cancel(self, job_id: str) -> JobState:
        if job_id not in self.admitted:
            raise ResultExpired(f"{job_id} is gone")
        self.cancelled.append(job_id)
        if job_id not in self.ended:
            self.end(job_id, JobState.CANCELLED, error={"code": "job_cancelled", "message": "so"})
        return self.ended[job_id].state

    def forget(self) -> None:
        """Lose everything, as a Redis that was flushed does."""
        self.admitted.clear()
        self.ended.clear()

    @property
    def open(self) -> list[str]:
        """Jobs that are not over, in the order of admission."""
        return [job_id for job_id in self.admitted if job_id not in self.ended]

    def succeed(self, job_id: str, content: str = "yes", cost_usd: float | None = None) -> None:
        """End a job with an answer of 10 tokens in and 2 out."""
        job = self.admitted[job_id]
        answer: JSON = {
            "model": job.request.model,
            "provider": job.provider,
            "upstream_model": job.upstream_model,
            "content": content,
            "reasoning": None,
            "tool_calls": [],
            "finish_reason": "stop",
            "input_tokens": 10,
            "output_tokens": 2,
            "latency_ms": 50,
            "queue_ms": 1,
            "attempt_count": 1,
        }
        if cost_usd is not None:
            answer["cost_usd"] = cost_usd
        self.end(job_id, JobState.SUCCEEDED, response=answer)

    def fail(self, job_id: str, code: str = "upstream_rejected") -> None:
        """End a job with an error."""
        self.end(job_id, JobState.FAILED, error={"code": code, "message": f"that is {code}"})

    def end(
        self,
        job_id: str,
        state: JobState,
        response: JSON | None = None,
        error: JSON | None = None,
    ) -> None:
        """End a job."""
        job = self.admitted[job_id]
        attempt = Attempt(1, "w", CREATED_MS, CREATED_MS + 50, state.value, 200, Billed.YES)
        self.ended[job_id] = JobRecord(
            id=job_id,
            state=state,
            lane=job.lane,
            model=job.request.model,
            provider=job.provider,
            upstream_model=job.upstream_model,
            created_at=CREATED_MS,
            deadline_at=CREATED_MS + job.timeout_ms,
            attempts=(attempt,),
            response=response,
            error=error,
            waiting=None,
            metadata={},
        )


def request_line(custom_id: str, model: str = "qwen3:8b", /, **changes: object) -> str:
    """A line of an input file; ``changes`` are made to the line, not its body."""
    body = {"model": model, "messages": [{"role": "user", "content": f"this is {custom_id}"}]}
    line = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line | changes)


def lines_of(count: int, model: str = "qwen3:8b") -> str:
    """An input file with ``count`` requests, r1 to r<count>."""
    return "".join(request_line(f"r{number}", model) + "\n" for number in range(1, count + 1))


def a_batch(window_s: int = 86400, *, grows: bool = False) -> Batch:
    """A batch of an input file that is somewhere."""
    return Batch(
        id=new_id("batch_"),
        input_file_id=new_id("file-"),
        endpoint="/v1/chat/completions",
        completion_window="24h",
        created_ms=CREATED_MS,
        expires_at=CREATED_MS // 1000 + window_s,
        output_file_id=new_id("file-"),
        error_file_id=new_id("file-"),
        grows=grows,
    )


def results_in(path: Path) -> list[JSON]:
    """The lines of a file of results."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
