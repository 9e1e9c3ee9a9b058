"""Whatever happens to jobs, in any order: a machine of rules for hypothesis, and what always holds.

The machine plays front ends, workers, a keeper and the passing of time. Time is not waited for:
what is stored moves back instead, and the machine adds up by how much.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from chat.config import ChatdConfig
from chat.errors import (
    ChatError,
    QueueFull,
    QuotaExhausted,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from chat.jobs import Ending, JobState, NewJob, Piece, new_job_id, queue_name
from chat.store import Grant, JobStore
from chat.types import ChatRequest, Delta, DeltaKind, Lane, Message, Role
from tests.store_books import Books, balance

__all__ = ["StoreModel", "explore"]

PROVIDER = "openrouter"
#: Two models share a budget, and each of the others has its own.
MODELS = ("a/x:free", "b/x:free", "c/x", "d/x")
FREE = f"{PROVIDER}:*:free"
BUDGETS = (FREE, f"{PROVIDER}:c/x", f"{PROVIDER}:d/x")
QUEUES = {lane: queue_name(PROVIDER, lane) for lane in Lane}
WORKER = "openrouter-1@here"

#: Which job or call a rule is about, counted round. Redis' clock is real, so how many there are may
#: differ when an example is run again, and hypothesis wants every choice to be the same then.
PICKS = st.integers(0, 999)

#: How calls end: what the worker tells the store, by name.
ENDINGS: dict[str, dict[str, Any]] = {
    "succeeded": {"state": "succeeded", "signal": "accepted", "input_tokens": 9},
    "failed": {"signal": "accepted", "counts_as": "answered"},
    "cancelled": {"state": "cancelled"},
    "refused": {"signal": "refused", "counts_as": "refused"},
    "refused for a while": {"signal": "refused", "counts_as": "refused", "retry_after_s": 30.0},
    "overloaded": {"signal": "overloaded", "counts_as": "answered"},
    "quota": {"signal": "quota", "counts_as": "refused"},
    "unknown": {"counts_as": "unknown"},
}
#: Which of them the worker asks another attempt for: after how many seconds.
AGAIN: dict[str, float] = {
    "refused": 0.0,
    "refused for a while": 0.0,
    "quota": 0.0,
    "overloaded": 4.0,
    "unknown": 1.0,
}

#: The fields of a budget that are times.
TIMES = (
    *("last", "tokens_at", "closed_until", "open_at", "grow_at", "event_at", "prev_at", "turn"),
    *("from", "mark", "short_from", "short_mid", "over_at", "quota_at"),
)


@dataclass(slots=True)
class Call:
    """One grant as its worker sees it; ``given_up`` once the keeper took its lease.

    ``pieces`` of its answer have gone out.
    """

    grant: Grant
    budget: str
    ending: Ending | None = None
    given_up: bool = False
    pieces: int = 0


@dataclass(slots=True)
class Rate:
    """The starts of a budget: when each was (ms), with the time that only seemed to pass."""

    passed: float = 0.0
    starts: list[float] = field(default_factory=list)


class StoreModel(RuleBasedStateMachine):
    """Every rule is something that a front end, a worker, a keeper or the clock may do."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__()
        self.client = client
        client.flushdb()
        self.store = JobStore(client, ChatdConfig(max_queued=30))
        self.jobs: list[str] = []
        self.calls: list[Call] = []
        self.hand: list[str] = []
        self.rates: defaultdict[str, Rate] = defaultdict(Rate)
        self.limits: dict[str, int] = {}
        self.permits = 0
        self.tokens = 0
        self.lost_messages = False

    @initialize(
        permits=st.integers(1, 4),
        turn=st.sampled_from([0, 2, 3]),
        max_wait=st.sampled_from([0, 60_000]),
        rpm=st.sampled_from([None, 5, 600, 60_000]),
        rpd=st.sampled_from([None, 1, 4]),
        tpm=st.sampled_from([None, 4000]),
        learn=st.booleans(),
    )
    def configure(self, permits, turn, max_wait, rpm, rpd, tpm, learn) -> None:
        """Settings of a provider with three budgets, the first of them with limits."""
        self.permits = permits
        self.store.register_settings([PROVIDER])
        self.store.register_envelopes(dict.fromkeys(QUEUES.values(), "@JOB@"))
        settings = {"permits": permits, "share": 0.7, "turn": turn, "max_wait": max_wait}
        numbers = {"rpm": rpm, "rpd": rpd, "tpm": tpm}
        limit = {key: value for key, value in numbers.items() if value} | {"learn": learn}
        key = f"settings:{PROVIDER}"
        self.client.hset(key, "provider", json.dumps({**settings, "reserve": 0.1}))
        self.client.hset(key, "limit:*:free", json.dumps(limit))
        self.client.hset(key, "limit:*", json.dumps({"learn": learn}))
        if rpm:
            self.limits[FREE] = rpm
        for lane in Lane:
            self.admit(model=MODELS[0], lane=lane, count=3, timeout_s=3600)
            self.admit(model=MODELS[2], lane=lane, count=2, timeout_s=3600)

    # -- front ends

    @rule(
        model=st.sampled_from(MODELS),
        lane=st.sampled_from(Lane),
        count=st.integers(1, 5),
        timeout_s=st.sampled_from([3600, 3600, 3600, 3 * 86_400, 20, 0]),
    )
    def admit(self, model, lane, count, timeout_s) -> None:
        """Some jobs are let in or refused; each is sent twice, and is one job."""
        for _ in range(count):
            job = NewJob(
                id=new_job_id(),
                request=ChatRequest(model, (Message(Role.USER, "x" * 40),)),
                provider=PROVIDER,
                upstream_model=model,
                lane=lane,
                timeout_ms=timeout_s * 1000,
            )
            before = self.store.counters().get("accepted", 0)
            refusal: ChatError | None = None
            try:
                self.store.admit(job)
                self.store.admit(job)
            except (QueueFull, UpstreamRateLimited, QuotaExhausted, UpstreamUnavailable) as error:
                refusal = error
            assert refusal is None or refusal.retry_after_s
            assert self.store.counters().get("accepted", 0) == before + (refusal is None)
            if refusal is None:
                self.jobs.append(job.id)

    @rule(pick=PICKS, expires=st.booleans())
    def end_early(self, pick, expires) -> None:
        """Somebody cancels a job, whatever its state, or its deadline passes."""
        # Every other time one that waits, since most jobs do not for long.
        parked = [f"parked:{budget}:{lane}" for budget in BUDGETS for lane in Lane]
        aside = [job_id for key in ("due", *parked) for job_id in self.members(key)]
        choice = aside if aside and pick % 2 else self.jobs
        if not choice:
            return
        job_id = choice[pick // 2 % len(choice)]
        if expires and self.client.zscore("deadlines", job_id) is not None:
            self.client.hset(f"job:{job_id}", "deadline", 1)
            self.client.zadd("deadlines", {job_id: 1})
            self.store.expire_due()
        elif (before := self.state(job_id)) is not None:
            stays = before.terminal or before == "calling"
            assert self.store.cancel(job_id) == (before if stays else "cancelled")

    @rule(pick=PICKS)
    def look(self, pick) -> None:
        """Somebody reads a record: what waits says why, what is over has its end."""
        self.store.overview([PROVIDER])
        job_id = self.jobs[pick % len(self.jobs)] if self.jobs else ""
        if self.state(job_id) is None:
            return
        record = self.store.record(job_id)
        waits = record.state in {"queued", "waiting"}
        assert (record.waiting is not None) == waits
        assert record.waiting is None or record.waiting["reason"]
        assert (record.error is None and record.response is None) == (not record.state.terminal)

    # -- workers

    @rule(lane=st.sampled_from(Lane), count=st.integers(1, 4), may_wait=st.booleans())
    def start(self, lane, count, may_wait) -> None:
        """A worker fetches wake-ups and starts them; what has to wait stays in its hand."""
        for _ in range(count):
            job_id = self.client.rpop(QUEUES[lane])
            if job_id is not None:
                self.hand.append(str(job_id))
        for job_id in tuple(self.hand):
            if not self.ask(job_id, may_wait=may_wait):
                self.hand.remove(job_id)
        # It renews all that it ever held: what it holds no more does not come back.
        held = [(call.grant.job_id, call.grant.token) for call in self.calls]
        self.store.heartbeat(WORKER, PROVIDER, held)

    @rule(
        lane=st.sampled_from(Lane),
        ends=st.lists(st.sampled_from(sorted(ENDINGS)), min_size=1, max_size=4),
        again=st.sampled_from([True, True, False]),
    )
    def run(self, lane, ends, again) -> None:
        """A worker fetches wake-ups and runs the jobs to the end of their calls, one by one."""
        for how in ends:
            before = len(self.calls)
            self.start(lane=lane, count=1, may_wait=False)
            for call in self.calls[before:]:
                self.end(call, how, again=again)

    @rule(pick=PICKS)
    def start_any(self, pick) -> None:
        """A second wake-up of some job is about."""
        if self.jobs:
            self.ask(self.jobs[pick % len(self.jobs)])

    @rule(
        pick=PICKS, how=st.sampled_from(sorted(ENDINGS)), again=st.sampled_from([True, True, False])
    )
    def finish(self, pick, how, again) -> None:
        """A call ends in some way; one that has ended is told once more, however much later."""
        if not self.calls:
            return
        call = self.calls[pick % len(self.calls)]
        if call.ending is None:
            self.start_again(call)
            self.end(call, how, again=again)
        elif (before := self.state(call.grant.job_id)) is not None:
            # Were the record gone, it would be made again: a worker does not repeat itself so late.
            budget = self.client.hgetall(f"budget:{call.budget}")
            self.store.finish(call.ending)
            assert self.state(call.grant.job_id) == before
            assert self.client.hgetall(f"budget:{call.budget}") == budget

    @rule(pick=PICKS, count=st.integers(1, 3))
    def stream(self, pick, count) -> None:
        """A call sends pieces of its answer, the last one of them twice."""
        running = [call for call in self.calls if call.ending is None]
        if not running:
            return
        call = running[pick % len(running)]
        known = [delta for _, delta in self.store.events(call.grant.job_id)]
        pieces = [
            Piece(
                call.grant.job_id,
                call.grant.token,
                call.grant.attempt,
                call.pieces + number,
                Delta(DeltaKind.CONTENT, f"{call.grant.token} {number}"),
            )
            for number in range(1, count + 1)
        ]
        unwanted = self.store.deliver(pieces) + self.store.deliver(pieces[-1:])
        events = [delta for _, delta in self.store.events(call.grant.job_id)]
        if call.given_up:
            assert unwanted == [(call.grant.job_id, call.grant.token)] * 2
            assert events == known
        else:
            call.pieces += count
            assert (unwanted, events) == ([], known + [piece.delta for piece in pieces])

    def start_again(self, call: Call) -> None:
        """The reply to a start was lost: the same grant comes again, and is not charged again."""
        if not call.given_up:
            budget = self.client.hgetall(f"budget:{call.budget}")
            again = self.store.start(call.grant.job_id, worker=WORKER, token=call.grant.token)
            assert isinstance(again, Grant), again
            assert again.attempt == call.grant.attempt
            started = json.loads(call.grant.record)["started"]
            assert json.loads(again.record)["started"] == started
            assert self.client.hgetall(f"budget:{call.budget}") == budget

    # -- the keeper

    @rule(sweep=st.booleans(), ms=st.sampled_from([0, 10, 400, 30_000, 4_000_000]))
    def release(self, sweep, ms) -> None:
        """Parked jobs are brought back after a while."""
        self.pass_time(ms)
        self.store.release(sweep=sweep)

    @rule(
        pick=PICKS,
        what=st.sampled_from(["reclaim", "republish", "retire", "settle", "lose", "age", "drain"]),
    )
    def keep(self, pick, what) -> None:
        """What befalls all jobs: losses and what is done about them, removal, long waiting."""
        if what == "reclaim" and (leases := self.store.calls(PROVIDER)):
            lease = leases[pick % len(leases)]
            self.store.reclaim(PROVIDER, lease)
            self.gave_up(lease.job_id, lease.token)
        elif what == "republish":
            for queue in QUEUES.values():
                self.store.republish(queue, 10**9, only_if_empty=True)
        elif what in {"retire", "settle"}:
            self.remove(collected=what == "settle")
        elif what == "lose":
            self.client.delete(*QUEUES.values())
            self.hand.clear()
            self.lost_messages = True
        elif what == "drain" and self.store.resume(PROVIDER) is None:
            self.store.drain(PROVIDER)
        elif what == "age":
            for job_id in self.members("deadlines"):
                self.client.hset(f"job:{job_id}", "created", 1)
            self.client.hset(f"lanes:{PROVIDER}", "active", 1)

    def remove(self, *, collected) -> None:
        """Records of ended jobs go: somebody has collected them, or their retention is over."""
        # A record that is missed when its call ends is made again: that is told elsewhere.
        missed = {call.grant.job_id for call in self.calls if call.ending is None}
        if collected:
            self.store.settle([job_id for job_id in self.jobs if job_id not in missed])
            return
        for member in self.members("terminal"):
            if member.split(" ", 1)[0] not in missed:
                self.client.zadd("terminal", {member: 1})
        self.store.retire(PROVIDER)

    # -- what always holds

    @invariant()
    def books_balance(self) -> None:
        """Each count is true, each job in one place, each permit at a call."""
        balance(self.client)

    @invariant()
    def what_is_queued_has_a_wake_up(self) -> None:
        """In the list or in a worker's hand, unless messages were lost."""
        if not self.lost_messages:
            for queue in QUEUES.values():
                there = {*self.client.lrange(queue, 0, -1), *self.hand}
                assert set(self.members(f"queued:{queue}")) <= there

    @invariant()
    def an_answer_that_has_begun_is_the_only_one(self) -> None:
        """Its job is in that call, or over: nobody is given the beginning of another one."""
        for call in self.calls:
            if call.pieces and (state := self.state(call.grant.job_id)) is not None:
                token = self.client.hget(f"job:{call.grant.job_id}", "token")
                assert state.terminal or (state, token) == ("calling", call.grant.token)

    @invariant()
    def overruns_are_counted(self) -> None:
        """A call that was given up and ended after all, once; nothing else runs beyond permits."""
        running = [call for call in self.calls if call.ending is None and not call.given_up]
        assert self.client.zcard(f"leases:{PROVIDER}") <= self.permits
        assert len(running) == self.client.zcard(f"leases:{PROVIDER}")

    def teardown(self) -> None:
        """Every job can be brought to its end, and no permit is left behind."""
        if self.permits:
            self.drain()
            balance(self.client)
            assert not self.client.zcard(f"leases:{PROVIDER}")
            assert set(self.client.hvals(f"in_use:{PROVIDER}")) <= {"0"}
        super().teardown()

    def drain(self) -> None:
        """Finish what runs, then let time pass, release and start until nothing is left."""
        self.store.resume(PROVIDER)
        for call in self.calls:
            if call.ending is None:
                self.end(call, "succeeded")
        for _ in range(2 * len(self.jobs) + 2):
            if not self.client.zcard("deadlines"):
                return
            self.pass_time(4_000_000)
            for budget in BUDGETS:
                self.client.hdel(f"budget:{budget}", "day")
            self.client.hset(f"lanes:{PROVIDER}", mapping={"active": 1, "since": 0})
            self.store.release(sweep=False)
            for queue in QUEUES.values():
                for job_id in self.members(f"queued:{queue}"):
                    self.ask(job_id)
                    if self.calls and self.calls[-1].ending is None:
                        self.end(self.calls[-1], "succeeded")
        raise AssertionError(Books.read(self.client))

    # -- steps

    def pass_time(self, ms: int) -> None:
        """Some time passes for the budgets and for the back-off of jobs."""
        for budget in BUDGETS:
            key = f"budget:{budget}"
            for name, value in zip(TIMES, self.client.hmget(key, TIMES), strict=True):
                if value is not None:
                    self.client.hset(key, name, str(float(value) - ms))
            self.rates[budget].passed += ms
        for job_id in self.members("due"):
            self.client.zincrby("due", -ms, job_id)

    def ask(self, job_id: str, *, may_wait: bool = True) -> bool:
        """Start a job; whether its wake-up has to stay where it is."""
        self.tokens += 1
        token = f"token-{self.tokens}"
        held = self.store.start(job_id, worker=WORKER, token=token, may_wait=may_wait)
        if not isinstance(held, Grant):
            return held.kind == "wait"
        assert not self.store.drained([PROVIDER])
        record = json.loads(held.record)
        self.calls.append(Call(held, record["budget"]))
        self.rate_holds(record["budget"], float(record["started"]))
        return False

    def rate_holds(self, budget: str, started: float) -> None:
        """No minute has more starts of a budget than its limit."""
        rate = self.rates[budget]
        rate.starts.append(started + rate.passed)
        recent = [at for at in rate.starts if at > rate.starts[-1] - 60_000]
        assert len(recent) <= self.limits.get(budget, len(recent)), (budget, recent)

    def end(self, call: Call, how: str, *, again: bool = False) -> None:
        """A worker tells how its call ended."""
        changes = {"state": "failed", **ENDINGS[how]}
        if again and how in AGAIN:
            changes |= {"again_after_s": AGAIN[how], "again_why": how}
        call.ending = Ending(
            job_id=call.grant.job_id,
            token=call.grant.token,
            record=call.grant.record,
            provider=PROVIDER,
            worker=WORKER,
            payload={"code": "internal_error", "message": how},
            outcome=how,
            upstream_status=None,
            billed="maybe",
            **changes,
        )
        finished = self.store.finish(call.ending)
        if (changes["state"], finished.detail) == ("succeeded", "succeeded"):
            # A newer attempt has nothing left to do; it is told to stop and has no permit.
            self.gave_up(call.grant.job_id)

    def gave_up(self, job_id: str, token: str | None = None) -> None:
        """The call of that token, or every call of a job, has no permit any more."""
        for call in self.calls:
            if call.grant.job_id == job_id and token in {None, call.grant.token}:
                call.given_up = True

    def state(self, job_id: str) -> JobState | None:
        """The state of a job, or ``None`` when its record has been removed."""
        state = self.client.hget(f"job:{job_id}", "state")
        return None if state is None else JobState(str(state))

    def members(self, key: str) -> list[str]:
        """What a sorted set has, in its order."""
        return [str(member) for member in self.client.zrange(key, 0, -1)]


def explore(client: redis.Redis, *, examples: int, steps: int) -> None:
    """Run the machine on a Redis so many times, with so many rules each."""

    class Machine(StoreModel):
        def __init__(self) -> None:
            super().__init__(client)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
