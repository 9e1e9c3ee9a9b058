"""Calls that are to be tried again, and calls that were given up."""

from __future__ import annotations

import pytest

from tests.store_base import BATCH, StoreBase, now_ms


class StoreRetry(StoreBase):
    """``finish`` with a retry, repeated, overtaken and late."""

    def test_a_retry_waits_for_its_own_time(self, store, client):
        """It stands in `due`, comes back when that time has come, and its attempts go on."""
        (job,) = self.batch(store, 1)
        counts = []
        for number, kind in enumerate(("answered", "unknown", "refused", "answered"), 1):
            grant = self.start(store, job.id, f"t{number}")
            counts.append((grant.attempt, grant.refused, grant.answered, grant.unknown))
            ending = self.again(grant, 5.0, "retry", signal="", counts_as=kind)
            assert self.said(store.finish(ending)) == ("waiting", "retry")
            assert store.release(sweep=True)[0] == 0
            client.zadd("due", {job.id: now_ms(client) - 1})
            assert store.release(sweep=False)[0] == 1
        grant = self.start(store, job.id, "t5")

        assert counts == [(1, 0, 0, 0), (2, 0, 1, 0), (3, 0, 1, 1), (4, 1, 1, 1)]
        assert (grant.attempt, grant.refused, grant.answered, grant.unknown) == (5, 1, 2, 1)
        assert grant.request == job.request

    @pytest.mark.parametrize(
        ("kind", "billed"), [("answered", "maybe"), ("unknown", "maybe"), ("refused", None)]
    )
    def test_the_end_of_a_job_tells_of_calls_that_may_have_been_billed(
        self, store, client, kind, billed
    ):
        """Here the job's deadline passes while it waits for its next attempt."""
        (job,) = self.batch(store, 1)
        grant = self.start(store, job.id)
        store.finish(self.again(grant, 5.0, "retry", signal="", counts_as=kind))
        client.hset(f"job:{job.id}", "deadline", 1)
        client.zadd("deadlines", {job.id: 1})
        store.expire_due()

        assert store.record(job.id).error.get("billed") == billed

    def test_a_refused_job_waits_in_its_budget(self, store, client):
        """The cool-down decides when, and its place is that of its admission."""
        self.limit(client)
        first, second = self.batch(store, 2)
        (grant,) = self.called(store, first)
        said = self.said(store.finish(self.again(grant, retry_after_s=5)))
        parked = self.held(store, second)
        self.reopen(client)
        store.release(sweep=False)

        assert (said, parked) == (("waiting", "rate_limited"), ("parked", "rate_limited"))
        assert self.list_of(client, BATCH) == [first.id, second.id]
        record = store.record(first.id)
        assert [(a.outcome, a.billed) for a in record.attempts] == [("rate_limited", "no")]

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param({"after_s": 120}, id="its-own-back-off"),
            pytest.param({"retry_after_s": 120}, id="the-cool-down-of-its-budget"),
        ],
    )
    def test_a_retry_past_the_deadline_is_none(self, store, changes):
        """The job ends at once with the error that it has, and nothing is left of it."""
        job = self.admitted(store)
        (grant,) = self.called(store, job)
        ending = self.again(grant, **changes)

        assert self.said(store.finish(ending)) == ("done", "failed")
        assert self.said(store.finish(ending)) == ("done", "failed")
        record = store.record(job.id)
        assert record.error == {"code": "rate_limited", "message": "not now"}

    def test_a_cancel_during_the_call_wins_over_a_retry(self, store):
        """The job ends with that call."""
        (job,) = self.batch(store, 1)
        (grant,) = self.called(store, job)
        store.cancel(job.id)

        assert self.said(store.finish(self.again(grant, 5.0)))[0] == "done"
        assert store.record(job.id).state.terminal

    @pytest.mark.parametrize("after_s", [pytest.param(5.0, id="due"), pytest.param(0, id="parked")])
    def test_the_repeated_end_of_a_retried_call_changes_nothing(self, store, client, after_s):
        """Neither while the job waits, nor when it lies in the list, nor in the next call."""
        self.limit(client)
        (job,) = self.batch(store, 1)
        (grant,) = self.called(store, job)
        ending = self.again(grant, after_s, retry_after_s=5.0)
        store.finish(ending)
        heard, same = [], []

        def repeat() -> None:
            before = self.everything(client)
            heard.append(self.said(store.finish(ending)))
            same.append(self.everything(client) == before)

        repeat()
        client.zadd("due", {job.id: 1}, xx=True)
        self.reopen(client)
        store.release(sweep=False)
        repeat()
        newer = self.start(store, job.id, "newer")
        repeat()
        self.finish(store, newer)
        repeat()

        assert same == [True] * 4
        assert heard[:2] == [("waiting", "rate_limited")] * 2
        assert heard[2:] == [("late", "calling"), ("late", "succeeded")]

    @pytest.mark.parametrize("after_s", [pytest.param(5.0, id="due"), pytest.param(0, id="parked")])
    @pytest.mark.parametrize("end", ["cancelled", "expired"])
    def test_a_waiting_job_that_ends_is_nowhere(self, store, client, after_s, end):
        """What comes back later is only what lives."""
        (job,) = self.batch(store, 1)
        (grant,) = self.called(store, job)
        store.finish(self.again(grant, after_s, retry_after_s=5.0))
        if end == "cancelled":
            store.cancel(job.id)
        else:
            client.hset(f"job:{job.id}", "deadline", 1)
            client.zadd("deadlines", {job.id: 1})
            store.expire_due()
        self.reopen(client)

        assert store.record(job.id).state == end
        assert client.zcard("due") == client.zcard("parked:ollama:*:batch") == 0
        assert (store.release(sweep=True)[0], client.lrange(BATCH, 0, -1)) == (0, [])

    def test_the_answer_of_a_given_up_call_ends_a_job_that_waits(self, store, client):
        """Its worker came back while the job was parked for its next attempt."""
        (job,) = self.batch(store, 1)
        (grant,) = self.called(store, job)
        self.reclaim(store)
        self.close(client, 10)
        parked = self.held(store, job)

        assert parked == ("parked", "rate_limited")
        assert self.finish(store, grant) == ("done", "succeeded")
        assert client.zcard("parked:ollama:*:batch") == 0
        assert store.record(job.id).attempts[0].outcome == "late"

    def test_a_given_up_call_gives_its_permit_back(self, store, client):
        """In every way in which permits are counted; when it ends after all, it is an overrun."""
        self.permits(client, 1)
        first, second = self.batch(store, 2)
        (grant,) = self.called(store, first)
        self.reclaim(store)
        given_back = client.hgetall("calls:ollama"), client.hgetall("in_use:ollama")
        (newer,) = self.called(store, second)
        for _ in range(2):
            self.finish(store, grant)
        self.finish(store, newer)

        assert given_back == ({}, {"batch": "0"})
        assert store.counters()["permits_overrun"] == 1
        assert store.counters()["reclaimed"] == 1
        assert store.overview(["ollama"])["providers"][0]["totals"]["calls"] == 1

    def test_a_given_up_call_that_wants_a_retry_is_late(self, store, client):
        """Its job has its retry already; the ledger learns that nothing was billed."""
        (job,) = self.batch(store, 1)
        (grant,) = self.called(store, job)
        self.reclaim(store)
        for _ in range(2):
            store.finish(self.again(grant, retry_after_s=30))

        assert store.record(job.id).state == "queued"
        assert [(a.outcome, a.billed) for a in store.record(job.id).attempts] == [("late", "no")]
        assert store.counters()["permits_overrun"] == 1
        assert not client.hexists("budget:ollama:*", "closed_until")

    def test_the_end_of_a_superseded_call_counts_once(self, store):
        """The first time tells what it cost, a repetition nothing."""
        (job,) = self.batch(store, 1)
        old = self.start(store, job.id, "old")
        self.reclaim(store)
        new = self.start(store, job.id, "new")
        self.finish(store, old)
        store.finish(self.refusal(new))
        before = store.record(job.id)
        store.finish(self.ending(new))

        assert before.attempts[1].outcome == "superseded"
        assert (before.attempts[1].upstream_status, before.attempts[1].billed) == (429, "no")
        assert store.record(job.id) == before

    def test_learning_may_be_switched_on_between_two_refusals(self, store, client):
        """What the budget has of the time before is less than what it has later."""
        self.limit(client)
        for number in range(18):
            self.limit(client, learn=number > 0)
            job = self.admitted(store)
            grant = self.start(store, job.id, job.id)
            if number in {0, 1, 15, 16}:
                store.finish(self.refusal(grant))
                self.reopen(client)
            else:
                self.finish(store, grant)
            client.hdel("budget:ollama:*", "last")

        assert store.overview(["ollama"])["providers"][0]["budgets"][0]["learned"]
