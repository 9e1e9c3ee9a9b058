"""The job store: every change of a job is one Lua script, run by Redis whole or not at all.

The scripts stand in ``chat/lua``, one file each; ``prelude.lua`` names the keys. All of them may be
sent twice: they recognise their own job id or fencing token, so the client may retry a call whose
reply it never saw.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from chat.access import Caller
from chat.budget import budget_of, estimated_tokens
from chat.connection import redis_errors
from chat.errors import ChatError, ClientLimited, QueueUnavailable
from chat.jobs import Ending, JobRecord, JobState, NewJob, Outcome, Piece, queue_name
from chat.reader import Reader
from chat.records import new_record, outcome_of
from chat.refusals import NO_CAPS, caps_of, refusal
from chat.types import ChatRequest, Lane, compact_json
from chat.upkeep import Upkeep

#: Ms beyond ``timeout_s`` for which a call of a client counts whose front end has died.
_LATE_MS = 30_000

__all__ = ["Admitted", "Finished", "Grant", "Held", "JobStore"]


@dataclass(frozen=True, slots=True)
class Admitted:
    """The job a request became.

    ``joined`` when an earlier one had the same Idempotency-Key; ``outcome`` is then set if that
    one is over. ``record`` is that of a new job, where it was asked for.
    """

    job_id: str
    joined: bool = False
    outcome: Outcome | None = None
    record: JobRecord | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to make one upstream call.

    ``remaining_ms`` counts to the job's deadline; ``record`` is opaque text that ``finish`` needs
    if Redis has forgotten the job by then. ``refused``, ``answered`` and ``unknown`` count the
    job's earlier attempts by how they ended; ``room`` is how many batch jobs may start now, or -1
    when no job of the provider may, since it is drained.
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
    lane: Lane = Lane.INTERACTIVE
    request_id: str = ""
    refused: int = 0
    answered: int = 0
    unknown: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """No call now.

    ``kind``: ``wait`` and ask again in ``wait_s``; ``parked`` until its budget opens; ``back``, the
    wake-up lies in its list again, since the provider is drained or the worker stops; ``skip``,
    since the job is in state ``why`` already; ``gone``, there is no such job.
    """

    kind: str
    why: str
    room: int
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Finished:
    """What an ending led to.

    ``done`` with the job's state, ``waiting`` for another attempt with the reason, or ``late``:
    only the ledger was written. ``room`` as in ``Grant``.
    """

    what: str
    detail: str
    room: int


class JobStore(Reader, Upkeep):
    """The scripts as methods. Trouble with Redis is ``QueueUnavailable``, whatever its shape."""

    # -- the front end

    def admit(self, job: NewJob, *, again: bool = False, record: bool = False) -> Admitted:
        """Accept ``job`` and send its wake-up, or refuse it with nothing queued.

        The id may be one of the caller's choosing: while there is a record of it, whatever its
        state, admitting it again changes nothing. ``again``: it was accepted before and Redis has
        forgotten it, so that no cap counts. ``record``: the record comes with it, to be shown
        without another round trip; not for a job that was there before.

        Raises ``QueueFull``, ``NoWorker``, ``Draining``, ``IdempotencyMismatch`` and
        ``QueueUnavailable``; the last one carries the job id, since Redis may have accepted the job
        before it went away.
        """
        try:
            reply = self._run("admit", *self._admission(job, again=again, record=record))
        except QueueUnavailable as error:
            error.job_id = job.id
            raise
        answer = self._admitted(reply, job)
        if isinstance(answer, ChatError):
            raise answer
        return answer

    def admit_all(self, jobs: Sequence[NewJob]) -> list[Admitted | ChatError]:
        """Admit jobs in this order and in one round trip; of each what ``admit`` says or raises.

        Raises ``QueueUnavailable`` when Redis went away; any of them may have been accepted then,
        and admitting those again changes nothing.
        """
        replies = self._run_all("admit", [self._admission(job) for job in jobs])
        return [self._admitted(reply, job) for reply, job in zip(replies, jobs, strict=True)]

    def watch(self, job_id: str, channel: str) -> Outcome | None:
        """The job's end if it is over; else ``channel`` will be told.

        Raises ``JobNotFound`` and ``ResultExpired``.
        """
        meta = self._run("watch", job_id, channel, "add")
        if meta is None:
            raise self._missing(job_id)
        return outcome_of(meta)

    def unwatch(self, job_id: str, channel: str) -> None:
        """Take one ``watch`` back. A job that is gone needs none."""
        self._run("watch", job_id, channel, "remove")

    def cancel(self, job_id: str) -> JobState:
        """Cancel a job and return its state afterwards; one that is over stays as it is.

        One in a call stays ``calling`` until its worker has closed the upstream connection.
        Raises ``JobNotFound`` and ``ResultExpired``.
        """
        state = self._run("cancel", job_id)
        if state is None:
            raise self._missing(job_id)
        return JobState(state)

    def expire(self, job_id: str) -> Outcome | None:
        """End the job if it is past its deadline and in no call; its outcome if it is over."""
        return outcome_of(self._run("expire", job_id))

    def begin_call(self, client: Caller, call: str) -> None:
        """Count a call of a client that has a limit. Raises ``ClientLimited``."""
        reply = self._run(
            "client",
            client.name,
            call,
            _or_empty(client.requests_per_minute),
            _or_empty(client.concurrency),
            int(self._config.timeout_s * 1000) + _LATE_MS,
        )
        match reply:
            case ["rate", milliseconds]:
                raise ClientLimited(
                    f"the key of {client.name} may make {client.requests_per_minute} calls a "
                    "minute, a sixth of them at once (requests_per_minute); come back when "
                    "Retry-After says",
                    retry_after_s=int(milliseconds) / 1000,
                )
            case ["calls"]:
                raise ClientLimited(
                    f"the key of {client.name} may have {client.concurrency} calls open at the "
                    "same time (concurrency), and has them; end one, or send POST /v1/jobs and "
                    "read the answer later",
                    retry_after_s=1,
                )

    def end_call(self, client: Caller, call: str) -> None:
        """A call of a client has been answered."""
        with redis_errors():
            self.redis.zrem(f"client:{client.name}:calls", call)

    # -- the worker

    def start(
        self,
        job_id: str,
        *,
        worker: str,
        token: str,
        may_wait: bool = True,
        give_back: bool = False,
    ) -> Grant | Held:
        """Take a permit and open an attempt; the same token gets the same grant again.

        ``may_wait``: whether an interactive job may still wait in its slot for its budget.
        ``give_back``: nothing is to begin; the wake-up goes back to its place.
        """
        mode = "back" if give_back else "" if may_wait else "park"
        reply = self._run("start", job_id, worker, token, mode)
        match reply:
            case ["wait", room, milliseconds, why]:
                return Held("wait", why, room, int(milliseconds) / 1000)
            case [("parked" | "back" | "skip") as kind, room, why]:
                return Held(kind, why, room)
            case ["gone", room]:
                return Held("gone", "gone", room)
        _, room, attempt, request, model, upstream_model, remaining, queued, record, *rest = reply
        lane, request_id, refused, answered, unknown = rest
        return Grant(
            job_id=job_id,
            token=token,
            attempt=attempt,
            request=ChatRequest.from_wire(json.loads(request)),
            model=model,
            upstream_model=upstream_model,
            remaining_ms=int(remaining),
            queue_ms=int(queued),
            record=record,
            lane=Lane(lane),
            request_id=request_id,
            refused=refused,
            answered=answered,
            unknown=unknown,
            room=room,
        )

    def finish(self, ending: Ending) -> Finished:
        """Record how a call ended; once or several times is the same."""
        reply = self._run(
            "finish",
            ending.job_id,
            ending.token,
            ending.provider,
            ending.worker,
            ending.state,
            compact_json(ending.payload),
            ending.outcome,
            _or_empty(ending.upstream_status),
            ending.billed,
            ending.record,
            ending.signal,
            _or_empty(_milliseconds(ending.retry_after_s)),
            str(ending.chance),
            _or_empty(ending.input_tokens),
            _or_empty(ending.output_tokens),
            _or_empty(_milliseconds(ending.again_after_s)),
            ending.again_why,
            ending.counts_as,
        )
        return Finished(*reply)

    def deliver(self, pieces: Sequence[Piece]) -> list[tuple[str, str]]:
        """Pass pieces of answers on; those of one call come in their order, and once is enough.

        From the first one on, its job has no further attempt. How many pieces come at once is the
        caller's to bound: all of them are one step of Redis. Returns the calls (job id, token) that
        are no longer wanted.
        """
        args: list[str | int] = []
        for piece in pieces:
            text = compact_json(piece.delta.to_wire())
            if not text.isascii():
                # As in an answer: half a surrogate pair, which no UTF-8 can carry, is a "?".
                text = text.encode(errors="replace").decode()
            args += (piece.job_id, piece.token, piece.attempt, piece.number, text)
        unwanted = cast("list[str]", self._run("deliver", *args))
        return [cast("tuple[str, str]", tuple(line.split(" "))) for line in unwanted]

    def life(self) -> str:
        """The present life of the Redis server: another one after a restart or a fail-over."""
        return cast("str", self._run("life"))

    def reassert(self, grant: Grant, *, worker: str, provider: str, delivered: bool = False) -> str:
        """Enter a call in flight again if Redis has forgotten it, or all of its job.

        ``delivered``: pieces of its answer may have gone out. Returns ``known`` if it has not.
        ``taken``: the job is the worker's again; ``recreated``: it had to be made anew. ``given
        up``: it is over or in another call. ``removed``: its record has been, since it was over.
        """
        return cast(
            "str",
            self._run(
                "reassert",
                grant.job_id,
                grant.token,
                provider,
                worker,
                grant.record,
                compact_json(grant.request.to_wire()),
                "delivered" if delivered else "",
            ),
        )

    def room(self, provider: str) -> int:
        """How many batch jobs of a provider may start now; -1 when no job may."""
        return cast("int", self._run("room", provider))

    def heartbeat(
        self,
        worker: str,
        provider: str,
        calls: Iterable[tuple[str, str]],
        *,
        life: str | None = None,
    ) -> list[tuple[str, str, str]] | None:
        """Renew the leases of ``calls`` (job id, token); returns those to stop, with the reason.

        ``None``, and nothing is done, if Redis is not in that ``life`` any more.
        """
        members = (f"{job} {token}" for job, token in calls)
        stop = self._run("heartbeat", worker, provider, life or "", *members)
        if stop is None:
            return None
        return [cast("tuple[str, str, str]", tuple(line.split(" ", 2))) for line in stop]

    # -- admission

    def _admission(
        self, job: NewJob, *, again: bool = False, record: bool = False
    ) -> tuple[str | int, ...]:
        """The arguments of ``admit.lua``."""
        config = self._config
        budget = budget_of(config.providers[job.provider], job.upstream_model)
        waited_for = job.reply_to is not None
        caps = NO_CAPS if again else caps_of(config, job.provider, job.lane)
        idempotency = ""
        if job.idempotency_key is not None:
            # The caller's key may be a secret of its own: Redis gets a hash.
            idempotency = hashlib.sha256(job.idempotency_key.encode()).hexdigest()
        return (
            job.id,
            job.provider,
            queue_name(job.provider, job.lane),
            job.lane.value,
            job.request.model,
            job.upstream_model,
            compact_json(job.request.to_wire()),
            compact_json(job.metadata),
            job.timeout_ms,
            job.reply_to or "",
            int(config.worker_grace_s * 1000) if job.waits else "",
            caps.jobs,
            caps.bytes,
            caps.lane_jobs,
            caps.lane_bytes,
            idempotency,
            job.body_hash or "-",
            config.on_lost_call[job.lane.value],
            int(config.sync_retention_s if waited_for else config.retention_s),
            budget.name,
            budget.match,
            estimated_tokens(job.request),
            job.request_id,
            job.owner,
            "record" if record else "",
        )

    def _admitted(self, reply: Sequence[Any], job: NewJob) -> Admitted | ChatError:
        """What ``admit.lua`` answered: the job, or why there is none."""
        match reply:
            case ["ok", job_id]:
                return Admitted(job_id)
            case ["ok", job_id, created, deadline, state, place]:
                return Admitted(job_id, record=new_record(job, created, deadline, state, place))
            case ["joined", job_id, meta]:
                return Admitted(job_id, joined=True, outcome=outcome_of(meta))
        return refusal(reply, job, self._config)


def _or_empty(value: int | None) -> int | str:
    return "" if value is None else value


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else math.ceil(seconds * 1000)
