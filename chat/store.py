"""The job store: every change of a job is one Lua script, run by Redis whole or not at all.

The scripts stand in ``chat/lua``, one file each; ``prelude.lua`` names the keys. All of them may be
sent twice: they recognise their own job id or fencing token, so the client may retry a call whose
reply it never saw.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast

import redis

from chat.connection import RETRY_AFTER_S, redis_errors
from chat.errors import (
    IdempotencyMismatch,
    InvalidRequest,
    JobNotFound,
    NoWorker,
    QueueFull,
    QueueUnavailable,
)
from chat.jobs import Attempt, JobRecord, JobState, NewJob, Outcome, queue_name
from chat.types import JSON, Billed, ChatRequest, Lane

if TYPE_CHECKING:
    from chat.settings import ChatdConfig

__all__ = [
    "BATCH",
    "Admitted",
    "Call",
    "Grant",
    "JobStore",
    "Reclaimed",
    "load_script",
]

#: How many jobs the keeper's scripts look at in one call.
BATCH = 100

_PRELUDE = "prelude.lua"


def load_script(name: str) -> str:
    """The text of ``chat/lua/<name>.lua`` behind the shared prelude."""
    folder = files("chat") / "lua"
    return (folder / _PRELUDE).read_text() + "\n" + (folder / f"{name}.lua").read_text()


@dataclass(frozen=True, slots=True)
class Admitted:
    """The job a request became.

    ``joined`` when an earlier one had the same Idempotency-Key; ``outcome`` is then set if that
    one is over.
    """

    job_id: str
    joined: bool = False
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to make one upstream call.

    ``remaining_ms`` counts to the job's deadline; ``record`` is opaque text that ``finish`` needs
    if Redis has forgotten the job by then.
    """

    job_id: str
    token: str
    attempt: int
    request: ChatRequest
    model: str
    upstream_model: str
    remaining_ms: int
    queue_ms: int
    record: str


@dataclass(frozen=True, slots=True)
class Call:
    """A lease as the keeper sees it; ``renewed_at`` is Redis time in ms."""

    job_id: str
    token: str
    renewed_at: int


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What giving up one call led to: ``queued``, ``failed``, ``cancelled`` or nothing."""

    job_id: str
    became: str


class JobStore:
    """The scripts as methods. Trouble with Redis is ``QueueUnavailable``, whatever its shape."""

    def __init__(self, client: redis.Redis, config: ChatdConfig) -> None:
        self.redis = client
        self._config = config
        self._scripts = {
            name: client.register_script(load_script(name))
            for name in (
                "admit",
                "cancel",
                "expire",
                "finish",
                "heartbeat",
                "reclaim",
                "republish",
                "retire",
                "start",
                "watch",
            )
        }

    # -- the front end

    def admit(self, job: NewJob) -> Admitted:
        """Accept ``job`` and send its wake-up, or refuse it with nothing queued.

        Raises ``QueueFull``, ``NoWorker``, ``IdempotencyMismatch`` and ``QueueUnavailable``; the
        last one carries the job id, since Redis may have accepted the job before it went away.
        """
        config = self._config
        waited_for = job.reply_to is not None
        idempotency = ""
        if job.idempotency_key is not None:
            # The caller's key may be a secret of its own: Redis gets a hash.
            idempotency = hashlib.sha256(job.idempotency_key.encode()).hexdigest()
        try:
            reply = self._run(
                "admit",
                job.id,
                job.provider,
                queue_name(job.provider, job.lane),
                job.lane.value,
                job.request.model,
                job.upstream_model,
                _dump(job.request.to_wire()),
                _dump(job.metadata),
                job.timeout_ms,
                job.reply_to or "",
                int(config.worker_grace_s * 1000) if job.waits else "",
                config.max_queued,
                config.max_queued_bytes,
                idempotency,
                job.body_hash or "-",
                config.on_lost_call[job.lane.value],
                int(config.sync_retention_s if waited_for else config.retention_s),
            )
        except QueueUnavailable as error:
            error.job_id = job.id
            raise
        match reply:
            case ["ok", job_id]:
                return Admitted(job_id)
            case ["joined", job_id, meta]:
                return Admitted(job_id, joined=True, outcome=_outcome(meta))
            case ["mismatch", job_id]:
                raise IdempotencyMismatch(
                    f"this Idempotency-Key belongs to job {job_id}, which had another body; "
                    "send the same body or another key",
                    job_id=job_id,
                )
            case ["no_worker", seconds]:
                seen = f"for {seconds} s" if seconds else "since this Redis was started"
                raise NoWorker(
                    f"no worker of provider {job.provider} was seen {seen}; start one with "
                    f"`chatd worker {job.provider}`, or POST /v1/jobs, which waits for one",
                    provider=job.provider,
                    retry_after_s=RETRY_AFTER_S,
                )
            case ["full", "jobs"]:
                rule = f"max_queued = {config.max_queued} jobs are waiting"
            case _:
                rule = f"waiting requests reached max_queued_bytes = {config.max_queued_bytes}"
        raise QueueFull(f"{rule}; try again later", retry_after_s=RETRY_AFTER_S)

    def record(self, job_id: str) -> JobRecord:
        """The record of a job, its answer included. Raises ``JobNotFound``."""
        with redis_errors():
            pipeline = self.redis.pipeline(transaction=True)
            pipeline.hgetall(f"job:{job_id}")
            pipeline.get(f"celery-task-meta-{job_id}")
            fields, meta = pipeline.execute()
        if not fields:
            raise _not_found(job_id)
        return _record(job_id, fields, _outcome(meta))

    def watch(self, job_id: str, channel: str) -> Outcome | None:
        """The job's end if it is over; else ``channel`` will be told. Raises ``JobNotFound``."""
        meta = self._run("watch", job_id, channel, "add")
        if meta is None:
            raise _not_found(job_id)
        return _outcome(meta)

    def unwatch(self, job_id: str, channel: str) -> None:
        """Take one ``watch`` back. A job that is gone needs none."""
        self._run("watch", job_id, channel, "remove")

    def outcomes(self, job_ids: Sequence[str]) -> dict[str, Outcome]:
        """The ends of those jobs that are over, in one round trip."""
        with redis_errors():
            metas = self.redis.mget([f"celery-task-meta-{job_id}" for job_id in job_ids])
        found = (_outcome(meta) for meta in cast("list[str | None]", metas))
        return {outcome.job_id: outcome for outcome in found if outcome is not None}

    def cancel(self, job_id: str) -> JobState:
        """Cancel a job and return its state afterwards. Raises ``JobNotFound``.

        A job in a call stays ``calling`` until its worker has closed the upstream connection.
        """
        state = self._run("cancel", job_id)
        if state is None:
            raise _not_found(job_id)
        return JobState(state)

    def expire(self, job_id: str) -> Outcome | None:
        """End the job if it is past its deadline and in no call; its outcome if it is over."""
        return _outcome(self._run("expire", job_id))

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

    def lanes(self, provider: str) -> dict[str, JSON]:
        """Per lane: ``depth`` (jobs queued) and ``oldest_age_s`` of the one that is next."""
        with redis_errors():
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.time()
            for lane in Lane:
                queued = f"queued:{queue_name(provider, lane)}"
                pipeline.zcard(queued)
                pipeline.zrange(queued, 0, 0)
            (seconds, micros), *rest = pipeline.execute()
            now = seconds + micros / 1e6
            found: dict[str, JSON] = {}
            for lane, depth, oldest in zip(Lane, rest[::2], rest[1::2], strict=True):
                created = self.redis.hget(f"job:{oldest[0]}", "created") if oldest else None
                age = None if created is None else max(0.0, now - int(cast("str", created)) / 1000)
                found[lane.value] = {
                    "depth": depth,
                    "oldest_age_s": None if age is None else round(age, 3),
                }
        return found

    def in_flight(self, provider: str) -> int:
        """Permits of a provider that are in use."""
        with redis_errors():
            return self.redis.zcard(f"leases:{provider}")

    def counters(self) -> dict[str, int]:
        """``accepted``, a count per state, ``retired``, ``bytes``, and what the keeper mended."""
        with redis_errors():
            fields = cast("dict[str, str]", self.redis.hgetall("acct"))
        return {name: int(value) for name, value in fields.items()}

    # -- the worker

    def start(self, job_id: str, *, worker: str, token: str, permits: int) -> Grant | str:
        """Take a permit and open an attempt; the same token gets the same grant again.

        Without a grant the answer is ``"wait"`` (no permit is free) or why there is nothing to do:
        the job's state, or ``"gone"``.
        """
        reply = self._run("start", job_id, worker, token, permits)
        if reply[0] == "go":
            _, attempt, request, model, upstream_model, remaining_ms, queue_ms, record = reply
            return Grant(
                job_id=job_id,
                token=token,
                attempt=attempt,
                request=ChatRequest.from_wire(json.loads(request)),
                model=model,
                upstream_model=upstream_model,
                remaining_ms=int(remaining_ms),
                queue_ms=int(queue_ms),
                record=record,
            )
        return cast("str", reply[-1])

    def finish(
        self,
        grant: Grant,
        *,
        provider: str,
        worker: str,
        state: JobState,
        payload: JSON,
        outcome: str,
        upstream_status: int | None,
        billed: Billed,
    ) -> tuple[str, str]:
        """Record how a call ended. ``payload`` is the response, or the error when it failed.

        Returns ``("done", state)``, or ``("late", state)`` when only the ledger was written because
        the job had ended or belongs to a newer attempt.
        """
        done, became = self._run(
            "finish",
            grant.job_id,
            grant.token,
            provider,
            worker,
            state.value,
            _dump(payload),
            outcome,
            "" if upstream_status is None else upstream_status,
            billed.value,
            grant.record,
        )
        return done, became

    def heartbeat(
        self, worker: str, provider: str, calls: Iterable[tuple[str, str]]
    ) -> list[tuple[str, str, str]]:
        """Renew the leases of ``calls`` (job id, token); returns those to stop, with the reason."""
        stop = self._run("heartbeat", worker, provider, *(f"{job} {token}" for job, token in calls))
        return [cast("tuple[str, str, str]", tuple(line.split(" ", 2))) for line in stop]

    def register_envelopes(self, envelopes: Mapping[str, str]) -> None:
        """Store, by queue, what ``admit`` sends; ``@JOB@`` and ``@TAG@`` stand in it."""
        if envelopes:
            with redis_errors():
                self.redis.mset({f"envelope:{queue}": text for queue, text in envelopes.items()})

    # -- the keeper

    def calls(self, provider: str) -> list[Call]:
        """Every lease of a provider."""
        with redis_errors():
            leases = self.redis.zrange(f"leases:{provider}", 0, -1, withscores=True)
        found = cast("list[tuple[str, float]]", leases)
        calls = []
        for member, score in found:
            job_id, token = member.split(" ")
            calls.append(Call(job_id, token, renewed_at=int(score)))
        return calls

    def reclaim(self, provider: str, call: Call) -> Reclaimed:
        """Give up a call whose lease has not been renewed since ``call.renewed_at``."""
        return self._reclaim(provider, call, str(call.renewed_at), "")

    def reclaim_worker(self, provider: str, worker: str) -> list[Reclaimed]:
        """Give up every call of a worker that is known to be dead."""
        return [self._reclaim(provider, call, "", worker) for call in self.calls(provider)]

    def _reclaim(self, provider: str, call: Call, seen: str, worker: str) -> Reclaimed:
        became = self._run(
            "reclaim",
            call.job_id,
            call.token,
            provider,
            seen,
            worker,
            self._config.max_lost_calls,
        )
        return Reclaimed(call.job_id, became)

    def expire_due(self) -> int:
        """End queued jobs past their deadline, at most 100; returns how many were looked at."""
        return cast("int", self._run("expire", ""))

    def retire(self) -> int:
        """Remove records whose retention has ended, at most 100; returns how many."""
        return cast("int", self._run("retire"))

    def marks(self, queue: str) -> tuple[int, int, bool]:
        """Of a queue: the last sequence number, the highest that was started, is its list empty."""
        with redis_errors():
            pipeline = self.redis.pipeline(transaction=True)
            pipeline.get(f"seq:{queue}")
            pipeline.get(f"mark:{queue}")
            pipeline.llen(queue)
            seq, mark, length = pipeline.execute()
        return int(seq or 0), int(mark or 0), length == 0

    def republish(self, queue: str, upto: int, *, only_if_empty: bool) -> int:
        """Send again the wake-ups with a number up to ``upto``, at most 100; returns how many."""
        mode = "empty" if only_if_empty else ""
        return cast("int", self._run("republish", queue, upto, mode))

    # -- plumbing

    def _run(self, name: str, *args: str | int) -> Any:
        with redis_errors():
            return self._scripts[name](args=args)


def _dump(value: JSON | dict[str, str]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _outcome(meta: str | None) -> Outcome | None:
    return Outcome.from_meta(json.loads(meta)) if meta else None


def _not_found(job_id: str) -> JobNotFound:
    return JobNotFound(f"job {job_id}: no such job, or its record has been removed", job_id=job_id)


def _record(job_id: str, fields: dict[str, str], outcome: Outcome | None) -> JobRecord:
    if "state" not in fields:
        raise InvalidRequest(f"job {job_id}: its record is incomplete")
    attempts = tuple(
        _attempt(json.loads(fields[f"a:{number}"]))
        for number in range(1, int(fields.get("attempts", 0)) + 1)
    )
    return JobRecord(
        id=job_id,
        state=JobState(fields["state"]),
        lane=Lane(fields["lane"]),
        model=fields["model"],
        provider=fields["provider"],
        upstream_model=fields["upstream_model"],
        created_at=int(fields["created"]),
        deadline_at=int(fields["deadline"]),
        attempts=attempts,
        response=outcome.response if outcome else None,
        error=outcome.error if outcome else None,
        waiting=None,
        metadata=json.loads(fields["metadata"]),
    )


def _attempt(wire: JSON) -> Attempt:
    billed = wire.get("billed")
    return Attempt(
        number=wire["number"],
        worker=wire["worker"],
        started_at=wire["started_at"],
        ended_at=wire.get("ended_at"),
        outcome=wire.get("outcome"),
        upstream_status=wire.get("upstream_status"),
        billed=None if billed is None else Billed(billed),
    )
