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
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chat.config import ChatdConfig
from chat.errors import (
    JobNotFound,
    QueueFull,
    QuotaExhausted,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from chat.jobs import Ending, NewJob, new_job_id, queue_name
from chat.store import Grant, JobStore
from chat.types import ChatRequest, Lane, Message, Role
from tests.store_base import DAY_MS, now_ms
from tests.store_books import Books, balance

__all__ = ["StoreModel"]

PROVIDER = "openrouter"
#: Two models share a budget, and each of the others has its own.
MODELS = ("a/x:free", "b/x:free", "c/x", "d/x")
FREE = f"{PROVIDER}:*:free"
QUEUES = {lane: queue_name(PROVIDER, lane) for lane in Lane}
WORKER = "openrouter-1@here"

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


@dataclass(slots=True)
class Call:
    """One grant as its worker sees it; ``given_up`` once the keeper took its lease."""

    grant: Grant
    budget: str
    ending: Ending | None = None
    given_up: bool = False


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
        self.jobs: dict[str, NewJob] = {}
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
        rpm=st.sampled_from([None, 60, 600, 60_000]),
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

    # -- front ends

    @rule(
        model=st.sampled_from(MODELS),
        lane=st.sampled_from(Lane),
        timeout_s=st.sampled_from([0, 20, 3600, 3600, 3 * 86_400]),
    )
    def admit(self, model, lane, timeout_s) -> None:
        """A job is let in or refused; sent twice, it is one job."""
        job = NewJob(
            id=new_job_id(),
            request=ChatRequest(model, (Message(Role.USER, "x" * 400),)),
            provider=PROVIDER,
            upstream_model=model,
            lane=lane,
            timeout_ms=timeout_s * 1000,
        )
        accepted = self.store.counters().get("accepted", 0)
        try:
            self.store.admit(job)
        except (QueueFull, UpstreamRateLimited, QuotaExhausted, UpstreamUnavailable) as error:
            assert error.retry_after_s
            assert self.store.counters().get("accepted", 0) == accepted
        else:
            self.store.admit(job)
            self.jobs[job.id] = job
            assert self.store.counters()["accepted"] == accepted + 1

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data) -> None:
        """Somebody cancels a job, whatever its state."""
        job_id = self.any_job(data)
        try:
            before = self.store.record(job_id).state
        except JobNotFound:
            return
        after = self.store.cancel(job_id)
        assert after == (before if before.terminal or before == "calling" else "cancelled")

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def look(self, data) -> None:
        """Somebody reads a record: what waits says why, what is over has its end."""
        try:
            record = self.store.record(self.any_job(data))
        except JobNotFound:
            return
        waits = record.state in {"queued", "waiting"}
        assert (record.waiting is not None) == waits
        assert not waits or record.waiting["reason"]
        assert (record.error is None) == (record.response is not None or not record.state.terminal)

    # -- workers

    @rule(lane=st.sampled_from(Lane))
    def fetch(self, lane) -> None:
        """A worker takes the next wake-up out of a list."""
        job_id = self.client.rpop(QUEUES[lane])
        if job_id is not None:
            self.hand.append(str(job_id))

    @precondition(lambda self: self.hand)
    @rule(data=st.data(), may_wait=st.booleans())
    def start_fetched(self, data, may_wait) -> None:
        """A worker starts what it has in its hand; what has to wait stays there."""
        job_id = data.draw(st.sampled_from(self.hand))
        if not self.start(job_id, self.new_token(), may_wait=may_wait):
            self.hand.remove(job_id)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def start_any(self, data) -> None:
        """A second wake-up of some job is about."""
        self.start(self.any_job(data), self.new_token())

    @precondition(lambda self: any(call.ending is None for call in self.calls))
    @rule(data=st.data())
    def start_again(self, data) -> None:
        """The reply to a start was lost: the same grant comes again, or the job has gone on."""
        call = data.draw(st.sampled_from([call for call in self.calls if call.ending is None]))
        if not call.given_up:
            budget = self.client.hgetall(f"budget:{call.budget}")
            again = self.store.start(call.grant.job_id, worker=WORKER, token=call.grant.token)
            assert isinstance(again, Grant), again
            assert (again.attempt, again.record) == (call.grant.attempt, call.grant.record)
            assert self.client.hgetall(f"budget:{call.budget}") == budget

    @precondition(lambda self: any(call.ending is None for call in self.calls))
    @rule(data=st.data(), how=st.sampled_from(sorted(ENDINGS)), again=st.booleans())
    def finish(self, data, how, again) -> None:
        """A call ends in some way, and its worker says so."""
        call = data.draw(st.sampled_from([call for call in self.calls if call.ending is None]))
        self.end(call, how, again=again)

    @precondition(lambda self: any(call.ending is not None for call in self.calls))
    @rule(data=st.data())
    def finish_again(self, data) -> None:
        """The reply to an end was lost, and it is sent again, however much later."""
        call = data.draw(st.sampled_from([call for call in self.calls if call.ending is not None]))
        assert call.ending is not None
        state = self.client.hget(f"job:{call.grant.job_id}", "state")
        if state is not None:  # Else the record is made again: see the rule that removes it.
            self.store.finish(call.ending)
            assert self.client.hget(f"job:{call.grant.job_id}", "state") == state

    @rule()
    def beat(self) -> None:
        """A worker renews all it ever held: what it holds no more does not come back."""
        held = [(call.grant.job_id, call.grant.token) for call in self.calls]
        self.store.heartbeat(WORKER, PROVIDER, held)

    # -- the keeper

    @rule(sweep=st.booleans())
    def release(self, sweep) -> None:
        """The keeper brings parked jobs back."""
        self.store.release(sweep=sweep)

    @precondition(lambda self: any(call.ending is None for call in self.calls))
    @rule(data=st.data())
    def reclaim(self, data) -> None:
        """The keeper gives up a call whose worker seems gone; it may come back yet."""
        leases = self.store.calls(PROVIDER)
        if leases:
            lease = data.draw(st.sampled_from(leases))
            self.store.reclaim(PROVIDER, lease)
            self.gave_up(lease.job_id, lease.token)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def expire(self, data) -> None:
        """The deadline of some job passes."""
        job_id = self.any_job(data)
        if self.client.zscore("deadlines", job_id) is not None:
            self.client.hset(f"job:{job_id}", "deadline", 1)
            self.client.zadd("deadlines", {job_id: 1})
            self.store.expire_due()

    @rule()
    def retire(self) -> None:
        """The retention of all that is over ends, and no budget has been used for long."""
        # What ends later was made again from its worker's memory: it is left out here.
        over = {call.grant.job_id for call in self.calls if call.ending is None}
        for member in self.client.zrange("terminal", 0, -1):
            if str(member).split(" ", 1)[0] not in over:
                self.client.zadd("terminal", {member: 1})
        self.store.retire(PROVIDER)

    @rule(lane=st.sampled_from(Lane))
    def republish(self, lane) -> None:
        """The keeper takes every wake-up for lost."""
        self.store.republish(QUEUES[lane], 10**9, only_if_empty=True)

    @rule(lane=st.sampled_from(Lane))
    def lose(self, lane) -> None:
        """The wake-ups of a list are lost, and those in a worker's hand."""
        self.client.delete(QUEUES[lane])
        self.hand.clear()
        self.lost_messages = True

    # -- time

    @rule(budget=st.sampled_from([FREE, f"{PROVIDER}:c/x"]), ms=st.sampled_from([10, 400, 30_000]))
    def wait(self, budget, ms) -> None:
        """Some time passes for a budget."""
        self.shift(budget, ms)

    @rule()
    def come_due(self) -> None:
        """Every back-off is over."""
        for job_id in self.client.zrange("due", 0, -1):
            self.client.zadd("due", {job_id: 1})

    @rule()
    def grow_old(self) -> None:
        """Whoever waits has waited long, and people were here long ago."""
        for job_id in self.client.zrange("deadlines", 0, -1):
            self.client.hset(f"job:{job_id}", "created", 1)
        self.client.hset(f"lanes:{PROVIDER}", "active", 1)

    # -- what always holds

    @invariant()
    def books_balance(self) -> None:
        """Each count is true, each job in one place, each permit at a call."""
        balance(self.client)

    @invariant()
    def what_is_queued_has_a_wake_up(self) -> None:
        """In the list or in a worker's hand, unless messages were lost."""
        if not self.lost_messages:
            there = {str(job) for queue in QUEUES.values() for job in self.lines(queue)}
            for queue in QUEUES.values():
                assert set(self.client.zrange(f"queued:{queue}", 0, -1)) <= there | set(self.hand)

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
        for _ in range(10 * len(self.jobs) + 10):
            for call in self.calls:
                if call.ending is None:
                    self.end(call, "succeeded")
            if not self.client.zcard("deadlines"):
                return
            for budget in [FREE, *(f"{PROVIDER}:{model}" for model in MODELS)]:
                self.shift(budget, 4_000_000)
                self.client.hdel(f"budget:{budget}", "day", "turn")
            self.client.hset(f"lanes:{PROVIDER}", mapping={"active": 1, "since": 0})
            self.come_due()
            self.store.release(sweep=False)
            for queue in QUEUES.values():
                for job_id in self.client.zrange(f"queued:{queue}", 0, -1):
                    self.start(str(job_id), self.new_token())
        raise AssertionError(Books.read(self.client))

    # -- steps

    def start(self, job_id: str, token: str, *, may_wait: bool = True) -> bool:
        """Start a job; whether its wake-up has to stay where it is."""
        held = self.store.start(job_id, worker=WORKER, token=token, may_wait=may_wait)
        if not isinstance(held, Grant):
            return held.kind == "wait"
        record = json.loads(held.record)
        self.calls.append(Call(held, record["budget"]))
        self.rate_holds(record["budget"], record["started"])
        return False

    def rate_holds(self, budget: str, started: float) -> None:
        """No stretch of a minute has more starts of a budget than its limit."""
        rate = self.rates[budget]
        rate.starts.append(started + rate.passed)
        recent = [at for at in rate.starts if at > rate.starts[-1] - 60_000]
        assert len(recent) <= self.limits.get(budget, len(recent)), (budget, recent)

    def end(self, call: Call, how: str, *, again: bool = False) -> None:
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
        self.store.finish(call.ending)
        if changes["state"] == "succeeded":
            # A newer attempt has nothing left to do; it is told to stop and has no permit.
            self.gave_up(call.grant.job_id)

    def gave_up(self, job_id: str, token: str | None = None) -> None:
        for call in self.calls:
            if call.grant.job_id == job_id and token in {None, call.grant.token}:
                call.given_up = True

    def shift(self, budget: str, ms: int) -> None:
        """Let ``ms`` have passed for a budget."""
        key = f"budget:{budget}"
        times = ("last", "tokens_at", "closed_until", "open_at", "grow_at", "event_at", "prev_at")
        marks = ("from", "mark", "short_from", "short_mid", "over_at", "quota_at", "turn")
        for name in (*times, *marks):
            value = self.client.hget(key, name)
            if value is not None:
                self.client.hset(key, name, str(float(value) - ms))
        self.rates[budget].passed += ms

    def any_job(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(list(self.jobs)))

    def new_token(self) -> str:
        self.tokens += 1
        return f"token-{self.tokens}"

    def lines(self, queue: str) -> list[str]:
        return [str(text) for text in self.client.lrange(queue, 0, -1)]
