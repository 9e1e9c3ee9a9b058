"""What becomes of jobs that wait: brought back, tried again, cancelled, given up, shown."""

from __future__ import annotations

from datetime import datetime

import pytest

from chat.types import Lane
from tests.store_base import BATCH, DAY_MS, QUEUE, StoreBase, now_ms

OPENROUTER = "chat.openrouter.batch"


def ms_of(text: str) -> int:
    """An RFC 3339 time as ms since the epoch."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


class StoreWaiting(StoreBase):
    """Parked jobs and those whose own back-off runs: `release`, `finish` with a retry, `place`."""

    # -- brought back

    def test_parked_jobs_come_back_first_in_first_out_to_the_front(self, store, client):
        """Whoever was sent meanwhile is served after them."""
        listed = self.batch(store, 2)
        self.close(client, 10)
        parked = self.batch(store, 3)
        again = self.held(store, listed[0])
        early = store.release(sweep=False)
        self.reopen(client)
        released, _ = store.release(sweep=False)

        assert (again, early[0], released) == (("parked", "rate_limited"), 0, 4)
        assert 9 < early[1] <= 10
        in_order = [listed[0].id, *(job.id for job in parked), listed[1].id]
        assert self.list_of(client, BATCH) == in_order
        assert store.counters()["parks"] == 4

    def test_no_more_come_back_than_can_start(self, store, client):
        """Some 0.4 s apart, or half a second before their time: two, and two more later."""
        self.limit(client, rpm=150)
        self.permits(client, 100)
        self.close(client, 10)
        jobs = self.batch(store, 8)
        self.reopen(client)
        first, again = store.release(sweep=False), store.release(sweep=False)
        self.called(store, *jobs[:2])
        client.hset("budget:ollama:*", "last", now_ms(client) + 500)
        full = store.release(sweep=False)
        client.hset("budget:ollama:*", "last", 1)
        later = store.release(sweep=False)

        assert [came for came, _ in (first, again, full, later)] == [2, 0, 0, 2]
        assert 0 < again[1] <= 0.5
        assert 0 < full[1] <= 0.5
        assert self.list_of(client, BATCH) == [job.id for job in jobs[2:4]]

    def test_people_come_back_before_batch(self, store, client):
        """The next call is theirs, although the batch job was admitted first."""
        self.limit(client, rpm=60)
        self.close(client, 10)
        (batch,) = self.batch(store, 1)
        people = [self.admitted(store) for _ in range(2)]
        self.reopen(client)
        store.release(sweep=False)

        assert self.list_of(client) == [people[0].id]
        assert [self.waits_for(store, job) for job in (people[1], batch)] == ["rate", "rate"]

    def test_a_batch_job_has_its_turn_in_its_budget_too(self, store, client):
        """After enough people it alone comes back; they wait until it began, then it is theirs."""
        self.settings(client, turn=3, max_wait=60_000, permits=10)
        self.limit(client, rpm=6000)
        self.close(client, 10)
        (batch,) = self.batch(store, 1)
        self.age(client, batch, 120)
        someone = self.admitted(store)
        self.reopen(client)
        client.hset("budget:ollama:*", "people", 2)
        store.release(sweep=False)
        first = (self.list_of(client), self.list_of(client, BATCH))
        other = self.admitted(store)
        client.zrem("parked:ollama:*:interactive", other.id)
        client.zadd("parked:ollama:*:interactive", {other.id: 3})
        store.release(sweep=False)
        heard = self.held(store, someone)
        self.called(store, batch)

        assert first == ([], [batch.id])
        assert heard == ("wait", "turn")
        assert self.start(store, someone.id).attempt == 1
        assert client.hget("budget:ollama:*", "people") == "1"

    def test_people_go_on_when_nobody_fetches_the_budgets_turn(self, store, client):
        """A second is all that they wait for a batch job that no worker takes."""
        someone = self.admitted(store)
        client.hset("budget:ollama:*", "turn", now_ms(client))
        heard = self.held(store, someone)
        client.hset("budget:ollama:*", "turn", now_ms(client) - 1500)

        assert heard == ("wait", "turn")
        assert self.start(store, someone.id).attempt == 1
        assert not client.hexists("budget:ollama:*", "turn")

    def test_free_models_do_not_stand_before_paid_ones(self, store, client):
        """Two budgets of one provider: what waits for the one leaves the other's way open."""
        self.close(client, 600, budget="openrouter:*:free")
        changes = {"provider": "openrouter", "timeout_ms": DAY_MS}
        free = self.batch(store, 5, upstream_model="x/y:free", **changes)
        (paid,) = self.batch(store, 1, upstream_model="x/y", **changes)
        store.release(sweep=True)

        assert self.list_of(client, OPENROUTER) == [paid.id]
        assert self.start(store, paid.id).attempt == 1
        assert {self.waits_for(store, job) for job in free} == {"rate_limited"}

    def test_each_model_may_have_a_budget_of_its_own(self, store):
        """OpenRouter's paid models: one that is refused leaves the others alone."""
        changes = {"provider": "openrouter", "timeout_ms": DAY_MS}
        refused, other = (self.admitted(store, upstream_model=m, **changes) for m in ("x/a", "x/b"))
        (grant,) = self.called(store, refused)
        store.finish(self.again(grant, retry_after_s=600))

        assert self.waits_for(store, refused) == "rate_limited"
        assert self.start(store, other.id).attempt == 1
        budgets = store.overview(["openrouter"])["providers"][0]["budgets"]
        closed = {view["model"]: (view["closed"] or {}).get("reason") for view in budgets}
        assert closed == {"x/a": "rate_limited", "x/b": None}

    def test_a_release_after_the_end_of_its_jobs_brings_nothing(self, store, client):
        """And it forgets the budget until something is parked there again."""
        self.close(client, 10)
        jobs = [*self.batch(store, 2), self.admitted(store)]
        for job in jobs:
            store.cancel(job.id)
        self.reopen(client)

        assert store.release(sweep=True) == (0, None)
        assert not client.exists("parked")

    def test_the_sweep_ends_jobs_whose_budget_opens_too_late(self, store, client):
        """At once, and only those; without the sweep they are left alone."""
        self.close(client, 1)
        short, long = (self.batch(store, 1, timeout_ms=ms)[0] for ms in (60_000, 600_000))
        until = self.close(client, 120, "quota_exhausted")
        store.release(sweep=False)
        before = store.record(short.id).state
        store.release(sweep=True)

        assert before == store.record(long.id).state == "waiting"
        record = store.record(short.id)
        assert (record.state, record.error["code"]) == ("failed", "quota_exhausted")
        assert record.error["retry_after_s"] <= 120
        assert ms_of(record.error["resets_at"]) == until

    def test_a_start_of_a_waiting_job_finds_nothing_to_do(self, store, client):
        """A second wake-up of it is still about."""
        self.close(client, 10)
        (job,) = self.batch(store, 1)
        before = self.everything(client)

        assert self.held(store, job) == ("skip", "waiting")
        assert self.everything(client) == before

    # -- tried again

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

    # -- shown

    def test_the_record_says_what_a_job_waits_for(self, store, client):
        """In the list, for the rate, for the end of a cool-down, for its own back-off."""
        self.limit(client, rpm=60)
        (calling, *jobs), someone = self.batch(store, 3), self.admitted(store)
        now = now_ms(client)
        listed = store.record(calling.id).waiting
        rate = [store.record(job.id).waiting for job in jobs]
        until = self.close(client, 20)
        closed = [store.record(job.id).waiting for job in jobs]
        self.reopen(client)
        (grant,) = self.called(store, calling)
        store.finish(self.again(grant, 5.0, "overloaded", signal=""))
        due = store.record(calling.id).waiting

        assert listed == {"reason": "queue", "until": None, "position": 1} | {
            "estimated_start_at": None
        }
        assert [(w["reason"], w["until"], w["position"]) for w in rate] == [
            ("rate", None, 1),
            ("rate", None, 2),
        ]
        starts = [ms_of(w["estimated_start_at"]) - now for w in rate]
        assert 1000 <= starts[0] < starts[1] <= 30_000
        assert [w["reason"] for w in closed] == ["rate_limited"] * 2
        assert [ms_of(w["until"]) for w in closed] == [until] * 2
        assert [ms_of(w["estimated_start_at"]) - until for w in closed] == [1000, 2000]
        assert (due["reason"], due["position"]) == ("overloaded", None)
        assert due["until"] == due["estimated_start_at"]
        assert 4000 < ms_of(due["until"]) - now < 60_000
        assert store.record(someone.id).waiting["reason"] == "queue"

    def test_a_listed_job_knows_its_place_and_when_its_turn_may_come(self, store, client):
        """From the starts of its lane over the last half minute."""
        jobs = [self.admitted(store) for _ in range(4)]
        self.called(store, *jobs[:2])
        client.hset(f"lane:{QUEUE}", mapping={"rate": 2, "at": now_ms(client)})
        waiting = [store.record(job.id).waiting for job in jobs]

        assert waiting[:2] == [None, None]
        assert [w["position"] for w in waiting[2:]] == [1, 2]
        starts = [ms_of(w["estimated_start_at"]) - now_ms(client) for w in waiting[2:]]
        assert 0 < starts[0] < starts[1] < 30_000

    def test_people_stand_before_batch_in_the_parking(self, store, client):
        """A batch job's place counts those that will be called before it."""
        self.close(client, 20)
        (batch,) = self.batch(store, 1)
        for _ in range(3):
            self.admitted(store)

        assert store.record(batch.id).waiting["position"] == 4

    def test_the_overview_has_the_numbers_of_every_budget(self, store, client):
        """Rates, closings, days, what is parked, and what calls have been like."""
        self.limit(client, rpm=6000, rpd=50, tpm=90_000)
        first, second = self.admitted(store), self.admitted(store)
        grant, refused = self.called(store, first, second)
        store.finish(self.ending(grant, input_tokens=7, output_tokens=11))
        until = now_ms(client)
        store.finish(self.refusal(refused, retry_after_s=20))
        self.batch(store, 2)
        overview = store.overview(["ollama"])
        (view,) = overview["providers"]
        (budget,) = view["budgets"]
        closed = budget.pop("closed")
        resets_at = budget["day"].pop("resets_at")

        assert budget == {
            "match": "*",
            "model": None,
            "in_use": 0,
            "rate_per_minute": 6000,
            "rate_cap_per_minute": 6000,
            "learned": False,
            "tokens_per_minute": 90_000,
            "day": {"used": 2, "limit": 50},
            "parked": {"interactive": 0, "batch": 2},
        }
        assert (closed["reason"], resets_at[10:]) == ("rate_limited", "T00:00:00.000Z")
        assert 20_000 <= ms_of(closed["until"]) - until < 50_000
        assert view["lanes"]["batch"] | {"oldest_age_s": 0} == {
            "depth": 0,
            "oldest_age_s": 0,
            "parked": 2,
            "starts_per_s": 0,
        }
        assert view["lanes"]["interactive"]["starts_per_s"] == pytest.approx(2 / 30, rel=0.1)
        totals = view["totals"]
        counted = ("calls", "succeeded", "failed", "refused", "cool_downs", "overloaded")
        assert [totals[name] for name in counted] == [2, 1, 1, 1, 1, 0]
        assert (totals["input_tokens"], totals["output_tokens"]) == (7, 11)
        assert totals["upstream_ms"]["buckets"][-1] == ["+Inf", 2]
        assert (overview["jobs"]["parks"], overview["jobs"]["waiting"]) == (2, 2)

    def test_idle_budgets_are_removed_and_only_those(self, store, client):
        """Not one that was used lately, is closed, or has jobs in its list or its parking."""
        models = ["idle", "used", "closed", "listed", "parked"]
        changes = {"provider": "openrouter", "timeout_ms": DAY_MS}
        for model in models:
            job = self.admitted(store, upstream_model=model, **changes)
            (grant,) = self.called(store, job)
            self.finish(store, grant)
        self.close(client, 600, budget="openrouter:closed")
        self.close(client, 600, budget="openrouter:parked")
        for model in ("listed", "parked"):
            self.admitted(store, upstream_model=model, lane=Lane.BATCH, **changes)
        self.reopen(client, "openrouter:parked")
        long_ago = now_ms(client) - 2 * DAY_MS - 1000
        old = [f"openrouter:{model}" for model in models if model != "used"]
        client.zadd("budgets:openrouter", dict.fromkeys(old, long_ago))
        store.retire("openrouter")
        left = {view["model"] for view in store.overview(["openrouter"])["providers"][0]["budgets"]}

        assert left == {"used", "closed", "listed", "parked"}
        assert not client.exists("budget:openrouter:idle")
