"""What else befalls a job in the store: waiting, cancelling, expiry, loss, removal."""

from __future__ import annotations

import json

import pytest

from chat.errors import JobNotFound
from chat.jobs import JobState, new_job_id
from chat.types import Lane
from chat.upkeep import Call
from tests.store_base import QUEUE, StoreBase, a_job


class StoreCare(StoreBase):
    """Watch, cancel, expire, retire, reclaim, republish."""

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
        assert self.refused(store, job.id) == "cancelled"
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
        """Its record went by hand; it is not looked at for ever, and its request goes as well."""
        job_id = new_job_id()
        client.zadd("deadlines", {job_id: 1})
        client.set(f"request:{job_id}", "{}")

        assert (store.expire_due(), store.expire_due()) == (1, 0)
        assert not client.exists(f"request:{job_id}")

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
        store.start(other.id, worker="ollama-2@here", token="o")

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
        store.register_envelopes({QUEUE: "@JOB@"})

        assert client.llen(QUEUE) == 0
        assert store.republish(QUEUE, 1, only_if_empty=True) == 1
        assert client.lrange(QUEUE, 0, -1) == [job.id]

    def test_lanes_and_permits_are_visible(self, store):
        """Depth and oldest age per lane, and permits in use."""
        jobs = [a_job(), a_job(), a_job(lane=Lane.BATCH)]
        for job in jobs:
            store.admit(job)
        self.start(store, jobs[0].id)
        overview = store.overview(["ollama", "kimi"])
        ollama, kimi = overview["providers"]

        assert [lane["depth"] for lane in ollama["lanes"].values()] == [1, 1]
        assert 0 <= ollama["lanes"]["interactive"]["oldest_age_s"] < 60
        assert ollama["in_use"] == {"interactive": 1, "batch": 0}
        assert [(b["match"], b["in_use"]) for b in ollama["budgets"]] == [("*", 1)]
        assert (kimi["lanes"]["batch"]["depth"], kimi["budgets"]) == (0, [])
        assert overview["jobs"]["calling"] == 1
