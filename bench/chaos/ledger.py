"""What chatd itself knows of the jobs of a run: their records, and the results of batches."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from chat.jobs import JobRecord, JobState
from chat.store import JobStore

__all__ = ["Job", "Ledger"]

_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Job:
    """One job: how it stands, what it answers or which error it has, and its attempts' outcomes.

    ``line`` is the number of its line when it is one of a batch.
    """

    job_id: str
    question: str
    state: JobState
    content: str | None
    code: str | None
    outcomes: tuple[str, ...]
    line: int | None = None

    @property
    def right(self) -> bool:
        """Whether it has no answer, or the one to its question."""
        return self.content is None or self.content == f"echo: {self.question}"

    @property
    def beside_its_end(self) -> Counter[str]:
        """The outcomes of the attempts beside the one that ended it."""
        counts = Counter(self.outcomes)
        ends = [name for name in ("succeeded", "late", *reversed(self.outcomes)) if counts[name]]
        if ends:
            counts[ends[0]] -= 1
        return +counts


class Ledger:
    """Every job that was seen, by id; one that was seen again is as it was seen last."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}

    def look(self, store: JobStore) -> None:
        """Read all records that there are. Raises ``QueueUnavailable``."""
        keys = store.redis.scan_iter(match="job:*", count=1000)
        for ids in _windows(str(key).removeprefix("job:") for key in keys):
            for record in store.records(ids):
                if record is not None:
                    self.jobs[record.id] = _of_record(record)

    def add_results(self, results: Iterable[Mapping[str, Any]]) -> None:
        """Add the lines of batches: they outlive their records."""
        for result in results:
            job = _of_result(result)
            self.jobs[job.job_id] = job

    def by_question(self) -> Mapping[str, list[Job]]:
        """The jobs of each question."""
        found: defaultdict[str, list[Job]] = defaultdict(list)
        for job in self.jobs.values():
            found[job.question].append(job)
        return found


def _of_record(record: JobRecord) -> Job:
    return Job(
        record.id,
        record.metadata.get("q", ""),
        record.state,
        None if record.response is None else record.response["content"],
        None if record.error is None else record.error["code"],
        tuple(attempt.outcome or "open" for attempt in record.attempts),
    )


def _of_result(result: Mapping[str, Any]) -> Job:
    response, own = result["response"], result["chatd"]
    body = {} if response is None else response["body"]
    error = result["error"] or body.get("error")
    return Job(
        # A line that was never sent has no job.
        own["job_id"] or result["id"],
        result["custom_id"],
        JobState.SUCCEEDED if error is None else _state_of(error["code"], own["attempts"]),
        body.get("content"),
        None if error is None else error["code"],
        tuple(attempt["outcome"] or "open" for attempt in own["attempts"]),
        own["line"],
    )


def _state_of(code: str, attempts: Sequence[object]) -> JobState:
    """The state in which a job with this error has ended."""
    if code in {"job_cancelled", "batch_cancelled"}:
        return JobState.CANCELLED
    if code in {"deadline_exceeded", "batch_expired"} and not attempts:
        return JobState.EXPIRED
    return JobState.FAILED


def _windows(ids: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(ids)
    while window := list(islice(rest, _AT_ONCE)):
        yield window
