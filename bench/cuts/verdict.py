"""How the job of a life ended, held against how it has to end."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.cuts.world import World
from chat.jobs import JobRecord, JobState, rfc3339

__all__ = ["Verdict", "judge"]


@dataclass(slots=True)
class Verdict:
    """How the jobs of one life ended, why they had further calls, and what was wrong with that."""

    ends: list[str]
    further: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def judge(world: World, question: str, job_id: str, end: JobState, calls: int) -> Verdict:
    """Hold a job against how it has to end: ``end`` after so many upstream calls.

    A worker that was killed may have lost calls. They are in the ledger, the job may have been
    called again, and if it was not it ends as ``outcome_unknown``.
    """
    world.rest()
    record = world.stack.store.record(job_id)
    code = record.error["code"] if record.error else ""
    found = code if record.state is JobState.FAILED else record.state.value
    seen, ledger = world.upstream.calls[question], [a.outcome for a in record.attempts]
    wrong = []
    if seen > len(ledger):
        wrong.append(f"{seen} upstream calls, {len(ledger)} attempts in the ledger")
    worker_died = world.process == "worker" and world.kills and world.struck
    if not worker_died and (seen, len(ledger)) != (calls, calls):
        wrong.append(f"{seen} upstream calls and {len(ledger)} attempts in place of {calls}")
    excused = worker_died and code == "outcome_unknown" and "lost" in ledger
    if found != end and not excused:
        wrong.append(f"ended as {found} in place of {end}")
    answer = (record.response or {}).get("content")
    if (answer == f"echo: {question}") != (record.state is JobState.SUCCEEDED):
        wrong.append(f"its answer is {answer!r}")
    told = world.ends_told(job_id)
    if told != {record.state: 1}:
        wrong.append(f"the audit stream tells of these ends: {dict(told)}")
    if wrong:
        wrong.append(_evidence(record))
    return Verdict([found], [str(outcome) for outcome in ledger[: max(0, seen - 1)]], wrong)


def _evidence(record: JobRecord) -> str:
    attempts = [f"{a.number} {a.outcome} billed {a.billed}" for a in record.attempts]
    return f"{record.id} of {rfc3339(record.created_at)}: {record.state}, attempts {attempts}"
