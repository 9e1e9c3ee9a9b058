"""A clock, a job store and a reply desk without Redis, for tests of the views."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import fakeredis
from flask.testing import FlaskClient

from api import create_app
from api.frontend import EXTENSION, FrontEnd
from chat.access import Caller
from chat.catalogue import Catalogue
from chat.errors import ChatError, ClientLimited, IdempotencyMismatch, NoWorker
from chat.follower import Place
from chat.jobs import JobRecord, JobState, NewJob, Outcome
from chat.reader import Page, no_record
from chat.registry import Missing, Names
from chat.replies import Replies, Waiter
from chat.settings import ChatdConfig
from chat.store import Admitted
from chat.types import JSON, Delta, Lane

__all__ = [
    "FakeClock",
    "FakeReplies",
    "FakeStore",
    "Gateway",
    "gateway",
    "registered_names",
    "response_of",
]

_EPOCH_MS = 1_795_000_000_000


class FakeClock:
    """A monotonic clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Seconds since some moment."""
        return self.now

    def time_ns(self) -> int:
        """The same moment as records have it, in nanoseconds since the epoch."""
        return _EPOCH_MS * 1_000_000 + int(self.now * 1e9)

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self.now += seconds


@dataclass
class FakeJob:
    """A job as the fake store keeps it."""

    new: NewJob
    admitted_at: float
    state: JobState = JobState.QUEUED
    outcome: Outcome | None = None
    watchers: list[str] = field(default_factory=list)


class FakeStore:
    """``chat.store.JobStore`` as the front end knows it, in memory.

    ``respond`` decides how a job ends the moment it is admitted: a response, an error, or ``None``
    for a job that stays queued. ``refusal`` is raised by ``admit``, ``trouble`` by every call, as
    when Redis is away. ``seen`` has the seconds since a worker of each provider was seen, ``asked``
    every method that was called, ``open`` the calls of limited clients that are not over.
    ``pieces`` are those of the answers that Redis keeps, ``stands`` is what each queued job waits
    for.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.jobs: dict[str, FakeJob] = {}
        self.keys: dict[str, tuple[str, str | None]] = {}
        self.respond: Callable[[NewJob], JSON | ChatError | None] = lambda _: None
        self.refusal: ChatError | None = None
        self.trouble: ChatError | None = None
        self.seen: dict[str, float | None] = {}
        self.asked: list[str] = []
        self.open: list[str] = []
        self.pieces: dict[str, list[tuple[str, Delta]]] = {}
        self.stands: JSON = {"reason": "queue", "position": 3}

    def newest(self) -> FakeJob:
        """The job that was admitted last."""
        return list(self.jobs.values())[-1]

    def end(self, job_id: str, result: JSON | ChatError, state: JobState | None = None) -> None:
        """Finish a job with a response or an error."""
        job = self.jobs[job_id]
        if isinstance(result, ChatError):
            job.state = state or JobState.FAILED
            job.outcome = Outcome(job_id, job.state, None, result.to_wire())
        else:
            job.state = JobState.SUCCEEDED
            job.outcome = Outcome(job_id, job.state, result, None)

    def admit(self, job: NewJob, *, again: bool = False, record: bool = False) -> Admitted:
        """Accept, join or refuse a job."""
        self._ask("admit")
        if self.refusal is not None and not again:
            raise self.refusal
        if job.id in self.jobs:
            return Admitted(job.id)
        if job.idempotency_key in self.keys:
            job_id, body_hash = self.keys[job.idempotency_key]
            if body_hash != job.body_hash:
                raise IdempotencyMismatch("another body", job_id=job_id)
            return Admitted(job_id, joined=True, outcome=self.jobs[job_id].outcome)
        if job.waits and self.seen.get(job.provider, 0.0) is None:
            raise NoWorker("no worker", provider=job.provider, retry_after_s=5.0)
        if job.idempotency_key is not None:
            self.keys[job.idempotency_key] = (job.id, job.body_hash)
        self.jobs[job.id] = FakeJob(job, self.clock.now)
        result = self.respond(job)
        if result is not None:
            self.end(job.id, result)
        return Admitted(job.id, record=self._record(job.id) if record else None)

    def record(self, job_id: str) -> JobRecord:
        """The record of a job, its answer included."""
        self._ask("record")
        return self._record(job_id)

    def _record(self, job_id: str) -> JobRecord:
        job = self._job(job_id)
        created_at = _EPOCH_MS + int(job.admitted_at * 1000)
        return JobRecord(
            id=job_id,
            state=job.state,
            lane=job.new.lane,
            model=job.new.request.model,
            provider=job.new.provider,
            upstream_model=job.new.upstream_model,
            created_at=created_at,
            deadline_at=created_at + job.new.timeout_ms,
            attempts=(),
            response=job.outcome.response if job.outcome else None,
            error=job.outcome.error if job.outcome else None,
            waiting=None,
            metadata=job.new.metadata,
            owner=job.new.owner,
        )

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
        """The newest jobs that match, without their responses."""
        self._ask("listed")
        wanted = set(states or JobState)
        found = [
            replace(self._record(job_id), response=None)
            for job_id, job in sorted(self.jobs.items(), reverse=True)
            if job.state in wanted
            and provider in {None, job.new.provider}
            and lane in {None, job.new.lane}
            and owner in {None, job.new.owner}
            and (after is None or job_id < after)
        ]
        return Page(tuple(found[:limit]), found[limit - 1].id if len(found) > limit else None)

    def check_owner(self, job_id: str, owner: str | None) -> None:
        """Find no job of another owner."""
        if owner is not None:
            self._ask("check_owner")
            if self._job(job_id).new.owner != owner:
                raise no_record(job_id, ChatdConfig(), time.time_ns() // 1_000_000)

    def begin_call(self, client: Caller, call: str) -> None:
        """Let it be one of the calls that are open, up to the client's concurrency."""
        self._ask("begin_call")
        if client.concurrency is not None and len(self.open) >= client.concurrency:
            raise ClientLimited("too many calls", retry_after_s=1)
        self.open.append(call)

    def end_call(self, client: Caller, call: str) -> None:
        """Close a call; fails if it was not open."""
        self._ask("end_call")
        assert client.limited
        self.open.remove(call)

    def waiting(self, job_id: str) -> JSON | None:
        """What ``stands`` says, of a job that is in no call."""
        self._ask("waiting")
        waits = self._job(job_id).state in (JobState.QUEUED, JobState.WAITING)
        return self.stands if waits else None

    def events(self, job_id: str, after: str = "-") -> list[tuple[str, Delta]]:
        """The pieces behind an entry."""
        self._ask("events")
        kept = self.pieces.get(job_id, [])
        return [
            (entry_id, delta)
            for entry_id, delta in kept
            if after == "-" or Place.of(entry_id) > Place.of(after)
        ]

    def watch(self, job_id: str, channel: str) -> Outcome | None:
        """The job's end, or ``None`` and ``channel`` is one of its watchers."""
        self._ask("watch")
        job = self._job(job_id)
        if job.outcome is None:
            job.watchers.append(channel)
        return job.outcome

    def unwatch(self, job_id: str, channel: str) -> None:
        """Take one ``watch`` back; fails if there was none."""
        self._ask("unwatch")
        self._job(job_id).watchers.remove(channel)

    def cancel(self, job_id: str) -> JobState:
        """Cancel a job that is in no call; one in a call stays as it is."""
        self._ask("cancel")
        job = self._job(job_id)
        if job.state in (JobState.QUEUED, JobState.WAITING):
            job.state = JobState.CANCELLED
            error: JSON = {"code": "job_cancelled", "message": "cancelled before it was sent"}
            job.outcome = Outcome(job_id, job.state, None, error)
        return job.state

    def expire(self, job_id: str) -> Outcome | None:
        """End a job past its deadline that is in no call."""
        self._ask("expire")
        job = self._job(job_id)
        due = self.clock.now >= job.admitted_at + job.new.timeout_ms / 1000
        if due and job.state in (JobState.QUEUED, JobState.WAITING):
            job.state = JobState.EXPIRED
            error: JSON = {"code": "deadline_exceeded", "message": "the deadline passed"}
            job.outcome = Outcome(job_id, job.state, None, error)
        return job.outcome

    def ping(self) -> None:
        """Answer, unless there is trouble."""
        self._ask("ping")

    def workers(self, providers: Iterable[str]) -> dict[str, float | None]:
        """What ``seen`` says; just now when it says nothing."""
        self._ask("workers")
        return {name: self.seen.get(name, 0.0) for name in providers}

    def overview(self, names: Sequence[str]) -> JSON:
        """What the jobs tell. Nothing here is parked or limited, and no call is counted."""
        self._ask("overview")
        return {
            "providers": [self._provider(name) for name in names],
            "jobs": {
                "accepted": len(self.jobs),
                **{
                    state.value: sum(job.state is state for job in self.jobs.values())
                    for state in JobState
                },
                "retired": 0,
                "republished": 0,
                "reclaimed": 0,
                "permits_overrun": 0,
                "recalled": 0,
                "recreated": 0,
                "parks": 0,
                "bytes": 0,
            },
        }

    def _provider(self, name: str) -> JSON:
        mine = [job for job in self.jobs.values() if job.new.provider == name]
        calling = {
            lane.value: sum((job.new.lane, job.state) == (lane, JobState.CALLING) for job in mine)
            for lane in Lane
        }
        ages = {
            lane.value: [
                self.clock.now - job.admitted_at
                for job in mine
                if (job.new.lane, job.state) == (lane, JobState.QUEUED)
            ]
            for lane in Lane
        }
        return {
            "name": name,
            "concurrency": ChatdConfig().providers[name].concurrency,
            "in_use": calling,
            "last_seen_s": self.seen.get(name, 0.0),
            "drained_since": None,
            "lanes": {
                lane: {
                    "depth": len(queued),
                    "oldest_age_s": max(queued, default=None),
                    "parked": 0,
                    "starts_per_s": 0.0,
                }
                for lane, queued in ages.items()
            },
            "budgets": [
                {
                    "match": "*",
                    "model": None,
                    "in_use": sum(calling.values()),
                    "rate_per_minute": None,
                    "rate_cap_per_minute": None,
                    "learned": False,
                    "tokens_per_minute": None,
                    "closed": None,
                    "day": None,
                    "parked": {"interactive": 0, "batch": 0},
                }
            ],
            "totals": {
                **dict.fromkeys(
                    (
                        "calls",
                        "succeeded",
                        "failed",
                        "cancelled",
                        "refused",
                        "overloaded",
                        "quota_exhausted",
                        "cool_downs",
                        "input_tokens",
                        "output_tokens",
                    ),
                    0,
                ),
                "upstream_ms": {"buckets": [[1000, 0], ["+Inf", 0]], "sum": 0},
            },
        }

    def _ask(self, method: str) -> None:
        self.asked.append(method)
        if self.trouble is not None:
            raise self.trouble

    def _job(self, job_id: str) -> FakeJob:
        if job_id not in self.jobs:
            raise no_record(job_id, ChatdConfig(), time.time_ns() // 1_000_000)
        return self.jobs[job_id]


class FakeWaiter(Waiter):
    """Waits by letting the fake clock run."""

    def __init__(self, desk: FakeReplies, job_id: str) -> None:
        super().__init__(desk, job_id)
        self.desk = desk
        self.woken = False

    def wait(self, timeout_s: float) -> Outcome | None:
        """The job's end if it has one or gets one meanwhile; else ``timeout_s`` are gone.

        Somebody who wakes it ends one wait at once.
        """
        self.desk.waits.append(timeout_s)
        self.desk.meanwhile(self.job_id)
        job = self.desk.store.jobs.get(self.job_id)
        self.outcome = job.outcome if job is not None else None
        if self.outcome is None and not self.woken:
            self.desk.clock.advance(timeout_s)
        self.woken = False
        return self.outcome

    def wake(self) -> None:
        """End the wait."""
        self.woken = True


class FakeReplies(Replies):
    """``chat.replies.Replies`` without a listener; ``meanwhile`` runs at the start of each wait."""

    def __init__(self, store: FakeStore, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock
        self.waits: list[float] = []
        self.expected: list[Waiter] = []
        self.meanwhile: Callable[[str], None] = lambda _: None
        self.remembered: dict[str, int] = {}

    def remember(self, job: NewJob, size: int) -> None:
        """Note which job, and of what size."""
        self.remembered[job.id] = size

    @property
    def channel(self) -> str:
        """One name for all."""
        return "fake:reply"

    def expect(self, job_id: str) -> FakeWaiter:
        """A waiter that lets the fake clock run."""
        waiter = FakeWaiter(self, job_id)
        self.expected.append(waiter)
        return waiter

    def rename(self, waiter: Waiter, job_id: str) -> None:
        """Wait for another job."""
        waiter.job_id = job_id

    def tell(self, job_id: str, *deltas: Delta, attempt: int = 1) -> None:
        """The next pieces of a job: Redis has them, and whoever follows it is told."""
        kept = self.store.pieces.setdefault(job_id, [])
        for delta in deltas:
            number = len(kept) + 1
            kept.append((f"{attempt}-{number}", delta))
            for waiter in self.expected:
                if waiter.job_id == job_id and waiter.follower is not None:
                    waiter.follower.push(attempt, number, delta.to_wire())
                    waiter.wake()

    def forget(self, waiter: Waiter) -> None:
        """Stop waiting; fails if nobody does."""
        self.expected.remove(waiter)


@dataclass
class Gateway:
    """A front end over fakes, and a client that calls it. Of ``catalogue`` only Redis is a fake."""

    client: FlaskClient
    store: FakeStore
    replies: FakeReplies
    clock: FakeClock
    catalogue: Catalogue

    @property
    def front(self) -> FrontEnd:
        """What stands behind the views."""
        front: FrontEnd = self.client.application.extensions[EXTENSION]
        return front


def response_of(job: NewJob, **fields: object) -> JSON:
    """A response as a worker records it, with ``fields`` put over it."""
    return {
        "model": job.request.model,
        "provider": job.provider,
        "upstream_model": job.upstream_model,
        "content": "hello",
        "reasoning": None,
        "tool_calls": [],
        "finish_reason": "stop",
        "input_tokens": 3,
        "output_tokens": 1,
        "latency_ms": 200,
        "queue_ms": 50,
        "attempt_count": 1,
        **fields,
    }


def registered_names(
    *providers: str, models: Mapping[str, str] | None = None, allow_local_cloud: bool = False
) -> Names:
    """``Names`` with these providers registered and every other one missing for want of a key."""
    rest = {"ollama", "ollama_cloud", "openrouter", "opencode", "kimi"} - set(providers)
    return Names(
        registered=dict.fromkeys(providers, "a test"),
        missing={name: Missing("no key", f"set {name.upper()}_KEY") for name in sorted(rest)},
        models=models or {},
        allow_local_cloud=allow_local_cloud,
    )


def gateway(config: ChatdConfig | None = None, names: Names | None = None) -> Gateway:
    """A front end with Ollama and Kimi registered, unless ``names`` says otherwise."""
    clock = FakeClock()
    store = FakeStore(clock)
    replies = FakeReplies(store, clock)
    catalogue = Catalogue(fakeredis.FakeRedis(decode_responses=True))
    app = create_app(
        config or ChatdConfig(),
        names=names or registered_names("ollama", "kimi"),
        store=store,
        replies=replies,
        catalogue=catalogue,
        clock=clock,
    )
    return Gateway(app.test_client(), store, replies, clock, catalogue)
