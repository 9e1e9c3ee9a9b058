"""Who is not let in: closed budgets, full lanes, a full Redis."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from chat.errors import (
    QueueFull,
    QueueUnavailable,
    QuotaExhausted,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from chat.store import JobStore
from chat.types import Lane
from tests.store_base import BATCH, DAY_MS, QUEUE, StoreBase, a_job, now_ms

#: Why a budget is closed, and the code and the class of what a job with less time ends with.
CLOSINGS = [
    pytest.param("rate_limited", "rate_limited", UpstreamRateLimited, id="rate-limit"),
    pytest.param("quota_exhausted", "quota_exhausted", QuotaExhausted, id="quota"),
    pytest.param("day_quota", "quota_exhausted", QuotaExhausted, id="day"),
    pytest.param("overloaded", "upstream_unavailable", UpstreamUnavailable, id="overload"),
]

#: A deadline past the next midnight.
TWO_DAYS = 2 * DAY_MS


class StoreClosed(StoreBase):
    """What ``admit`` and ``start`` refuse, and what they put aside."""

    # -- cool-downs

    def test_a_refusal_closes_the_budget_for_everybody(self, store, client):
        """Batch is parked; interactive waits up to a second in its slot and is parked after."""
        first, waiting = self.admitted(store), self.admitted(store)
        (job,) = self.batch(store, 1)
        (grant,) = self.called(store, first)
        store.finish(self.refusal(grant, chance=0.5))
        why = client.hget("budget:ollama:*", "why")
        heard = []
        for asking, options in ((job, {}), (waiting, {}), (waiting, {"may_wait": False})):
            self.close(client, 0.9, why)
            heard.append(self.held(store, asking, **options))

        assert heard == [
            ("parked", "rate_limited"),
            ("wait", "rate_limited"),
            ("parked", "rate_limited"),
        ]

    def test_interactive_does_not_wait_in_its_slot_for_a_long_cool_down(self, store):
        """Half a minute is the keeper's business."""
        first, waiting = self.admitted(store), self.admitted(store)
        (grant,) = self.called(store, first)
        store.finish(self.refusal(grant, retry_after_s=30.0))

        assert self.held(store, waiting) == ("parked", "rate_limited")

    def test_a_storm_of_refusals_is_one_cool_down(self, store, client):
        """All calls that were under way when the limit was reached tell the same."""
        self.permits(client, 10)
        grants = self.called(store, *[self.admitted(store) for _ in range(10)])
        for grant in grants:
            store.finish(self.refusal(grant, retry_after_s=5.0))
        (totals,) = [view["totals"] for view in store.overview(["ollama"])["providers"]]

        assert (totals["refused"], totals["cool_downs"]) == (10, 1)

    def test_one_overloaded_answer_closes_nothing_and_the_third_does(self, store, client):
        """The first may be that job's bad luck."""
        heard = []
        for _ in range(3):
            job = self.admitted(store)
            (grant,) = self.called(store, job)
            store.finish(self.refusal(grant, "upstream_unavailable", signal="overloaded"))
            heard.append(client.hget("budget:ollama:*", "why"))

        assert heard == [None, None, "overloaded"]

    def closed(self, client, why: str) -> float:
        """Close Ollama's budget for that reason; returns for how many seconds."""
        if why != "day_quota":
            self.close(client, 120, why)
            return 120.0
        now = now_ms(client)
        self.limit(client, rpd=5)
        client.hset("budget:ollama:*", mapping={"day": now // DAY_MS, "used": 5})
        return (DAY_MS - now % DAY_MS) / 1000

    @pytest.mark.parametrize(("why", "code", "_"), CLOSINGS)
    def test_a_job_whose_budget_opens_too_late_fails_at_its_start(
        self, store, client, why, code, _
    ):
        """At once, with what it would have failed with at its deadline, and without an attempt."""
        jobs = [a_job(lane=lane, timeout_ms=TWO_DAYS) for lane in Lane]
        for job in jobs:
            store.admit(job)
        seconds = self.closed(client, why)
        for job in jobs:
            # Nearer than the opening, even a second before midnight.
            deadline = now_ms(client) + int(seconds * 500)
            client.hset(f"job:{job.id}", "deadline", deadline)
        heard = [self.held(store, job) for job in jobs]

        assert heard == [("skip", "failed")] * 2
        for job in jobs:
            record = store.record(job.id)
            assert (record.error["code"], record.error["job_id"]) == (code, job.id)
            assert seconds - 30 < record.error["retry_after_s"] <= math.ceil(seconds)
            assert ("resets_at" in record.error) == (code == "quota_exhausted")
            assert record.attempts == ()

    @pytest.mark.parametrize(("why", "code", "error"), CLOSINGS)
    def test_a_job_whose_budget_opens_too_late_is_not_admitted(
        self, store, client, why, code, error
    ):
        """Nothing is queued, and the refusal says when to come back."""
        seconds = self.closed(client, why)
        with pytest.raises(error, match="ollama, models") as refusal:
            store.admit(a_job(timeout_ms=int(seconds * 500)))

        assert refusal.value.code == code
        assert seconds - 30 < refusal.value.retry_after_s <= math.ceil(seconds)
        assert (refusal.value.resets_at is not None) == (code == "quota_exhausted")
        assert store.counters() == {}
        assert client.llen(QUEUE) == client.zcard("deadlines") == 0

    @pytest.mark.parametrize("why", [pytest.param(c.values[0], id=c.id) for c in CLOSINGS])
    def test_a_job_that_outlasts_the_closing_is_parked_at_admission(self, store, client, why):
        """It never lies in the list, where it would stand before jobs of other budgets."""
        self.closed(client, why)
        jobs = [self.admitted(store, lane=lane, timeout_ms=TWO_DAYS) for lane in Lane]

        assert [self.waits_for(store, job) for job in jobs] == [why, why]
        assert client.llen(QUEUE) == client.llen(BATCH) == 0

    def test_nothing_starts_before_the_settings_are_known(self, store, client):
        """A Redis that lost its data is told them by the keeper; a job waits that long."""
        client.delete("settings:ollama")
        jobs = [self.admitted(store, lane=lane) for lane in Lane]

        assert [self.held(store, job) for job in jobs] == [("wait", "settings")] * 2
        assert (store.room("ollama"), store.counters()["queued"]) == (0, 2)

    # -- caps

    @pytest.mark.parametrize("lane", [pytest.param(lane, id=lane.value) for lane in Lane])
    @pytest.mark.parametrize(
        ("what", "rule"), [("", "jobs are waiting in the"), ("_bytes", "_bytes = 250")]
    )
    def test_each_lane_has_its_own_caps(self, store, client, config, lane, what, rule):
        """The other lane is let in while one is full; parked jobs count like queued ones."""
        caps = {f"max_{lane}": 2} if not what else {f"max_{lane}_bytes": 250}
        own = replace(config.providers["ollama"], **caps)
        capped = JobStore(client, replace(config, providers={**config.providers, "ollama": own}))
        self.close(client, 10)
        for _ in range(2):
            capped.admit(a_job(lane=lane))
        other = next(other for other in Lane if other is not lane)
        capped.admit(a_job(lane=other))

        with pytest.raises(QueueFull, match=rule) as refusal:
            capped.admit(a_job(lane=lane))
        assert str(lane) in str(refusal.value)
        assert refusal.value.retry_after_s == 30
        assert store.counters()["accepted"] == 3

    def test_the_last_twentieth_of_the_queue_is_for_people(self, store, client, config):
        """A flood of batch jobs does not lock them out."""
        capped = JobStore(client, replace(config, max_queued=20))
        self.batch(capped, 19)

        with pytest.raises(QueueFull, match="less 1 that are kept for people"):
            capped.admit(a_job(lane=Lane.BATCH))
        capped.admit(a_job())
        with pytest.raises(QueueFull, match="max_queued = 20 jobs are waiting"):
            capped.admit(a_job())
        assert store.counters()["accepted"] == 20

    def test_a_full_queue_says_how_long_a_hundredth_of_it_takes(self, store, client, config):
        """Two starts a second, and a cap of a thousand: five seconds."""
        own = replace(config.providers["ollama"], max_interactive=1000)
        capped = JobStore(client, replace(config, providers={**config.providers, "ollama": own}))
        client.hset(f"lane:{QUEUE}", mapping={"jobs": 1000, "rate": 2, "at": now_ms(client)})
        with pytest.raises(QueueFull) as refusal:
            capped.admit(a_job())
        client.delete(f"lane:{QUEUE}")

        assert refusal.value.retry_after_s in {5, 6}
        assert store.counters() == {}

    def test_a_nearly_full_redis_accepts_nothing(self, store, client):
        """The keeper's note refuses every lane, and what is there goes on."""
        job = self.admitted(store)
        client.set("chatd:memory", "full")
        with pytest.raises(QueueUnavailable, match="maxmemory") as refusal:
            store.admit(a_job())

        assert refusal.value.retry_after_s == 5
        assert self.start(store, job.id).attempt == 1
        assert store.counters()["accepted"] == 1

    def test_several_are_let_in_or_not_one_by_one(self, store, client, config):
        """In their order and in one round trip; admitting them again changes nothing."""
        small = JobStore(client, replace(config, max_queued=3))
        jobs = [a_job() for _ in range(4)]

        first = small.admit_all(jobs)
        again = small.admit_all(jobs)

        assert [answer.job_id for answer in first[:3]] == [job.id for job in jobs[:3]]
        assert isinstance(first[3], QueueFull)
        assert [type(answer) for answer in again] == [type(answer) for answer in first]
        assert store.counters()["accepted"] == client.llen(QUEUE) == 3

    def test_several_are_told_that_redis_takes_nothing(self, store, client):
        """It is an answer to each: none of them is on its way."""
        client.set("chatd:memory", "full")

        answers = store.admit_all([a_job(), a_job()])

        assert [answer.code for answer in answers] == ["redis_unavailable"] * 2
        assert client.llen(QUEUE) == 0
