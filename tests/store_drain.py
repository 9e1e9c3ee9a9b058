"""A provider that is drained: what goes on, what stays where it is, how it begins again."""

from __future__ import annotations

import itertools

import pytest

from chat.errors import Draining
from chat.store import Held, JobStore
from chat.types import Lane
from tests.store_base import BATCH, QUEUE, StoreBase, a_job, ms_of, now_ms


class StoreDrain(StoreBase):
    """``drain``, ``resume`` and ``drained``, and what every other script makes of it."""

    def test_it_holds_until_somebody_resumes(self, store, client):
        """Drained twice, it keeps its time; a worker that starts anew changes nothing."""
        before = now_ms(client)
        since, is_new = store.drain("ollama")
        again = store.drain("ollama")
        store.register_settings(["ollama"])
        known = store.drained(["kimi", "ollama"])
        ended = store.resume("ollama")

        assert before <= since <= now_ms(client)
        assert (is_new, again) == (True, (since, False))
        assert known == {"ollama": since}
        assert (ended, store.resume("ollama")) == (since, None)
        assert store.drained(["ollama"]) == store.drained([]) == {}
        events = [(line["event"], line["detail"]) for _, line in client.xrange("audit")]
        assert events == [("drained", "ollama"), ("resumed", "ollama")]

    @pytest.mark.parametrize("lane", Lane)
    def test_no_job_starts_and_its_wake_up_lies_in_its_list_again(self, store, client, lane):
        """It is no attempt and costs nothing; a worker hears that it has nothing to fetch."""
        job = self.admitted(store, lane=lane)
        store.drain("ollama")
        untouched = self.everything(client)
        self.fetch(store, job)
        held = store.start(job.id, worker="w", token="t1")
        left = self.everything(client)
        record = store.record(job.id)
        store.resume("ollama")
        queue = BATCH if lane is Lane.BATCH else QUEUE

        assert held == Held("back", "drained", -1)
        assert store.room("ollama") >= 0
        assert (record.state, record.attempts) == ("queued", ())
        assert self.list_of(client, queue) == [job.id]
        # Only the tag of the message is a new one.
        for changed in (queue, f"seq:{queue}"):
            del untouched[changed], left[changed]
        assert left == untouched
        assert self.called(store, job)[0].attempt == 1

    @pytest.mark.parametrize("order", [*itertools.permutations(range(3))], ids=str)
    def test_wake_ups_go_back_in_the_order_of_their_jobs(self, store, client, order):
        """Whichever thread comes first, and before what was never fetched."""
        jobs = [self.admitted(store) for _ in range(5)]
        store.drain("ollama")
        for job in jobs[:3]:
            self.fetch(store, job)
        for number in order:
            store.start(jobs[number].id, worker="w", token=f"t{number}")

        assert self.list_of(client) == [job.id for job in jobs]

    def test_without_an_envelope_the_wake_up_is_sent_later(self, store, client):
        """Redis has forgotten it: the keeper sends it when it knows how one looks."""
        job = self.admitted(store)
        store.drain("ollama")
        client.delete(f"envelope:{QUEUE}")

        assert self.held(store, job) == ("back", "drained")
        assert client.llen(QUEUE) == 0
        store.register_envelopes({QUEUE: '{"id":"@JOB@"}'})
        assert store.republish(QUEUE, 1, only_if_empty=True) == 1

    def test_nobody_is_sent_past_a_job_that_went_back(self, store, client):
        """It had come back to the front and was in a thread, so that others might follow it."""
        self.permits(client, 1)
        running = self.admitted(store)
        (grant,) = self.called(store, running)
        self.close(client, 10)
        first, second = self.admitted(store), self.admitted(store)
        self.reopen(client)
        store.release(sweep=False)
        waits = [self.held(store, job) for job in (first, second)]
        self.close(client, 10)
        third = self.admitted(store)
        store.drain("ollama")
        for job in (second, first):
            store.start(job.id, worker="w", token="t9")
        self.reopen(client)
        store.resume("ollama")
        store.release(sweep=False)
        listed = self.list_of(client)
        store.finish(self.ending(grant))
        self.called(store, first)
        self.fetch(store, second)
        self.refused(store, second.id)
        store.release(sweep=False)

        assert waits == [("wait", "permits")] * 2
        assert listed == [first.id, second.id]
        assert self.list_of(client) == [third.id]

    def test_calls_in_flight_go_on(self, store):
        """Their ends are taken, and a start whose reply was lost gets its grant again."""
        job = self.admitted(store)
        (grant,) = self.called(store, job)
        store.drain("ollama")
        again = self.start(store, job.id, job.id)
        beat = store.heartbeat("ollama-1@here", "ollama", [(job.id, job.id)])
        finished = store.finish(self.ending(grant))

        assert (again.attempt, again.room, beat) == (1, -1, [])
        assert (self.said(finished), finished.room) == (("done", "succeeded"), -1)

    def test_a_call_that_is_to_be_repeated_waits(self, store):
        """At once or after its back-off, but not before the end of it all."""
        jobs = self.batch(store, 2)
        grants = self.called(store, *jobs)
        store.drain("ollama")
        for grant, after_s in zip(grants, (0, 0.0001), strict=True):
            store.finish(self.again(grant, after_s, signal=""))
        store.redis.zadd("due", {jobs[1].id: 1}, xx=True)
        released = store.release(sweep=True)
        reasons = [self.waits_for(store, job) for job in jobs]
        store.resume("ollama")
        store.release(sweep=False)

        assert released == (0, None)
        assert reasons == ["drained"] * 2
        assert self.list_of(store.redis, BATCH) == [job.id for job in jobs]

    def test_parked_jobs_stay_parked_and_those_of_others_do_not(self, store, client):
        """Though their budget is open."""
        self.close(client, 10)
        self.close(client, 10, budget="openrouter:x")
        (job,) = self.batch(store, 1)
        (other,) = self.batch(store, 1, provider="openrouter", upstream_model="x")
        store.drain("ollama")
        self.reopen(client)
        self.reopen(client, "openrouter:x")
        released, _ = store.release(sweep=True)

        assert released == 1
        assert [store.record(one.id).state for one in (job, other)] == ["waiting", "queued"]
        assert self.called(store, other)[0].room >= 0

    def test_whoever_would_wait_is_refused_and_all_others_are_accepted(self, store, client):
        """Nothing is queued then; the refusal names the way out, whether or not a worker lives."""
        early = a_job(waits=True, reply_to="r", idempotency_key="k", body_hash="b")
        store.heartbeat("ollama-1@here", "ollama", [])
        store.admit(early)
        since, _ = store.drain("ollama")
        client.delete("workers:ollama")
        before = self.everything(client)
        with pytest.raises(
            Draining, match=r"ollama is drained since .*`chatd resume ollama`"
        ) as no:
            store.admit(a_job(waits=True, reply_to="r"))
        after = self.everything(client)
        joined = store.admit(a_job(waits=True, reply_to="r", idempotency_key="k", body_hash="b"))
        accepted = [store.admit(a_job(lane=lane)) for lane in Lane]

        assert (no.value.provider, no.value.retry_after_s) == ("ollama", 5)
        assert ms_of(no.value.message.split(": ")[0].split(" since ")[1]) == since
        assert after == before
        assert (joined.job_id, joined.joined) == (early.id, True)
        assert [store.record(one.job_id).state for one in accepted] == ["queued"] * 2

    def waiting(self, store: JobStore, *jobs):
        """What the records say of jobs that wait: reason, place, and both times."""
        found = [store.record(job.id).waiting or {} for job in jobs]
        names = ("reason", "position", "until", "estimated_start_at")
        return [tuple(waiting[name] for name in names) for waiting in found]

    def test_the_record_says_that_it_waits_for_the_end_of_it(self, store, client):
        """In its list with its place, in its parking with its place, in its back-off; no time."""
        (due,) = self.batch(store, 1)
        (grant,) = self.called(store, due)
        store.finish(self.again(grant, 5.0, "overloaded", signal=""))
        listed = [self.admitted(store), self.admitted(store)]
        client.hset(f"lane:{QUEUE}", mapping={"rate": 2, "at": now_ms(client)})
        until = self.close(client, 20)
        parked = self.batch(store, 2)
        store.drain("ollama")
        drained = self.waiting(store, *listed, *parked, due)
        (view,) = store.overview(["ollama"])["providers"]
        store.resume("ollama")
        resumed = self.waiting(store, *listed, *parked, due)

        assert [reason for reason, *_ in drained] == ["drained"] * 5
        assert [place for _, place, *_ in drained] == [1, 2, 1, 2, None]
        assert {time for _, _, *times in drained for time in times} == {None}
        assert [reason for reason, *_ in resumed] == ["queue"] * 2 + ["rate_limited"] * 3
        assert ms_of(resumed[2][2]) == until
        assert view["drained_since"] is not None
        assert store.overview(["ollama"])["providers"][0]["drained_since"] is None

    def test_deadlines_hold_all_the_same(self, store):
        """Callers who wait hear of theirs, and why nothing was sent; so does a worker."""
        job, fetched = self.admitted(store), self.admitted(store)
        store.drain("ollama")
        for one in (job, fetched):
            store.redis.hset(f"job:{one.id}", "deadline", 1)

        assert store.expire(job.id).error["message"].endswith("while its provider was drained")
        assert self.held(store, fetched) == ("skip", "expired")
