"""The audit: whether anything was lost, found out beside the work and without holding up Redis.

What is read comes in windows, and each is held against all that it has to agree with by one script
call, so that what it says was true at one moment. A job may move between the reading of its name
and that call. So what breaks a rule is looked at again later, and counts as a breach when it still
breaks the same rule in the same state.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from chat.audit_report import NOTES, AuditReport, Breach, Event, MaybeBilled, OnDisk, Queue, Suspect
from chat.connection import kept_on_disk, redis_errors
from chat.jobs import JobState, made_at, queue_name
from chat.scripts import Scripts
from chat.types import Lane

if TYPE_CHECKING:
    import redis

    from chat.settings import ChatdConfig

__all__ = ["Auditor", "orphans_of"]

#: How many records, or entries and keys, one script call looks at: a few milliseconds of Redis.
_RECORDS = 100
_ENTRIES = 250
#: Seconds until a suspect is looked at again, and until a lease is: two heartbeats.
_AGAIN_S = 1.0
_LEASE_AGAIN_S = 10.0
#: What is read of the audit stream at the most: it keeps about 20,000 lines.
_STREAM_WINDOWS = 40
_STREAM_WINDOW = 1000
#: The last lines of the stream that explain a breach.
_EVENTS = 10
#: Other programs may have such keys in the same database: with ids that are not a job's.
_OF_JOBS = re.compile("(?:request:|celery-task-meta-)(.*)")


class _Findings:
    """What the windows add up to."""

    def __init__(self, limit: int, most_suspects: int) -> None:
        self._limit = limit
        self._most_suspects = most_suspects
        self.suspects: dict[Suspect, str] = {}
        self.unchecked = 0
        self.noted: Counter[str] = Counter()
        self.records: Counter[str] = Counter()
        self.maybe: list[MaybeBilled] = []
        self.maybe_count = 0
        self.lost_calls = 0

    def suspect(self, look: str, rows: Sequence[Sequence[str]]) -> None:
        """Remember what broke a rule; count what is no more than a note."""
        for rule, key, member, state, token, found in rows:
            if rule in NOTES:
                self.noted[rule] += 1
            elif len(self.suspects) < self._most_suspects:
                self.suspects[Suspect(look, rule, key, member, state, token)] = found
            else:
                self.unchecked += 1

    def jobs(self, counts: Sequence[Any], maybe: Sequence[Any], lost: int) -> None:
        """Add what a window of records says beside its suspects."""
        self.records.update(_pairs(counts))
        self.lost_calls += lost
        self.maybe_count += len(maybe) // 6
        for at in range(0, len(maybe), 6):
            if len(self.maybe) == self._limit:
                break
            job_id, number, outcome, worker, started, ended = maybe[at : at + 6]
            self.maybe.append(
                MaybeBilled(
                    job_id, number, outcome, worker, int(started), int(ended) if ended else None
                )
            )


class Auditor(Scripts):
    """Looks at everything that the job store has, and changes nothing.

    ``sleep`` and ``clock`` count seconds; the clock never goes back. Suspects beyond
    ``most_suspects`` are not remembered, only counted.
    """

    def __init__(
        self,
        client: redis.Redis,
        config: ChatdConfig,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        most_suspects: int = 5000,
    ) -> None:
        super().__init__(client, config)
        self._sleep = sleep
        self._clock = clock
        self._most_suspects = most_suspects

    def audit(self, *, orphans: Sequence[OnDisk] = (), limit: int = 20) -> AuditReport:
        """Look at all of it once, and again at what seems broken.

        ``limit`` is how many breaches the report names, and how many attempts of which nobody knows
        whether they were billed; it counts all. Raises ``QueueUnavailable``.
        """
        began = self._clock()
        findings = _Findings(limit, self._most_suspects)
        before = self._moved()
        rows, *_ = self._totals()
        findings.suspect("totals", rows)
        containers = self._scan_keys(findings)
        for ids in self._listed():
            rows, *more = self._run("audit", "jobs", *ids)
            findings.suspect("jobs", rows)
            findings.jobs(*more)
        for key in sorted(containers):
            for members in self._members(key):
                (rows, *_) = self._run("audit", "entries", key, *members)
                findings.suspect("entries", rows)
        confirmed = self._again(findings.suspects)
        rows, acct, queues = self._totals()
        counters = _pairs(acct)
        if before == self._moved() and not findings.noted["overdue_removal"]:
            for state in JobState:
                counted, met = counters.get(state, 0), findings.records[state]
                if counted != met:
                    suspect = Suspect("totals", "counts", "acct", state, "", "")
                    confirmed[suspect] = f"counted {counted}, found {met}"
        named = list(confirmed)[:limit]
        events = self._events({suspect.job_id for suspect in named} - {""})
        return AuditReport(
            counters=counters,
            records={state.value: findings.records[state] for state in JobState},
            broken=dict(Counter(suspect.rule for suspect in confirmed)),
            breaches=tuple(
                Breach(suspect, confirmed[suspect], tuple(events.get(suspect.job_id, ())))
                for suspect in named
            ),
            unchecked=findings.unchecked,
            noted=dict(findings.noted),
            queues=tuple(Queue(*queues[at : at + 5]) for at in range(0, len(queues), 5)),
            maybe=tuple(findings.maybe),
            maybe_count=findings.maybe_count,
            lost_calls=findings.lost_calls,
            orphans=tuple(orphans),
            durability=self._durability(),
            seconds=self._clock() - began,
        )

    def _durability(self) -> str:
        kept = kept_on_disk(self.redis)
        return "unknown" if kept is None else kept[0]

    def _totals(self) -> list[Any]:
        return cast("list[Any]", self._run("audit", "totals", *self._config.providers))

    def _moved(self) -> tuple[object, ...]:
        """Something that is another whenever a job has come, moved or gone."""
        with redis_errors():
            pipeline = self.redis.pipeline(transaction=True)
            pipeline.xrevrange("audit", count=1)
            pipeline.hmget("acct", ["accepted", "retired"])
            last, counters = pipeline.execute()
        return (last[0][0] if last else "", *counters)

    def _scan_keys(self, findings: _Findings) -> set[str]:
        """Hold records, requests and answers against each other; the keys in which jobs stand."""
        containers = {"due", "deadlines", "terminal"}
        for provider in self._config.providers:
            containers |= {f"leases:{provider}", f"calls:{provider}"}
            containers |= {f"queued:{queue_name(provider, lane)}" for lane in Lane}
        cursor = 0
        while True:
            with redis_errors():
                cursor, keys = cast(
                    "tuple[int, list[str]]", self.redis.scan(cursor, count=_ENTRIES)
                )
            known = [
                key
                for key in keys
                if key.startswith("job:")
                or ((found := _OF_JOBS.fullmatch(key)) and made_at(found[1]) is not None)
            ]
            for window in _windows(known, _ENTRIES):
                (rows, *_) = self._run("audit", "keys", *window)
                findings.suspect("keys", rows)
            containers.update(
                key for key in keys if key.startswith(("queued:", "parked:", "leases:", "calls:"))
            )
            if cursor == 0:
                return containers

    def _listed(self) -> Iterator[list[str]]:
        """The ids of all jobs, in windows, the oldest first."""
        after = "-"
        while True:
            with redis_errors():
                ids = cast(
                    "list[str]", self.redis.zrangebylex("jobs", after, "+", start=0, num=_RECORDS)
                )
            if not ids:
                return
            yield ids
            after = f"({ids[-1]}"

    def _members(self, key: str) -> Iterator[list[str]]:
        """What stands in a key, in windows; what stays there meanwhile is met for certain."""
        scan = self.redis.hscan if key.startswith("calls:") else self.redis.zscan
        cursor = 0
        while True:
            with redis_errors():
                cursor, found = cast("tuple[int, Any]", scan(key, cursor, count=_ENTRIES))
            members = list(found) if isinstance(found, dict) else [member for member, _ in found]
            yield from _windows(members, _ENTRIES)
            if cursor == 0:
                return

    def _again(self, suspects: dict[Suspect, str]) -> dict[Suspect, str]:
        """Those that still break the same rule, in the same state, when some time has passed."""
        if not suspects:
            return {}
        has_lease = any(suspect.rule == "dead_lease" for suspect in suspects)
        self._sleep(_LEASE_AGAIN_S if has_lease else _AGAIN_S)
        looks: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
        for suspect in suspects:
            # Records, requests, answers are looked at by their own names, all else by what it is.
            argument = suspect.key if suspect.look == "keys" else suspect.member
            container = suspect.key if suspect.look == "entries" else ""
            looks[suspect.look, container][argument] = None
        broken: dict[Suspect, str] = {}
        for (look, container), members in looks.items():
            more = [container] if container else []
            # The totals are one look, whatever there is to be seen.
            asked = list(self._config.providers) if look == "totals" else list(members)
            for window in _windows(asked, _RECORDS):
                rows, *_ = self._run("audit", look, *more, *window)
                for rule, key, member, state, token, found in rows:
                    broken[Suspect(look, rule, key, member, state, token)] = found
        return {suspect: broken[suspect] for suspect in suspects if suspect in broken}

    def _events(self, jobs: set[str]) -> dict[str, list[Event]]:
        """What the audit stream still has of these jobs: of each the last lines."""
        events: defaultdict[str, list[Event]] = defaultdict(list)
        after = "-"
        for _ in range(_STREAM_WINDOWS if jobs else 0):
            with redis_errors():
                lines = cast(
                    "list[tuple[str, dict[str, str]]]",
                    self.redis.xrange("audit", min=after, count=_STREAM_WINDOW),
                )
            for line_id, fields in lines:
                job_id = fields.get("job", "")
                if job_id in jobs:
                    at = int(line_id.partition("-")[0])
                    told = Event(at, fields.get("event", ""), fields.get("detail", ""))
                    events[job_id] = [*events[job_id][1 - _EVENTS :], told]
            if len(lines) < _STREAM_WINDOW:
                break
            after = f"({lines[-1][0]}"
        return events


def orphans_of(data_dir: Path, now_s: float) -> tuple[OnDisk, ...]:
    """The answers that lie on disk until Redis takes them; ``now_s`` is seconds since the epoch.

    Raises ``OSError`` when the folder cannot be read; one that is not there holds none.
    """
    found = []
    folder = data_dir / "orphans"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            written = path.stat().st_mtime
        except FileNotFoundError:
            continue  # It has just been handed in.
        found.append(OnDisk(path.name, round(max(0.0, now_s - written), 1)))
    return tuple(found)


def _pairs(flat: Sequence[Any]) -> dict[str, int]:
    return {name: int(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _windows(members: list[str], size: int) -> Iterator[list[str]]:
    for begin in range(0, len(members), size):
        yield members[begin : begin + size]
