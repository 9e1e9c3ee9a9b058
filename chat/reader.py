"""What can be read of jobs, providers and workers; nothing here changes any of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from chat.connection import redis_errors
from chat.errors import ChatError, JobNotFound, ResultExpired
from chat.jobs import JobRecord, JobState, Outcome, made_at, rfc3339
from chat.overview import provider_view
from chat.records import outcome_of, record_of, waiting_of
from chat.scripts import Scripts
from chat.types import JSON, Delta, Lane

if TYPE_CHECKING:
    from chat.settings import ChatdConfig

__all__ = ["Page", "Reader", "no_record"]

#: How many jobs, or pieces of an answer, one round trip asks about at the most.
_AT_ONCE = 500

#: What ``acct`` counts; a name that Redis has not counted yet stands for 0.
_COUNTERS = (
    "accepted",
    *(state.value for state in JobState),
    "retired",
    "bytes",
    "parks",
    "republished",
    "reclaimed",
    "permits_overrun",
    "recalled",
    "recreated",
)


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the jobs, newest first; their records have no ``response``, whatever the state.

    ``after`` is the id to go on after; ``None`` when there is nothing older.
    """

    records: tuple[JobRecord, ...]
    after: str | None


class Reader(Scripts):
    """The part of the job store that only reads."""

    def record(self, job_id: str) -> JobRecord:
        """The record of a job, its answer included. Raises ``JobNotFound``, ``ResultExpired``."""
        ((fields, outcome),) = self._read([job_id])
        if not fields:
            raise self._missing(job_id)
        place = self._run("place", job_id) if outcome is None else None
        return record_of(job_id, fields, outcome, place)

    def check_owner(self, job_id: str, owner: str | None) -> None:
        """Raise as if there were no such job when it is not ``owner``'s; ``None`` owns them all.

        Raises ``JobNotFound`` and ``ResultExpired``.
        """
        if owner is None:
            return
        with redis_errors():
            found = self.redis.hget(f"job:{job_id}", "owner")
        if found != owner:
            raise self._missing(job_id)

    def waiting(self, job_id: str) -> JSON | None:
        """What a job waits for, as its record says it; ``None`` for one that waits for nothing."""
        return waiting_of(self._run("place", job_id))

    def records(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """The records of these jobs in one round trip; ``None`` where there is none.

        They do not say what a job waits for. What is read comes whole, with the answers of all
        jobs: the caller bounds how many it asks for.
        """
        return [
            record_of(job_id, fields, outcome) if fields else None
            for job_id, (fields, outcome) in zip(job_ids, self._read(job_ids), strict=True)
        ]

    def states(self, job_ids: Sequence[str]) -> list[JobState | None]:
        """Where each of these jobs stands, in one round trip; ``None`` for one without a record."""
        with redis_errors():
            pipeline = self.redis.pipeline(transaction=False)
            for job_id in job_ids:
                pipeline.hget(f"job:{job_id}", "state")
            found = pipeline.execute()
        return [None if state is None else JobState(state) for state in found]

    def over(self, job_ids: Sequence[str]) -> list[str]:
        """Of these jobs, those that are not alive: they have ended, or there is no record of them.

        Cheaper than their states, for whoever asks again and again about many that go on.
        """
        gone: list[str] = []
        for begin in range(0, len(job_ids), _AT_ONCE):
            some = list(job_ids[begin : begin + _AT_ONCE])
            with redis_errors():
                deadlines = self.redis.zmscore("deadlines", some)
            gone += [job_id for job_id, at in zip(some, deadlines, strict=True) if at is None]
        return gone

    def forgotten(self, job_ids: Sequence[str]) -> list[str]:
        """Of these jobs, those of which Redis has no record although nobody removed it lately."""
        gone = []
        for begin in range(0, len(job_ids), _AT_ONCE):
            some = job_ids[begin : begin + _AT_ONCE]
            with redis_errors():
                pipeline = self.redis.pipeline(transaction=True)
                for job_id in some:
                    pipeline.exists(f"job:{job_id}")
                    pipeline.zscore("removed", job_id)
                found = iter(pipeline.execute())
            for job_id, there, removed in zip(some, found, found, strict=True):
                if not there and removed is None:
                    gone.append(job_id)
        return gone

    def listed(
        self,
        *,
        states: Iterable[JobState] = (),
        provider: str | None = None,
        lane: Lane | None = None,
        owner: str | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> Page:
        """The newest jobs that match; with ``after`` those that are older than this id.

        A call looks at 1,000 records at the most, so that a page may be short or empty although
        older jobs match: they follow after its ``after``. The job of an id need not exist.
        """
        following, *found = self._run(
            "list",
            after or "",
            limit,
            " ".join(states),
            provider or "",
            lane or "",
            owner or "",
        )
        jobs = {
            job_id: (dict(zip(rest[::2], rest[1::2], strict=True)), outcome_of(meta))
            for job_id, meta, *rest in found
        }
        wait = [
            job_id
            for job_id, (fields, _) in jobs.items()
            if fields["state"] in {JobState.QUEUED, JobState.WAITING}
        ]
        places = dict(zip(wait, self._places(wait), strict=True))
        return Page(
            tuple(
                record_of(job_id, fields, outcome, places.get(job_id))
                for job_id, (fields, outcome) in jobs.items()
            ),
            following or None,
        )

    def outcomes(self, job_ids: Sequence[str]) -> dict[str, Outcome]:
        """The ends of those jobs that are over, in one round trip."""
        with redis_errors():
            metas = self.redis.mget([f"celery-task-meta-{job_id}" for job_id in job_ids])
        found = (outcome_of(meta) for meta in cast("list[str | None]", metas))
        return {outcome.job_id: outcome for outcome in found if outcome is not None}

    def events(self, job_id: str, after: str = "-") -> list[tuple[str, Delta]]:
        """The pieces of a job's answer that Redis still has, behind the one with the id ``after``.

        Each has its id, ``<attempt>-<number>``. They go some minutes after the last of them.
        """
        found: list[tuple[str, Delta]] = []
        begin = after if after == "-" else f"({after}"
        while True:
            with redis_errors():
                entries = cast(
                    "list[tuple[str, dict[str, str]]]",
                    self.redis.xrange(f"stream:{job_id}", min=begin, count=_AT_ONCE),
                )
            found += [(id_, Delta.from_wire(json.loads(entry["d"]))) for id_, entry in entries]
            if len(entries) < _AT_ONCE:
                return found
            begin = f"({entries[-1][0]}"

    def ping(self) -> None:
        """Raises ``QueueUnavailable`` when Redis does not answer."""
        with redis_errors():
            self.redis.ping()

    def workers(self, providers: Iterable[str]) -> dict[str, float | None]:
        """Seconds since a worker of each provider was last seen; ``None`` when never."""
        names = list(providers)
        with redis_errors():
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.time()
            for name in names:
                pipeline.zrevrange(f"workers:{name}", 0, 0, withscores=True)
            (seconds, micros), *newest = pipeline.execute()
        now = seconds + micros / 1e6
        return {
            name: max(0.0, now - found[0][1] / 1000) if found else None
            for name, found in zip(names, newest, strict=True)
        }

    def overview(self, names: Sequence[str]) -> JSON:
        """What each provider is doing, and the counters of all jobs; see ``chat.overview``."""
        seen = self.workers(names)
        return {
            "providers": [
                provider_view(
                    name,
                    json.loads(self._run("overview", name)),
                    concurrency=self._config.providers[name].concurrency,
                    last_seen_s=seen[name],
                )
                for name in names
            ],
            "jobs": {**dict.fromkeys(_COUNTERS, 0), **self.counters()},
        }

    def counters(self) -> dict[str, int]:
        """``accepted``, a count per state, ``retired``, ``bytes``, and what the keeper mended."""
        with redis_errors():
            fields = cast("dict[str, str]", self.redis.hgetall("acct"))
        return {name: int(value) for name, value in fields.items()}

    def _read(self, job_ids: Sequence[str]) -> list[tuple[dict[str, str], Outcome | None]]:
        """Of each job the fields of its record, none when there is no record, and its end."""
        with redis_errors():
            # One transaction, so that no job ends between its record and its answer.
            pipeline = self.redis.pipeline(transaction=True)
            for job_id in job_ids:
                pipeline.hgetall(f"job:{job_id}")
                pipeline.get(f"celery-task-meta-{job_id}")
            replies = pipeline.execute()
        return [
            (fields, outcome_of(meta))
            for fields, meta in zip(replies[::2], replies[1::2], strict=True)
        ]

    def _places(self, job_ids: Sequence[str]) -> list[list[str | int] | None]:
        """What ``place.lua`` says of each of these jobs."""
        script = self._scripts["place"]
        with redis_errors():
            pipeline = self.redis.pipeline(transaction=False)
            for job_id in job_ids:
                script(args=[job_id], client=pipeline)
            return cast("list[list[str | int] | None]", pipeline.execute())

    def _missing(self, job_id: str) -> ChatError:
        return no_record(job_id, self._config, time.time_ns() // 1_000_000)


def no_record(job_id: str, config: ChatdConfig, now_ms: int) -> JobNotFound | ResultExpired:
    """The error for a job that has no record; ``now_ms`` is the time in ms since the epoch.

    An id says when it was made. From the shortest retention on, its record may have been there and
    have been removed; before that, there was none that anybody could still ask for.
    """
    made = made_at(job_id)
    kept_s = min(config.sync_retention_s, config.retention_s)
    if made is None or now_ms - made <= kept_s * 1000:
        return JobNotFound(
            f"job {job_id}: no such job, or its record has been removed; use the id in the "
            "Location of POST /v1/jobs",
            job_id=job_id,
        )
    return ResultExpired(
        f"job {job_id}: its id is of {rfc3339(made)}, and there is no record of it any more; a "
        f"record is kept for sync_retention_s = {config.sync_retention_s} after the end of a job "
        f"that a caller waited for, and for retention_s = {config.retention_s} after any other's; "
        "read it within that time, or raise these",
        job_id=job_id,
    )
