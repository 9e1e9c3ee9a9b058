"""What the job store promises, on fakeredis (unit) and on a real server (system).

A module that wants the suite imports ``StoreSuite`` and has a fixture ``client``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import redis

from chat.config import ChatdConfig
from chat.errors import IdempotencyMismatch, JobNotFound, NoWorker, QueueFull
from chat.jobs import JobState, NewJob, new_job_id, queue_name
from chat.store import Call, Grant, JobStore
from chat.types import Billed, ChatRequest, Lane, Message, Role

STATES = ("queued", "waiting", "calling", "succeeded", "failed", "cancelled", "expired")
QUEUE = "chat.ollama"


def a_job(**changes: Any) -> NewJob:
    """A job of local Ollama's interactive lane that has a minute."""
    job = NewJob(
        id=new_job_id(),
        request=ChatRequest("qwen3:8b", (Message(Role.USER, "Capital of France? – “Paris”"),)),
        provider="ollama",
        upstream_model="qwen3:8b",
        lane=Lane.INTERACTIVE,
        timeout_ms=60_000,
    )
    return replace(job, **changes)


def balance(client: redis.Redis) -> None:
    """accepted = the sum over the states + retired, and each count is the true one."""
    acct = {name: int(value) for name, value in client.hgetall("acct").items()}
    live = [client.hget(key, "state") for key in client.scan_iter("job:*")]
    counted = {state: acct.get(state, 0) for state in STATES}

    assert acct.get("accepted", 0) == sum(counted.values()) + acct.get("retired", 0)
    assert counted == {state: live.count(state) for state in STATES}
    assert min(acct.values(), default=0) >= 0


class StoreSuite:
    """Every test leaves the books balanced."""

    @pytest.fixture
    def config(self) -> ChatdConfig:
        return ChatdConfig()

    @pytest.fixture
    def store(self, client, config):
        store = JobStore(client, config)
        for lane in Lane:
            store.register_envelope(queue_name("ollama", lane), '{"id":"@JOB@","tag":"@TAG@"}')
        yield store
        balance(client)

    def start(self, store: JobStore, job_id: str, token: str = "t1", permits: int = 4) -> Grant:
        grant = store.start(job_id, worker="ollama-1@here", token=token, permits=permits)
        assert isinstance(grant, Grant), grant
        return grant

    def finish(self, store, grant, state=JobState.SUCCEEDED, payload=None, outcome="succeeded"):
        return store.finish(
            grant,
            provider="ollama",
            worker="ollama-1@here",
            state=state,
            payload=payload or {"content": "Paris – “ok”"},
            outcome=outcome,
            upstream_status=200,
            billed=Billed.YES,
        )

    def reclaim(self, store: JobStore) -> list[str]:
        return [store.reclaim("ollama", call).became for call in store.calls("ollama")]

    # -- admit

    def test_admit_writes_the_record_and_sends_the_wake_up(self, store, client):
        """One call leaves a queued record, its counters and one filled-in envelope."""
        job = a_job(metadata={"team": "a"})

        admitted = store.admit(job)

        record = store.record(job.id)
        assert admitted.job_id == job.id
        assert (record.state, record.lane, record.metadata) == (
            "queued",
            "interactive",
            {"team": "a"},
        )
        assert record.deadline_at - record.created_at == 60_000
        assert client.lrange(QUEUE, 0, -1) == [f'{{"id":"{job.id}","tag":"{job.id}.1"}}']
        assert store.counters()["accepted"] == store.counters()["queued"] == 1

    def test_a_repeated_admit_is_one_job(self, store, client):
        """A client that never saw the reply sends the same call again."""
        job = a_job()

        first, second = store.admit(job), store.admit(job)

        assert first == second
        assert store.counters()["accepted"] == client.llen(QUEUE) == 1

    def test_batch_jobs_travel_in_their_own_queue(self, store, client):
        """The lane decides the queue."""
        store.admit(a_job(lane=Lane.BATCH))

        assert (client.llen(QUEUE), client.llen(f"{QUEUE}.batch")) == (0, 1)

    @pytest.mark.parametrize(
        ("limits", "rule"),
        [
            pytest.param({"max_queued": 2}, "max_queued = 2", id="jobs"),
            pytest.param({"max_queued_bytes": 250}, "max_queued_bytes = 250", id="bytes"),
        ],
    )
    def test_a_full_queue_refuses_and_queues_nothing(self, client, config, store, limits, rule):
        """The cap on jobs or bytes is never passed, and the refusal says when to come back."""
        capped = JobStore(client, replace(config, **limits))
        for _ in range(2):
            capped.admit(a_job())

        with pytest.raises(QueueFull, match=rule) as refusal:
            capped.admit(a_job())

        assert refusal.value.retry_after_s
        assert client.llen(QUEUE) == store.counters()["accepted"] == 2

    def test_bytes_of_ended_jobs_are_given_back(self, store):
        """Only live requests count against max_queued_bytes."""
        job = a_job()
        store.admit(job)
        before = store.counters()["bytes"]
        store.cancel(job.id)

        assert (before > 0, store.counters()["bytes"]) == (True, 0)

    def test_a_waiting_caller_needs_a_worker(self, store, client):
        """Without a worker a call that waits is refused; one that does not is queued."""
        with pytest.raises(NoWorker, match="chatd worker ollama"):
            store.admit(a_job(waits=True))

        store.admit(a_job(waits=False))
        store.heartbeat("ollama-1@here", "ollama", [])
        store.admit(a_job(waits=True))
        client.zadd("workers:ollama", {"ollama-1@here": 1})
        with pytest.raises(NoWorker):
            store.admit(a_job(waits=True))

    def test_an_idempotency_key_joins_the_job_in_every_state(self, store):
        """Queued, calling and done: the same key and body is the same job."""
        job = a_job(idempotency_key="k", body_hash="h")
        store.admit(job)
        again = [store.admit(a_job(idempotency_key="k", body_hash="h"))]
        grant = self.start(store, job.id)
        again.append(store.admit(a_job(idempotency_key="k", body_hash="h")))
        self.finish(store, grant)
        again.append(store.admit(a_job(idempotency_key="k", body_hash="h")))

        assert {a.job_id for a in again} == {job.id}
        assert all(a.joined for a in again)
        assert [a.outcome and a.outcome.response for a in again] == [
            None,
            None,
            {"content": "Paris – “ok”"},
        ]

    def test_a_caller_who_joins_is_told_of_the_end(self, store, client):
        """Its channel is added to the job's watchers in the same step."""
        job = a_job(idempotency_key="k", body_hash="h", reply_to="reply:1")
        store.admit(job)
        store.admit(a_job(idempotency_key="k", body_hash="h", reply_to="reply:2"))
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        pubsub.subscribe("reply:1", "reply:2")
        self.finish(store, self.start(store, job.id))
        heard: set[str] = set()
        while len(heard) < 2:
            message = pubsub.get_message(timeout=5)
            if message:
                heard.add(message["channel"])

        assert heard == {"reply:1", "reply:2"}
        pubsub.close()

    def test_an_idempotency_key_with_another_body_is_refused(self, store):
        """The key is bound to the first body."""
        store.admit(a_job(idempotency_key="k", body_hash="h"))

        with pytest.raises(IdempotencyMismatch):
            store.admit(a_job(idempotency_key="k", body_hash="other"))

    def test_redis_never_sees_the_idempotency_key(self, store, client):
        """It may be a secret of the caller's."""
        store.admit(a_job(idempotency_key="very-secret", body_hash="h"))

        assert not [key for key in client.keys("*") if "very-secret" in key]

    # -- start

    def test_start_grants_an_attempt(self, store, client):
        """The grant holds the request; the record is calling, the permit is taken."""
        job = a_job()
        store.admit(job)

        grant = self.start(store, job.id)

        record = store.record(job.id)
        assert grant.request == job.request
        assert 59_000 < grant.remaining_ms <= 60_000
        assert (record.state, record.attempts[0].worker) == ("calling", "ollama-1@here")
        assert client.zcard("leases:ollama") == 1
        assert client.zcard(f"queued:{QUEUE}") == 0

    def test_the_same_token_gets_the_same_grant(self, store):
        """A grant whose reply was lost is found again, and no second attempt is opened."""
        job = a_job()
        store.admit(job)
        first = self.start(store, job.id)
        second = self.start(store, job.id)

        assert replace(second, remaining_ms=first.remaining_ms) == first
        assert len(store.record(job.id).attempts) == 1

    def test_another_token_finds_nothing_to_do(self, store):
        """A second wake-up of the same job is harmless."""
        job = a_job()
        store.admit(job)
        grant = self.start(store, job.id)

        during = store.start(job.id, worker="w2", token="t2", permits=4)
        self.finish(store, grant)
        after = store.start(job.id, worker="w2", token="t2", permits=4)

        assert (during, after) == ("calling", "succeeded")
        assert store.start(new_job_id(), worker="w2", token="t2", permits=4) == "gone"

    def test_permits_are_never_exceeded(self, store):
        """The third of three waits until one of two permits is back."""
        jobs = [a_job() for _ in range(3)]
        for job in jobs:
            store.admit(job)
        first = self.start(store, jobs[0].id, "t0", permits=2)
        self.start(store, jobs[1].id, "t1", permits=2)
        refused = store.start(jobs[2].id, worker="w", token="t2", permits=2)
        self.finish(store, first)

        assert refused == "wait"
        assert self.start(store, jobs[2].id, "t2", permits=2).attempt == 1

    def test_a_wake_up_in_a_waiting_hand_is_not_lost(self, store):
        """While a worker waits for a permit its wake-up counts as just sent."""
        held, other = a_job(), a_job()
        for job in (held, other):
            store.admit(job)
        store.start(held.id, worker="w", token="t", permits=0)
        self.start(store, other.id)
        _, mark, _ = store.marks(QUEUE)

        assert store.republish(QUEUE, mark - 1, only_if_empty=False) == 0

    def test_a_job_past_its_deadline_is_not_started(self, store):
        """It expires, and no attempt is opened."""
        job = a_job(timeout_ms=0)
        store.admit(job)

        assert store.start(job.id, worker="w", token="t", permits=4) == "expired"
        record = store.record(job.id)
        assert (record.state, record.error["code"], record.attempts) == (
            "expired",
            "deadline_exceeded",
            (),
        )

    # -- finish

    def test_finish_ends_the_job_in_celerys_format(self, store, client):
        """The answer stands where Celery has it, the permit is back, the request is gone."""
        job = a_job()
        store.admit(job)
        grant = self.start(store, job.id)

        assert self.finish(store, grant) == ("done", "succeeded")

        meta = json.loads(client.get(f"celery-task-meta-{job.id}"))
        assert (meta["status"], meta["task_id"], meta["traceback"]) == ("SUCCESS", job.id, None)
        assert meta["result"]["response"] == {"content": "Paris – “ok”"}
        record = store.record(job.id)
        assert (record.state, record.attempts[0].outcome, record.attempts[0].billed) == (
            "succeeded",
            "succeeded",
            "yes",
        )
        assert client.zcard("leases:ollama") == 0
        assert not client.hexists(f"job:{job.id}", "request")

    def test_finish_repeated_is_finish(self, store):
        """The reply was lost; the second call changes nothing and says the same."""
        job = a_job()
        store.admit(job)
        grant = self.start(store, job.id)
        first = self.finish(store, grant)
        record = store.record(job.id)

        assert self.finish(store, grant) == first
        assert store.record(job.id) == record

    def test_a_failed_call_is_a_failed_job(self, store):
        """The error is the record's and the result's."""
        job = a_job()
        store.admit(job)
        grant = self.start(store, job.id)
        error = {"code": "upstream_auth", "message": "no"}
        self.finish(store, grant, JobState.FAILED, error, "upstream_auth")

        record = store.record(job.id)
        assert (record.state, record.error, record.response) == ("failed", error, None)

    def test_the_answer_of_a_reclaimed_call_is_taken(self, store, client):
        """It was paid for: a job that waits for its second attempt ends with the first one's."""
        job = a_job(lane=Lane.BATCH)
        store.admit(job)
        grant = self.start(store, job.id)
        assert self.reclaim(store) == ["queued"]

        assert self.finish(store, grant) == ("done", "succeeded")

        record = store.record(job.id)
        assert [(a.outcome, a.billed) for a in record.attempts] == [("late", "yes")]
        assert client.zcard(f"queued:{QUEUE}.batch") == 0
        assert store.start(job.id, worker="w", token="t9", permits=4) == "succeeded"

    def test_an_older_answer_beats_the_newer_attempt(self, store, client):
        """The newer call is told to stop, its permit is back, and its own end is ledger only."""
        job = a_job(lane=Lane.BATCH)
        store.admit(job)
        old = self.start(store, job.id, "old")
        self.reclaim(store)
        new = self.start(store, job.id, "new")

        assert self.finish(store, old) == ("done", "succeeded")
        assert client.zcard("leases:ollama") == 0
        stop = store.heartbeat("ollama-1@here", "ollama", [(job.id, "new")])
        assert stop == [(job.id, "new", "succeeded")]
        assert self.finish(store, new, JobState.CANCELLED, {"code": "x", "message": ""}) == (
            "late",
            "succeeded",
        )
        # What the newer call cost is in the ledger all the same.
        assert [(a.outcome, a.billed) for a in store.record(job.id).attempts] == [
            ("late", "yes"),
            ("superseded", "yes"),
        ]

    def test_a_superseded_call_is_told_at_once(self, store, client):
        """Its worker hears of it on its own channel."""
        job = a_job(lane=Lane.BATCH)
        store.admit(job)
        old = self.start(store, job.id, "old")
        self.reclaim(store)
        store.start(job.id, worker="ollama-2@here", token="new", permits=4)
        pubsub = client.pubsub()
        pubsub.subscribe("chatd:stop:ollama-2@here")
        assert pubsub.get_message(timeout=5)["type"] == "subscribe"
        self.finish(store, old)
        message = None
        while message is None:
            message = pubsub.get_message(timeout=5)

        assert message["data"] == f"{job.id} new"
        pubsub.close()

    def test_a_call_that_ends_after_its_job_is_in_the_ledger(self, store, client):
        """The job failed as unknown when its lease was lost; then the call came back."""
        job = a_job()
        store.admit(job)
        grant = self.start(store, job.id)
        self.reclaim(store)

        assert self.finish(store, grant) == ("late", "failed")
        record = store.record(job.id)
        assert (record.state, record.error["code"]) == ("failed", "outcome_unknown")
        assert [(a.outcome, a.billed) for a in record.attempts] == [("late", "yes")]
        assert client.xrevrange("audit", count=1)[0][1]["event"] == "late"

    def test_an_older_error_changes_only_the_ledger(self, store, client):
        """The newer attempt goes on."""
        job = a_job(lane=Lane.BATCH)
        store.admit(job)
        old = self.start(store, job.id, "old")
        self.reclaim(store)
        new = self.start(store, job.id, "new")

        late = self.finish(store, old, JobState.FAILED, {"code": "x", "message": ""}, "x")
        assert late == ("late", "calling")
        assert [(a.outcome, a.billed) for a in store.record(job.id).attempts] == [
            ("late", "yes"),
            (None, None),
        ]
        assert client.xrevrange("audit", count=1)[0][1]["event"] == "late"
        assert self.finish(store, new) == ("done", "succeeded")

    def test_a_forgotten_job_is_made_again(self, store, client):
        """Redis lost its last second: the answer makes the record anew, counted once."""
        job = a_job(metadata={"team": "a"})
        store.admit(job)
        grant = self.start(store, job.id)
        client.flushdb()

        assert self.finish(store, grant) == ("done", "succeeded")

        record = store.record(job.id)
        assert (record.model, record.metadata, record.state) == (
            "qwen3:8b",
            {"team": "a"},
            "succeeded",
        )
        assert [(a.worker, a.outcome) for a in record.attempts] == [("ollama-1@here", "succeeded")]
        assert store.counters()["accepted"] == 1

    def test_an_ended_job_leaves_only_what_is_kept(self, store, client, config):
        """No deadline, no place in a queue; a record and a result that are removed in time."""
        job = a_job()
        store.admit(job)
        self.finish(store, self.start(store, job.id))
        seconds, _ = client.time()
        kept_s = client.zscore("terminal", f"{job.id} succeeded") / 1000 - seconds

        assert client.zcard("deadlines") == client.zcard(f"queued:{QUEUE}") == 0
        assert config.retention_s - 60 < kept_s <= config.retention_s + 1
        assert client.ttl(f"job:{job.id}") > config.retention_s
        assert client.ttl(f"celery-task-meta-{job.id}") > config.retention_s

    def test_answers_somebody_waited_for_are_kept_less_long(self, store, client, config):
        """They have been delivered; the record is there for questions about the bill."""
        job = a_job(reply_to="reply:1")
        store.admit(job)
        self.finish(store, self.start(store, job.id))

        assert client.ttl(f"job:{job.id}") <= 2 * config.sync_retention_s < config.retention_s

    def test_the_audit_stream_tells_the_story(self, store, client):
        """One entry per change of state, in order, with the worker."""
        job = a_job()
        store.admit(job)
        self.finish(store, self.start(store, job.id))
        story = [(e["job"], e["event"], e["detail"]) for _, e in client.xrange("audit")]

        assert story == [
            (job.id, "queued", ""),
            (job.id, "calling", "ollama-1@here"),
            (job.id, "succeeded", "succeeded"),
        ]

    # -- watch, cancel, expire, retire

    def test_watchers_hear_the_end(self, store, client):
        """A channel given at admission and one given later both get the result, once."""
        job = a_job(reply_to="reply:1")
        store.admit(job)
        assert store.watch(job.id, "reply:2") is None
        assert store.watch(job.id, "reply:3") is None
        store.unwatch(job.id, "reply:3")
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        pubsub.subscribe("reply:1", "reply:2", "reply:3", f"celery-task-meta-{job.id}")
        self.finish(store, self.start(store, job.id))
        heard: list[tuple[str, str]] = []
        while len(heard) < 3:
            message = pubsub.get_message(timeout=5)
            if message:
                heard.append((message["channel"], json.loads(message["data"])["task_id"]))

        assert sorted(heard) == [
            (f"celery-task-meta-{job.id}", job.id),
            ("reply:1", job.id),
            ("reply:2", job.id),
        ]
        assert pubsub.get_message(timeout=0.05) is None
        pubsub.close()

    def test_a_large_answer_is_announced_not_sent(self, store, client):
        """Above 64 kB the message only names the job."""
        job = a_job(reply_to="reply:1")
        store.admit(job)
        pubsub = client.pubsub()
        pubsub.subscribe("reply:1")
        assert pubsub.get_message(timeout=5)["type"] == "subscribe"
        self.finish(store, self.start(store, job.id), payload={"content": "x" * 70_000})
        message = None
        while message is None:
            message = pubsub.get_message(timeout=5)

        assert json.loads(message["data"]) == {"task_id": job.id}
        assert len(store.outcomes([job.id])[job.id].response["content"]) == 70_000
        pubsub.close()

    def test_watching_an_ended_job_returns_its_end(self, store):
        """And an unknown one is an error, never pending."""
        job = a_job()
        store.admit(job)
        self.finish(store, self.start(store, job.id))

        assert store.watch(job.id, "reply:1").state == "succeeded"
        for call in (store.record, store.cancel, lambda i: store.watch(i, "c")):
            with pytest.raises(JobNotFound):
                call(new_job_id())

    def test_a_queued_job_is_cancelled_at_once(self, store):
        """It costs nothing and is not started by its wake-up."""
        job = a_job()
        store.admit(job)

        assert store.cancel(job.id) == "cancelled"
        assert store.cancel(job.id) == "cancelled"
        assert store.start(job.id, worker="w", token="t", permits=4) == "cancelled"
        assert store.record(job.id).error["code"] == "job_cancelled"

    def test_a_calling_job_is_cancelled_by_its_worker(self, store):
        """The heartbeat brings the order; the worker's finish ends the job."""
        job = a_job()
        store.admit(job)
        grant = self.start(store, job.id)

        assert store.cancel(job.id) == "calling"
        assert store.heartbeat("ollama-1@here", "ollama", [(job.id, "t1")]) == [
            (job.id, "t1", "cancelled")
        ]
        self.finish(store, grant, JobState.CANCELLED, {"code": "job_cancelled", "message": ""})
        assert store.record(job.id).state == "cancelled"

    def test_the_worker_hears_of_a_cancelled_call_at_once(self, store, client):
        """The heartbeat is only the net; the order goes out on the worker's own channel."""
        job = a_job()
        store.admit(job)
        self.start(store, job.id)
        pubsub = client.pubsub()
        pubsub.subscribe("chatd:stop:ollama-1@here")
        assert pubsub.get_message(timeout=5)["type"] == "subscribe"
        store.cancel(job.id)
        message = None
        while message is None:
            message = pubsub.get_message(timeout=5)

        assert message["data"] == f"{job.id} t1"
        pubsub.close()

    def test_an_ended_job_cannot_be_cancelled(self, store):
        """Terminal states never change."""
        job = a_job()
        store.admit(job)
        self.finish(store, self.start(store, job.id))
        record = store.record(job.id)

        assert store.cancel(job.id) == "succeeded"
        assert store.record(job.id) == record

    def test_a_deadline_without_a_job_is_forgotten(self, store, client):
        """A rollback may leave one behind; it is not looked at for ever."""
        client.zadd("deadlines", {new_job_id(): 1})

        assert (store.expire_due(), store.expire_due()) == (1, 0)

    def test_due_jobs_expire_and_calls_do_not(self, store):
        """The keeper ends what is in no call; the call's own worker ends the rest."""
        queued = a_job(timeout_ms=0)
        store.admit(queued)
        later = a_job()
        store.admit(later)
        self.start(store, later.id)
        store.redis.zadd("deadlines", {later.id: 1})
        store.redis.hset(f"job:{later.id}", "deadline", 1)

        assert store.expire_due() == 2
        assert store.record(queued.id).state == "expired"
        assert store.redis.zscore("deadlines", later.id) > 1
        assert store.record(later.id).state == "calling"

    def test_expire_of_one_job_returns_its_end(self, store):
        """None before the deadline; afterwards the outcome, whoever brought it about."""
        early, due, done = a_job(), a_job(timeout_ms=0), a_job()
        for job in (early, due, done):
            store.admit(job)
        self.finish(store, self.start(store, done.id))
        store.redis.hset(f"job:{done.id}", "deadline", 1)

        assert store.expire(early.id) is None
        assert store.expire(due.id).error["code"] == "deadline_exceeded"
        assert store.expire(due.id).state == "expired"
        assert store.expire(done.id).state == "succeeded"
        assert store.expire(new_job_id()) is None

    def test_retire_removes_and_counts(self, store, client):
        """A record whose retention is over goes, and the books still balance."""
        job, kept = a_job(), a_job()
        for each in (job, kept):
            store.admit(each)
            store.cancel(each.id)
        client.zadd("terminal", {f"{job.id} cancelled": 1})

        assert store.retire() == 1
        with pytest.raises(JobNotFound):
            store.record(job.id)
        assert store.counters()["retired"] == store.counters()["cancelled"] == 1

    # -- reclaim, republish

    def test_an_interactive_call_that_is_lost_fails_as_unknown(self, store):
        """Nobody knows whether it was billed, so nobody repeats it."""
        job = a_job()
        store.admit(job)
        self.start(store, job.id)

        assert self.reclaim(store) == ["failed"]
        record = store.record(job.id)
        assert record.error["code"] == "outcome_unknown"
        assert [(a.outcome, a.billed) for a in record.attempts] == [("lost", "maybe")]

    def test_a_batch_call_that_is_lost_is_queued_again_a_few_times(self, store, config):
        """max_lost_calls bounds it."""
        job = a_job(lane=Lane.BATCH)
        store.admit(job)
        became = []
        for number in range(config.max_lost_calls):
            self.start(store, job.id, f"t{number}")
            became += self.reclaim(store)

        assert became == ["queued"] * (config.max_lost_calls - 1) + ["failed"]
        assert len(store.record(job.id).attempts) == config.max_lost_calls

    def test_a_renewed_lease_is_not_reclaimed(self, store):
        """The keeper names the renewal it saw; another one in between saves the call."""
        job = a_job()
        store.admit(job)
        self.start(store, job.id)
        seen = Call(job.id, "t1", renewed_at=store.calls("ollama")[0].renewed_at - 1)

        assert store.reclaim("ollama", seen).became == "renewed"
        assert store.record(job.id).state == "calling"

    def test_a_worker_that_comes_back_reclaims_only_its_own(self, store):
        """Leases of other workers stay."""
        mine, other = a_job(), a_job()
        for job in (mine, other):
            store.admit(job)
        self.start(store, mine.id, "m")
        store.start(other.id, worker="ollama-2@here", token="o", permits=4)

        became = {r.job_id: r.became for r in store.reclaim_worker("ollama", "ollama-1@here")}
        assert became == {mine.id: "failed", other.id: "stale"}
        assert store.record(other.id).state == "calling"

    @pytest.mark.parametrize(
        ("change", "code", "state"),
        [
            pytest.param("cancel", "job_cancelled", "cancelled", id="cancelled-meanwhile"),
            pytest.param("deadline", "deadline_exceeded", "failed", id="deadline-passed"),
        ],
    )
    def test_a_lost_call_of_a_job_that_is_over_anyway(self, store, client, change, code, state):
        """Cancelled or too late: it ends as that."""
        job = a_job(lane=Lane.BATCH)
        store.admit(job)
        self.start(store, job.id)
        if change == "cancel":
            store.cancel(job.id)
        else:
            client.hset(f"job:{job.id}", "deadline", 1)

        assert self.reclaim(store) == [state]
        assert store.record(job.id).error["code"] == code

    def test_heartbeats_renew_and_restore_leases(self, store, client):
        """A lease Redis has forgotten comes back, since its call is running."""
        job = a_job()
        store.admit(job)
        self.start(store, job.id)
        client.zadd("leases:ollama", {f"{job.id} t1": 1})
        store.heartbeat("ollama-1@here", "ollama", [(job.id, "t1")])
        renewed = client.zscore("leases:ollama", f"{job.id} t1")
        client.delete("leases:ollama")
        store.heartbeat("ollama-1@here", "ollama", [(job.id, "t1")])

        assert renewed > 1
        assert client.zcard("leases:ollama") == 1
        assert store.workers(["ollama", "kimi"])["kimi"] is None
        assert store.workers(["ollama"])["ollama"] < 30

    def test_exactly_the_lost_wake_ups_are_sent_again(self, store, client):
        """Those below the mark, and none of the healthy backlog behind it."""
        jobs = [a_job() for _ in range(10)]
        for job in jobs:
            store.admit(job)
        backlog = client.lrange(QUEUE, 0, -1)
        lost = {jobs[1].id, jobs[3].id}
        for message in backlog:
            if json.loads(message)["id"] in lost:
                client.lrem(QUEUE, 1, message)
        for job in (jobs[0], jobs[2], jobs[4]):
            client.rpop(QUEUE)
            self.start(store, job.id, f"t-{job.id}")
        _, mark, empty = store.marks(QUEUE)

        assert (mark, empty) == (5, False)
        assert store.republish(QUEUE, mark - 1, only_if_empty=False) == 2
        queued = [json.loads(message)["id"] for message in client.lrange(QUEUE, 0, -1)]
        assert sorted(queued) == sorted([*(job.id for job in jobs[5:]), *lost])
        assert store.republish(QUEUE, mark - 1, only_if_empty=False) == 0

    def test_an_empty_list_with_queued_jobs_is_refilled(self, store, client):
        """And one that is not empty is left alone."""
        job = a_job()
        store.admit(job)
        untouched = store.republish(QUEUE, 1, only_if_empty=True)
        client.delete(QUEUE)

        assert (untouched, store.republish(QUEUE, 1, only_if_empty=True)) == (0, 1)
        assert json.loads(client.lindex(QUEUE, 0))["id"] == job.id

    def test_a_job_accepted_before_any_envelope_is_woken_later(self, client, store):
        """The record is the truth: the wake-up follows when a keeper has said how it looks."""
        client.delete(f"envelope:{QUEUE}")
        job = a_job()
        store.admit(job)
        store.register_envelope(QUEUE, "@JOB@")

        assert client.llen(QUEUE) == 0
        assert store.republish(QUEUE, 1, only_if_empty=True) == 1
        assert client.lrange(QUEUE, 0, -1) == [job.id]

    def test_lanes_and_permits_are_visible(self, store):
        """Depth and oldest age per lane, and permits in use."""
        jobs = [a_job(), a_job(), a_job(lane=Lane.BATCH)]
        for job in jobs:
            store.admit(job)
        self.start(store, jobs[0].id)
        lanes = store.lanes("ollama")

        assert (lanes["interactive"]["depth"], lanes["batch"]["depth"]) == (1, 1)
        assert 0 <= lanes["interactive"]["oldest_age_s"] < 60
        assert store.lanes("kimi")["batch"] == {"depth": 0, "oldest_age_s": None}
        assert store.in_flight("ollama") == 1
