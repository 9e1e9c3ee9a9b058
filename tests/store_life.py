"""A job's way through the store: admitted, started, finished."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from chat.errors import IdempotencyMismatch, NoWorker, QueueFull
from chat.jobs import JobState, new_job_id
from chat.store import JobStore
from chat.types import Lane
from tests.store_audited import audited
from tests.store_base import QUEUE, StoreBase, a_job, same


class StoreLife(StoreBase):
    """Admit, start, finish, and each of them repeated."""

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

    def test_a_process_is_told_once_however_many_of_its_callers_join(self, store, client):
        """Two hundred retries of one call must not become two hundred messages."""
        job = a_job(idempotency_key="k", body_hash="h", reply_to="reply:1")
        store.admit(job)
        for number in range(6):
            reply_to = f"reply:{number % 2 + 1}"
            store.admit(a_job(idempotency_key="k", body_hash="h", reply_to=reply_to))

        assert client.hget(f"job:{job.id}", "watch").split() == ["reply:1", "reply:2"]

    def test_an_idempotency_key_with_another_body_is_refused(self, store):
        """The key is bound to the first body."""
        store.admit(a_job(idempotency_key="k", body_hash="h"))

        with pytest.raises(IdempotencyMismatch):
            store.admit(a_job(idempotency_key="k", body_hash="other"))

    @pytest.mark.parametrize("settled", [True, False])
    def test_an_idempotency_key_goes_with_its_job(self, store, client, settled):
        """One that came again since is another job's."""
        keyed = {"idempotency_key": "k", "body_hash": "b"}
        first, other = a_job(**keyed), a_job(**keyed)
        store.admit(first)
        self.finish(store, self.start(store, first.id))
        (key,) = client.keys("idem:*")
        if settled:
            store.settle([first.id])
            assert client.exists(key) == 0
        else:
            # Redis had forgotten the first one for a while.
            client.set(key, f"{other.id} b")
            client.zadd("terminal", {f"{first.id} succeeded": 1})
            store.retire()
            assert client.get(key) == f"{other.id} b"
        assert client.exists(f"job:{first.id}") == 0

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

    def test_the_recent_past_is_cut_with_each_hundredth_job(self, store, client):
        """The stream of what happened does not grow for ever; a cut at each step would cost."""
        client.hset("acct", mapping={"accepted": 98, "retired": 98})
        with client.pipeline(transaction=False) as pipeline:
            for _ in range(20_300):
                pipeline.xadd("audit", {"job": "", "event": "drained", "detail": ""})
            pipeline.execute()
        store.admit(a_job())
        before = client.xlen("audit")
        store.admit(a_job())

        assert (before, 20_000 <= client.xlen("audit") <= 20_200) == (20_301, True)

    def test_the_same_token_gets_the_same_grant(self, store):
        """A grant whose reply was lost is found again, and no second attempt is opened."""
        job = a_job()
        store.admit(job)
        first = self.start(store, job.id)
        second = self.start(store, job.id)

        assert same(second, first)
        assert len(store.record(job.id).attempts) == 1

    def test_a_request_in_the_record_is_found(self, store, client):
        """A front end of the version before put it there; it goes at the end like any other."""
        job = self.admitted(store)
        text = client.getdel(f"request:{job.id}")
        client.hset(f"job:{job.id}", "request", text)
        assert audited(client).clean
        grant = self.start(store, job.id)
        self.finish(store, grant)

        assert grant.request == job.request
        assert client.hget(f"job:{job.id}", "request") is None

    def test_another_token_finds_nothing_to_do(self, store):
        """A second wake-up of the same job is harmless."""
        job = a_job()
        store.admit(job)
        grant = self.start(store, job.id)

        during = self.refused(store, job.id)
        self.finish(store, grant)
        after = self.refused(store, job.id)

        assert (during, after) == ("calling", "succeeded")
        assert self.refused(store, new_job_id()) == "gone"

    def test_permits_are_never_exceeded(self, store, client):
        """The third of three waits until one of two permits is back."""
        self.permits(client, 2)
        jobs = [a_job() for _ in range(3)]
        for job in jobs:
            store.admit(job)
        first = self.start(store, jobs[0].id, "t0")
        self.start(store, jobs[1].id, "t1")
        refused = store.start(jobs[2].id, worker="w", token="t2")
        self.finish(store, first)

        assert (refused.kind, refused.why) == ("wait", "permits")
        assert self.start(store, jobs[2].id, "t2").attempt == 1

    def test_a_wake_up_in_a_waiting_hand_is_not_lost(self, store, client):
        """While a worker waits for a permit its wake-up counts as just sent."""
        held, other = a_job(), a_job()
        for job in (held, other):
            store.admit(job)
        self.permits(client, 0)
        self.refused(store, held.id)
        self.permits(client, 4)
        self.start(store, other.id)
        _, mark, _ = store.marks(QUEUE)

        assert store.republish(QUEUE, mark - 1, only_if_empty=False) == 0

    def test_a_wait_for_a_permit_takes_nothing_for_lost(self, store, client):
        """The mark passes only what was taken out of the list, never the backlog behind it."""
        jobs = [a_job() for _ in range(10)]
        for job in jobs:
            store.admit(job)
        self.permits(client, 0)
        for job in jobs[:2]:
            client.rpop(QUEUE)
            self.refused(store, job.id, job.id)
        self.permits(client, 4)
        for job in jobs[:2]:
            self.start(store, job.id, job.id)
        _, mark, _ = store.marks(QUEUE)

        assert mark == 2
        assert store.republish(QUEUE, mark - 1, only_if_empty=False) == 0
        assert client.llen(QUEUE) == 8

    def test_a_job_past_its_deadline_is_not_started(self, store):
        """It expires, and no attempt is opened."""
        job = a_job(timeout_ms=0)
        store.admit(job)

        assert self.refused(store, job.id) == "expired"
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
        assert not client.exists(f"request:{job.id}")

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
        assert self.refused(store, job.id) == "succeeded"

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
        store.start(job.id, worker="ollama-2@here", token="new")
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
