"""Jobs that wait in their budget's parking, and how the keeper brings them back."""

from __future__ import annotations

import pytest

from chat.jobs import NewJob
from chat.types import Lane
from tests.store_base import BATCH, DAY_MS, QUEUE, StoreBase, ms_of, now_ms

OPENROUTER = "chat.openrouter.batch"


class StoreWaiting(StoreBase):
    """What ``release`` does."""

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
        """As long as one of them is parked, although the batch job was admitted first."""
        self.limit(client, rpm=150)
        self.close(client, 10)
        (batch,) = self.batch(store, 1)
        people = [self.admitted(store) for _ in range(3)]
        self.reopen(client)
        store.release(sweep=False)
        first = self.list_of(client)
        self.called(store, people[0])
        client.hset("budget:ollama:*", "last", 1)
        store.release(sweep=False)

        assert first == [people[0].id, people[1].id]
        assert self.list_of(client, BATCH) == []
        assert [self.waits_for(store, job) for job in (people[2], batch)] == ["rate", "rate"]

    def test_those_who_lie_in_the_list_have_the_rate_before_those_who_come_back(
        self, store, client
    ):
        """More in the list than can start would only be parked once more."""
        self.limit(client, rpm=150)
        listed = self.admitted(store)
        self.close(client, 10)
        for _ in range(3):
            self.admitted(store)
        self.reopen(client)
        store.release(sweep=False)

        assert listed.id in self.list_of(client)
        assert len(self.list_of(client)) <= 2

    def parked_for_a_turn(self, store, client, *, waited_s=120.0):
        """Two batch jobs and three people in the parking of a budget, before the turn of batch."""
        self.settings(client, turn=3, max_wait=60_000, permits=10)
        self.limit(client, rpm=6000)
        self.close(client, 10)
        batch = self.batch(store, 2)
        for job in batch:
            self.age(client, job, waited_s)
        people = [self.admitted(store) for _ in range(3)]
        self.reopen(client)
        client.hset("budget:ollama:*", "people", 2)
        store.release(sweep=False)
        return batch, people

    def test_a_batch_job_has_its_turn_in_its_budget_too(self, store, client):
        """It alone comes back; people wait until it began, and it is theirs as often as before."""
        batch, people = self.parked_for_a_turn(store, client)
        first = (self.list_of(client), self.list_of(client, BATCH))
        store.release(sweep=False)
        second = (self.list_of(client), self.list_of(client, BATCH))
        heard = self.held(store, people[0])
        self.called(store, batch[0], people[0], people[1])
        self.close(client, 10)
        parked = self.held(store, people[2])
        self.reopen(client)
        store.release(sweep=False)

        assert first == ([], [batch[0].id])
        assert second == ([person.id for person in people], [batch[0].id])
        assert (heard, parked) == (("wait", "turn"), ("parked", "rate_limited"))
        assert (self.list_of(client), self.list_of(client, BATCH)) == ([], [batch[1].id])

    def test_a_young_batch_job_has_no_turn_in_its_budget(self, store, client):
        """It has not waited long enough."""
        _, people = self.parked_for_a_turn(store, client, waited_s=30.0)

        assert self.list_of(client)[0] == people[0].id
        assert self.start(store, people[0].id).attempt == 1

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

    def test_a_backlog_does_not_hold_back_what_was_parked_before_it(self, store, client):
        """Without a rate the list may be long; who was parked for a permit goes to its front."""
        self.permits(client, 1)
        first, second, *_ = self.batch(store, 150)
        (grant,) = self.called(store, first)
        parked = self.held(store, second)
        self.finish(store, grant)

        assert (parked, store.release(sweep=False)[0]) == (("parked", "permits"), 1)
        assert self.list_of(client, BATCH)[0] == second.id

    @pytest.mark.parametrize(
        ("numbers", "count"),
        [pytest.param({}, 120, id="no-rate"), pytest.param({"rpm": 600}, 20, id="a-rate")],
    )
    @pytest.mark.parametrize(
        ("lane", "queue"), [(Lane.INTERACTIVE, QUEUE), (Lane.BATCH, BATCH)], ids=list(Lane)
    )
    def test_what_came_back_is_not_overtaken(self, store, client, lane, queue, numbers, count):
        """More of them come when those have been taken, however much the rate would allow."""
        self.limit(client, **numbers)
        self.permits(client, 1)
        self.close(client, 10)
        jobs = [self.admitted(store, lane=lane) for _ in range(count)]
        self.reopen(client)
        order: list[NewJob] = []
        while len(order) < len(jobs):
            store.release(sweep=False)
            job_id = self.list_of(client, queue)[0]
            job = next(job for job in jobs if job.id == job_id)
            (grant,) = self.called(store, job)
            self.finish(store, grant)
            order.append(job)
            # Calls take long: the rate is not what is short.
            client.hset("budget:ollama:*", "last", 1)

        assert order == jobs

    def test_the_first_batch_job_of_a_budget_with_a_rate_is_not_overtaken(self, store, client):
        """It went straight to the list; those that were parked behind it come back after it."""
        self.limit(client, rpm=600)
        self.permits(client, 1)
        first, *others = self.batch(store, 8)
        store.release(sweep=False)
        before = self.list_of(client, BATCH)
        (grant,) = self.called(store, first)
        self.finish(store, grant)
        client.hset("budget:ollama:*", "last", 1)
        store.release(sweep=False)

        assert before[0] == first.id
        assert self.list_of(client, BATCH)[0] == others[0].id

    def test_what_came_back_and_was_lost_is_sent_again_once(self, store, client):
        """A worker died with its wake-up; the budget goes on when the keeper has sent it again."""
        self.limit(client, rpm=600)
        self.permits(client, 100)
        self.close(client, 10)
        jobs = self.batch(store, 8)
        self.reopen(client)
        store.release(sweep=False)
        client.delete(BATCH)
        stuck, _ = store.release(sweep=False)
        seq, _, empty = store.marks(BATCH)
        sent = store.republish(BATCH, seq, only_if_empty=empty)
        self.called(store, *jobs[:sent])
        client.hset("budget:ollama:*", "last", 1)

        assert (stuck, sent > 0) == (0, True)
        assert store.release(sweep=False)[0] > 0

    def test_the_sweep_looks_at_batch_although_people_are_parked(self, store, client):
        """Their deadlines may be further away than those of the batch jobs behind them."""
        self.close(client, 30)
        someone = self.admitted(store, timeout_ms=3_600_000)
        (job,) = self.batch(store, 1)
        self.close(client, 600)
        store.release(sweep=True)

        assert store.record(someone.id).state == "waiting"
        assert store.record(job.id).error["code"] == "rate_limited"

    def test_a_turn_without_a_permit_is_over_at_once(self, store, client):
        """The share of batch is used up by other budgets: people do not wait for what cannot be."""
        self.settings(client, "openrouter", permits=2, turn=2, max_wait=0)
        changes = {"provider": "openrouter", "timeout_ms": DAY_MS}
        (other,) = self.batch(store, 1, upstream_model="x/a", **changes)
        self.called(store, other)
        self.close(client, 60, budget="openrouter:x/b")
        (batch,) = self.batch(store, 1, upstream_model="x/b", **changes)
        someone = self.admitted(store, upstream_model="x/b", **changes)
        self.reopen(client, "openrouter:x/b")
        client.hset("budget:openrouter:x/b", "people", 5)
        client.hset("lanes:openrouter", "active", now_ms(client))
        store.release(sweep=False)
        turn = self.held(store, batch)
        store.release(sweep=False)

        assert turn == ("parked", "permits")
        assert self.start(store, someone.id).attempt == 1

    def test_a_parked_job_shows_what_was_lost_before_it(self, store, client):
        """Its wake-up has left the list: one that was sent before it is not there any more."""
        lost, parked, _ = self.batch(store, 3)
        self.fetch(store, lost)
        self.close(client, 10)
        self.held(store, parked)
        _, mark, _ = store.marks(BATCH)

        assert store.republish(BATCH, mark - 1, only_if_empty=False) == 1
        assert self.list_of(client, BATCH)[-1] == lost.id

    @pytest.mark.parametrize("lane", list(Lane))
    def test_the_first_of_a_paced_budget_is_not_overtaken(self, store, client, lane):
        """Permits are short: what comes back waits for those that were never parked."""
        self.limit(client, rpm=600)
        self.permits(client, 1)
        jobs = [self.admitted(store, lane=lane, timeout_ms=10**7) for _ in range(20)]
        queue = QUEUE if lane is Lane.INTERACTIVE else BATCH
        order = []
        for _ in range(200):
            store.release(sweep=False)
            first = next(iter(self.list_of(client, queue)), None)
            if first is not None:
                job = next(job for job in jobs if job.id == first)
                (grant,) = self.called(store, job)
                self.finish(store, grant)
                order.append(jobs.index(job))
                client.hset("budget:ollama:*", "last", 1)

        assert order == list(range(20))
