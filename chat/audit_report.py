"""What an audit finds: breaches of rules, what is worth a note, and what may have been billed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

from chat.jobs import JobState, rfc3339
from chat.types import JSON

__all__ = [
    "NOTES",
    "REMAINS",
    "RULES",
    "AuditReport",
    "Breach",
    "Event",
    "MaybeBilled",
    "OnDisk",
    "Queue",
    "Suspect",
]

#: What each rule of ``audit.lua`` says, put as what is wrong when it is broken.
RULES = {
    "equation": "accepted is not the sum of the states and the retired",
    "states": "as many are counted in these states as do not stand there",
    "negative": "a counter is below zero",
    "counts": "nothing moved meanwhile, and not as many records have this state as are counted",
    "lanes": "the lanes together do not hold what is counted for all jobs",
    "lane": "a lane does not hold what is counted for it",
    "budgets": "the budgets of a queue do not count as many jobs as stand in it",
    "budget": "a budget has not as many jobs in the queues as are counted for it",
    "permits": "leases, calls and permits in use are not the same calls",
    "state_unknown": "the record has a state that does not exist",
    "record_incomplete": "the record lacks a field that every record has",
    "record_missing": "the job is listed, and there is no record",
    "record_unlisted": "there is a record, and the job is not listed",
    "request_missing": "the job is not over, and its request is gone",
    "request_left": "there is a request, and its job is over or has no record",
    "no_deadline": "the job is not over, and nobody looks after its deadline",
    "queued_nowhere": "the job is queued, and stands in no queue",
    "waiting_nowhere": "the job waits, and is neither parked nor due",
    "parking_unknown": "the job is parked for a budget at which the keeper does not look",
    "call_without_lease": "the job is in a call, and there is no lease that could run out",
    "call_without_permit": "the job is in a call that has no permit",
    "call_without_attempt": "the job is in a call that is not open in its ledger",
    "attempt_missing": "a line of the ledger is gone, or cannot be read",
    "attempt_open": "an attempt is open, and the job is in no such call",
    "answer_missing": "the job is over, and there is no answer",
    "answer_without_record": "there is an answer, and no record",
    "answer_too_early": "there is an answer, and the job is not over",
    "never_removed": "the job is over, and nothing will remove its record",
    "stray_entry": "an entry of a job that has no record or does not stand here",
    "dead_lease": "a permit is held by a lease that nobody has renewed or given up for two minutes",
}

#: What can be lost although no rule is broken: by how Redis keeps its writes.
REMAINS = {
    "always": "what Redis has confirmed, a power failure does not take back either",
    "everysec": "a power failure may take back about the last second. What living workers and "
    "front ends know of it is entered again: calls that run or have just ended, jobs whose callers "
    "wait or were just told that they are accepted. What died along with them is gone, and a call "
    "of which nobody knows is made again",
    "no": "the operating system decides when a write reaches the disk, so that a power failure may "
    "take back half a minute; see everysec, which is what chatd asks for",
    "none": "Redis keeps nothing on disk: when it ends, all jobs are gone but those that workers "
    "and front ends know of; see everysec",
    "unknown": "Redis does not say how it keeps its writes",
}

#: What is as it should be for a while, and mended by the keeper.
NOTES = {
    "late_lease": "not renewed for three heartbeats; the keeper gives it up after 30 s",
    "overdue_removal": "the retention is over; the keeper removes what is left",
}


class Suspect(NamedTuple):
    """Something that broke a rule when it was looked at.

    ``look`` is the mode of ``audit.lua`` that found it, ``key`` where, ``member`` what: a job, a
    job and more, a field. ``state`` and ``token`` are the job's, empty when it has none.
    """

    look: str
    rule: str
    key: str
    member: str
    state: str
    token: str

    @property
    def job_id(self) -> str:
        """The job it is about; empty for a counter."""
        return self.member.split(" ", 1)[0] if self.look != "totals" else ""


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the audit stream; ``at`` is Redis time in ms."""

    at: int
    event: str
    detail: str

    def __str__(self) -> str:
        return f"{rfc3339(self.at)} {self.event} {self.detail}".rstrip()


@dataclass(frozen=True, slots=True)
class Breach:
    """A suspect that broke its rule again; ``events`` is what the audit stream still tells."""

    suspect: Suspect
    found: str
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class MaybeBilled:
    """An attempt of which nobody knows whether it was billed; times are Redis' (ms)."""

    job_id: str
    number: int
    outcome: str
    worker: str
    started_at: int
    ended_at: int | None


@dataclass(frozen=True, slots=True)
class Queue:
    """A lane of a provider: jobs in it, those that later ones have passed, messages in its list.

    ``oldest_s`` is the age of the job that is first, in seconds; 0 when there is none.
    """

    name: str
    queued: int
    passed: int
    wake_ups: int
    oldest_s: int


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A file of ``data_dir/orphans``, an answer that Redis has not taken; ``age_s`` in seconds."""

    name: str
    age_s: float


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The whole of an audit.

    ``counters`` is ``acct`` at the end, ``records`` how many of each state the scan met.
    ``breaches`` and ``maybe`` have the first ones; ``broken``, by rule, and ``maybe_count`` say how
    many there are. ``unchecked`` suspects were too many to be looked at again. ``noted`` counts
    notes by what they are. ``durability`` is when Redis syncs a write to disk: ``always``,
    ``everysec``, ``no`` (nobody asks for it), ``none`` (it keeps none), or ``unknown``; see
    ``REMAINS``.
    """

    counters: dict[str, int]
    records: dict[str, int]
    broken: dict[str, int]
    breaches: tuple[Breach, ...]
    unchecked: int
    noted: dict[str, int]
    queues: tuple[Queue, ...]
    maybe: tuple[MaybeBilled, ...]
    maybe_count: int
    lost_calls: int
    orphans: tuple[OnDisk, ...]
    durability: str
    seconds: float

    @property
    def clean(self) -> bool:
        """Whether nothing is lost: no breach, and no suspect left that nobody looked at twice."""
        return not self.broken and not self.unchecked

    @property
    def verdict(self) -> str:
        """One line: ``no breach: 12 accepted, …`` or ``2 breaches``."""
        if self.clean:
            told = [f"{self.counters.get(name, 0)} {name}" for name in ("accepted", *JobState)]
            return f"no breach: {', '.join(told)}, {self.counters.get('retired', 0)} retired"
        count = sum(self.broken.values())
        more = f", {self.unchecked} suspects not looked at again" if self.unchecked else ""
        return f"{count} {'breach' if count == 1 else 'breaches'}{more}"

    def to_wire(self) -> JSON:
        """For programs; times are RFC 3339."""
        return {
            "clean": self.clean,
            "verdict": self.verdict,
            "counters": self.counters,
            "records": self.records,
            "broken": self.broken,
            "breaches": [
                {
                    "rule": breach.suspect.rule,
                    "means": RULES[breach.suspect.rule],
                    "job_id": breach.suspect.job_id or None,
                    "key": breach.suspect.key,
                    "member": breach.suspect.member,
                    "state": breach.suspect.state or None,
                    "found": breach.found,
                    "events": [
                        {"at": rfc3339(event.at), "event": event.event, "detail": event.detail}
                        for event in breach.events
                    ],
                }
                for breach in self.breaches
            ],
            "unchecked": self.unchecked,
            "noted": self.noted,
            "queues": [asdict(queue) for queue in self.queues],
            "maybe_billed": [
                {
                    **asdict(attempt),
                    "started_at": rfc3339(attempt.started_at),
                    "ended_at": None if attempt.ended_at is None else rfc3339(attempt.ended_at),
                }
                for attempt in self.maybe
            ],
            "maybe_billed_count": self.maybe_count,
            "lost_calls": self.lost_calls,
            "orphans": [asdict(orphan) for orphan in self.orphans],
            "durability": self.durability,
            "remains": REMAINS[self.durability],
            "seconds": round(self.seconds, 3),
        }
