"""What Redis forgets when it loses its last second, and what workers make good again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chat.errors import QueueFull
from chat.jobs import JobState
from chat.store import Held, JobStore
from chat.types import JSON, Lane
from tests.store_base import BATCH, QUEUE, StoreBase, a_job, new_life, now_ms

WORKER = "ollama-1@here"


class StoreRecall(StoreBase):
    """A moment is kept, something happens, and Redis is as it was at that moment."""

    def back_to(self, client, then: JSON) -> None:
        """Let Redis be as ``everything`` found it; the server has a new life."""
        client.flushdb()
        client.script_flush()
        for key, value in then.items():
            if isinstance(value, dict):
                client.hset(key, mapping=value)
            elif isinstance(value, str):
                client.set(key, value)
            elif isinstance(value, tuple):
                for entry_id, fields in value:
                    client.xadd(key, fields, id=entry_id)
            elif isinstance(value[0], tuple):
                client.zadd(key, dict(value))
            else:
                client.rpush(key, *value)
        client.delete("chatd:run")

    def reassert(self, store, grant):
        return store.reassert(grant, worker=WORKER, provider="ollama")

    def ledger(self, store, job) -> list[tuple[int, str | None, str | None]]:
        return [(a.number, a.outcome, a.billed) for a in store.record(job.id).attempts]

    @pytest.mark.parametrize("lane", list(Lane))
    def test_a_forgotten_start_is_entered_again(self, store, client, lane):
        """The job is the worker's as before: nobody else may call, and its answer ends it."""
        job = self.admitted(store, lane=lane)
        then = self.everything(client)
        grant = self.start(store, job.id)
        self.back_to(client, then)

        assert self.reassert(store, grant) == "taken"
        assert store.record(job.id).state == "calling"
        assert client.zcard("leases:ollama") == 1
        assert self.held(store, job) == ("skip", "calling")
        assert self.finish(store, grant) == ("done", "succeeded")
        assert self.ledger(store, job) == [(1, "succeeded", "yes")]
        assert store.counters()["recalled"] == 1

    def test_a_parked_job_is_taken_back(self, store, client):
        """It waited for its budget, was released and started; Redis knows of the wait only."""
        self.close(client, 10)
        (job,) = self.batch(store, 1)
        then = self.everything(client)
        self.reopen(client)
        store.release(sweep=False)
        grant = self.start(store, job.id)
        self.back_to(client, then)

        assert self.reassert(store, grant) == "taken"
        assert client.zcard("parked:ollama:*:batch") == 0
        assert client.hget(f"job:{job.id}", "waiting") is None
        assert self.finish(store, grant) == ("done", "succeeded")

    def test_a_job_in_its_back_off_is_taken_back(self, store, client):
        """Its second attempt had begun, and Redis knows of the first."""
        (job,) = self.batch(store, 1)
        store.finish(self.again(self.start(store, job.id, "t1"), 5, signal=""))
        then = self.everything(client)
        client.zadd("due", {job.id: 1})
        store.release(sweep=False)
        grant = self.start(store, job.id, "t2")
        self.back_to(client, then)

        assert self.reassert(store, grant) == "taken"
        assert client.zcard("due") == 0
        assert self.finish(store, grant) == ("done", "succeeded")
        assert self.ledger(store, job) == [(1, "rate_limited", "no"), (2, "succeeded", "yes")]

    def test_a_forgotten_job_is_made_again_while_it_is_called(self, store, client):
        """With all that it needs to be called once more, and its Idempotency-Key."""
        keyed = {"idempotency_key": "k", "body_hash": "b"}
        job = a_job(lane=Lane.BATCH, metadata={"team": "a"}, request_id="req_1", owner="a", **keyed)
        then = self.everything(client)
        store.admit(job)
        grant = self.start(store, job.id)
        self.back_to(client, then)

        assert self.reassert(store, grant) == "recreated"
        record = store.record(job.id)
        assert (record.state, record.metadata) == (JobState.CALLING, {"team": "a"})
        assert record.owner == "a"
        assert client.zcard("deadlines") == 1
        assert client.zrange("budgets:ollama", 0, -1) == ["ollama:*"]
        assert client.hget("budget:ollama:*", "match") == "*"
        assert store.admit(a_job(lane=Lane.BATCH, **keyed)).job_id == job.id

        # The worker dies after all: the job goes on with another call.
        assert self.reclaim(store) == ["queued"]
        again = self.start(store, job.id, "t2")
        assert (again.request, again.request_id) == (job.request, "req_1")
        assert self.finish(store, again) == ("done", "succeeded")
        assert self.ledger(store, job) == [(1, "lost", "maybe"), (2, "succeeded", "yes")]
        assert store.counters()["recreated"] == store.counters()["accepted"] == 1

    def test_an_earlier_attempt_is_not_forgotten_silently(self, store, client):
        """The ledger has a line for it, although nobody knows what it said."""
        job = a_job(lane=Lane.BATCH)
        then = self.everything(client)
        store.admit(job)
        self.start(store, job.id, "t1")
        self.reclaim(store)
        grant = self.start(store, job.id, "t2")
        self.back_to(client, then)

        assert self.reassert(store, grant) == "recreated"
        assert self.ledger(store, job) == [(1, "forgotten", "maybe"), (2, None, None)]
        assert client.hget(f"job:{job.id}", "unknown") == "1"
        assert self.finish(store, grant) == ("done", "succeeded")

    def test_nothing_changes_where_nothing_was_forgotten(self, store, client):
        """A restart as a rule loses nothing."""
        job = self.admitted(store)
        grant = self.start(store, job.id)
        before = self.everything(client)

        assert self.reassert(store, grant) == "known"
        assert self.everything(client) == before

    def test_a_call_that_was_given_up_stays_so(self, store):
        """Its lease ran out before: that is no forgetting."""
        (job,) = self.batch(store, 1)
        grant = self.start(store, job.id)
        self.reclaim(store)

        assert self.reassert(store, grant) == "known"
        assert store.record(job.id).state == "queued"

    def test_the_end_of_a_call_whose_start_was_forgotten(self, store, client):
        """The answer comes before the worker could say that it is in the call."""
        job = self.admitted(store)
        then = self.everything(client)
        grant = self.start(store, job.id)
        self.back_to(client, then)

        assert self.finish(store, grant) == ("done", "succeeded")
        assert self.ledger(store, job) == [(1, "succeeded", "yes")]
        assert client.zcard(f"queued:{QUEUE}") == 0

    def test_an_error_whose_start_was_forgotten_leads_to_another_attempt(self, store, client):
        """As it would have without the restart, and the ledger has both."""
        (job,) = self.batch(store, 1)
        then = self.everything(client)
        grant = self.start(store, job.id)
        self.back_to(client, then)

        assert self.said(store.finish(self.again(grant))) == ("waiting", "rate_limited")
        store.release(sweep=False)
        assert self.finish(store, self.start(store, job.id, "t2")) == ("done", "succeeded")
        assert self.ledger(store, job) == [(1, "rate_limited", "no"), (2, "succeeded", "yes")]

    def test_an_error_of_a_forgotten_job_ends_it(self, store, client):
        """Its end does not bring the request along, so that it cannot be called again."""
        job = a_job(lane=Lane.BATCH)
        then = self.everything(client)
        store.admit(job)
        grant = self.start(store, job.id)
        self.back_to(client, then)

        assert self.said(store.finish(self.again(grant))) == ("done", "failed")
        assert self.ledger(store, job) == [(1, "rate_limited", "no")]

    def test_a_forgotten_end_is_told_again(self, store, client):
        """Redis still has the call: it ends once more, and once only."""
        job = self.admitted(store)
        grant = self.start(store, job.id)
        then = self.everything(client)
        self.finish(store, grant)
        self.back_to(client, then)

        assert self.finish(store, grant) == ("done", "succeeded")
        assert self.finish(store, grant) == ("done", "succeeded")
        assert store.counters()["succeeded"] == 1
        assert self.ledger(store, job) == [(1, "succeeded", "yes")]

    def test_what_has_been_removed_is_not_made_again(self, store, client):
        """A batch has taken the answer: the end that is told again finds nothing to do."""
        (job,) = self.batch(store, 1)
        grant = self.start(store, job.id)
        self.finish(store, grant)
        store.settle([job.id])

        assert self.finish(store, grant) == ("late", "removed")
        assert self.reassert(store, grant) == "removed"
        assert store.counters()["accepted"] == store.counters()["retired"] == 1
        assert client.exists(f"job:{job.id}") == 0

    def test_the_removed_are_remembered_for_a_minute(self, store, client):
        """The keeper's look at retention sees to that."""
        (job,) = self.batch(store, 1)
        self.finish(store, self.start(store, job.id))
        store.settle([job.id])
        store.retire()
        young = client.zcard("removed")
        client.zadd("removed", {job.id: now_ms(client) - 61_000})
        store.retire()

        assert (young, client.zcard("removed")) == (1, 0)

    def test_two_calls_of_one_job_are_both_in_the_ledger(self, store, client):
        """Another worker began before the first was heard: the first answer counts."""
        (job,) = self.batch(store, 1)
        then = self.everything(client)
        grant = self.start(store, job.id, "t1")
        self.back_to(client, then)
        self.start(store, job.id, "t2")

        assert self.reassert(store, grant) == "given up"
        assert self.ledger(store, job) == [(1, None, None), (2, "lost", "maybe")]
        event = client.xrevrange("audit", count=1)[0][1]
        assert (event["event"], event["detail"]) == ("recalled", "given up, the job is calling")
        assert self.finish(store, grant) == ("done", "succeeded")
        assert self.ledger(store, job) == [(1, "superseded", "maybe"), (2, "late", "yes")]
        assert client.zcard("leases:ollama") == 0

    @pytest.mark.parametrize("lane", list(Lane))
    def test_a_call_that_was_over_does_not_hold_the_job(self, store, client, lane):
        """Redis has the first attempt as running; its end and the second one were forgotten."""
        job = self.admitted(store, lane=lane)
        first = self.start(store, job.id, "t1")
        then = self.everything(client)
        ended = self.again(first, signal="")
        store.finish(ended)
        store.release(sweep=False)
        second = self.start(store, job.id, "t2")
        self.back_to(client, then)

        assert self.reassert(store, second) == "taken"
        assert client.zrange("leases:ollama", 0, -1) == [f"{job.id} t2"]
        assert self.said(store.finish(ended)) == ("late", "calling")
        assert self.held(store, job) == ("skip", "calling")
        assert self.finish(store, second) == ("done", "succeeded")
        assert self.ledger(store, job) == [(1, "rate_limited", "no"), (2, "succeeded", "yes")]

    def test_a_grant_is_found_again_behind_a_recalled_attempt(self, store, client):
        """The last line of the ledger is not always the call that runs."""
        (job,) = self.batch(store, 1)
        then = self.everything(client)
        grant = self.start(store, job.id, "t1")
        self.back_to(client, then)
        newer = self.start(store, job.id, "t2")
        self.reassert(store, grant)

        assert self.start(store, job.id, "t2").attempt == newer.attempt == 1

    def test_a_call_whose_job_was_cancelled_meanwhile_is_stopped(self, store, client):
        """The ledger has it all the same: it may be billed."""
        job = self.admitted(store)
        then = self.everything(client)
        grant = self.start(store, job.id)
        self.back_to(client, then)
        store.cancel(job.id)

        assert self.reassert(store, grant) == "given up"
        assert self.ledger(store, job) == [(1, "lost", "maybe")]
        stop = store.heartbeat(WORKER, "ollama", [(job.id, grant.token)])
        assert stop == [(job.id, grant.token, "cancelled")]

    # -- restarts

    def beat(self, store, worker=WORKER, life=None):
        return store.heartbeat(worker, "ollama", [], life=life)

    def heard(self, client, seconds_ago: float, *workers: str) -> None:
        """Let these workers, and nobody since, have been heard so long ago."""
        at = now_ms(client) - int(seconds_ago * 1000)
        client.zadd("workers:ollama", dict.fromkeys(workers, at))
        client.set("chatd:alive", at)

    def age_life(self, client, seconds: float) -> None:
        client.set("chatd:life", now_ms(client) - int(seconds * 1000))

    def test_a_restart_is_a_new_life(self, store, client):
        """And so is a Redis that was emptied; nothing else is."""
        first = store.life()
        same = store.life()
        self.age_life(client, 60)
        aged = store.life()
        new_life(client)
        after_restart = store.life()
        client.flushdb()

        assert first == same
        assert int(aged) < int(after_restart) <= int(store.life())

    def test_a_start_notices_a_new_life_itself(self, store, client):
        """Whatever other script has run before."""
        self.heard(client, 1, WORKER)
        self.age_life(client, 60)
        client.delete("chatd:run")
        job = self.admitted(store)

        assert self.refused(store, job.id) == "restart"
        assert int(store.life()) > now_ms(client) - 30_000

    def test_a_heartbeat_of_an_earlier_life_does_nothing(self, store, client):
        """The worker has to say first what it remembers."""
        self.age_life(client, 60)
        life = store.life()
        assert self.beat(store, life=life) == []
        seen = client.zscore("workers:ollama", WORKER)
        assert int(client.get("chatd:alive")) == seen
        new_life(client)

        assert self.beat(store, life=life) is None
        assert client.zscore("workers:ollama", WORKER) == seen
        assert self.beat(store, life=store.life()) == []

    def test_nothing_starts_before_every_worker_has_been_heard(self, store, client):
        """A call that Redis has forgotten would begin twice."""
        self.heard(client, 1, WORKER, "ollama-2@here")
        new_life(client)
        job, batch = self.admitted(store), self.admitted(store, lane=Lane.BATCH)

        nobody = [self.refused(store, one.id) for one in (job, batch)]
        self.beat(store)
        one = self.refused(store, job.id)
        self.beat(store, "ollama-2@here")
        assert (nobody, one) == (["restart", "restart"], "restart")
        self.start(store, job.id)

    @pytest.mark.parametrize(("outage_s", "silent_s"), [(1, 1), (1, 14), (600, 601), (600, 614)])
    def test_a_worker_that_does_not_come_back_is_waited_for(
        self, store, client, outage_s, silent_s
    ):
        """Fifteen seconds: it lived when Redis ended, however long ago that is."""
        self.heard(client, silent_s, "ollama-9@elsewhere")
        client.set("chatd:alive", now_ms(client) - outage_s * 1000)
        new_life(client)
        job = self.admitted(store)
        held = store.start(job.id, worker=WORKER, token="t1")
        self.age_life(client, 15)

        assert isinstance(held, Held)
        assert (held.kind, held.why) == ("wait", "restart")
        self.start(store, job.id)

    @pytest.mark.parametrize("outage_s", [0, 600])
    def test_a_worker_that_was_gone_before_is_not_waited_for(self, store, client, outage_s):
        """It was not heard in the last seconds of the life before."""
        self.heard(client, outage_s + 16, "ollama-9@elsewhere")
        client.set("chatd:alive", now_ms(client) - outage_s * 1000)
        new_life(client)

        self.start(store, self.admitted(store).id)

    def test_a_worker_that_is_known_to_be_dead_is_not_waited_for(self, store, client):
        """Its host has started another one."""
        self.heard(client, 1, "ollama-9@here")
        new_life(client)
        job = self.admitted(store)
        before = self.refused(store, job.id)
        store.forget_worker("ollama", "ollama-9@here")

        assert before == "restart"
        self.start(store, job.id)

    def test_a_worker_of_yesterday_is_not_waited_for(self, store, client):
        """The keeper forgets it after a day without a word."""
        day_ms = 86_400_000
        client.zadd("workers:ollama", {"old": now_ms(client) - day_ms - 1, "new": now_ms(client)})
        store.retire("ollama")

        assert client.zrange("workers:ollama", 0, -1) == ["new"]

    def test_a_repeated_start_is_granted_in_a_new_life_too(self, store, client):
        """Its first reply was lost: the worker is in that call, whoever else was not heard."""
        job = self.admitted(store)
        grant = self.start(store, job.id)
        self.heard(client, 1, "ollama-2@here")
        new_life(client)

        assert self.start(store, job.id).attempt == grant.attempt

    def test_a_wake_up_that_waits_for_workers_is_not_taken_for_lost(self, store, client):
        """It is in a worker's hand, as with any wait."""
        (job,) = self.batch(store, 1)
        self.heard(client, 1, "ollama-2@here")
        new_life(client)

        assert self.held(store, job) == ("wait", "restart")
        seq, mark, empty = store.marks(BATCH)
        assert (seq, mark, empty) == (2, 0, True)

    def test_it_all_repeats(self, store, client):
        """An end that was forgotten with its start and its job, told twice."""
        job = a_job()
        then = self.everything(client)
        store.admit(job)
        grant = self.start(store, job.id)
        self.finish(store, grant)
        self.back_to(client, then)
        ending = replace(self.ending(grant), worker=WORKER)

        assert [self.said(store.finish(ending)) for _ in range(2)] == [("done", "succeeded")] * 2
        assert store.counters()["accepted"] == store.counters()["succeeded"] == 1

    def test_what_was_accepted_once_is_let_in_whatever_waits(self, client, store, config):
        """Others may have filled the queue since; its caller was told that it is accepted."""
        small = JobStore(client, replace(config, max_queued=1))
        small.admit(a_job())
        job = a_job()
        with pytest.raises(QueueFull):
            small.admit(job)

        assert small.admit(job, again=True).job_id == job.id
        assert store.record(job.id).state == "queued"
