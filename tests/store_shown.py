"""What people can see of jobs that wait and of budgets, and what is kept of budgets."""

from __future__ import annotations

import pytest

from chat.types import Lane
from tests.store_base import DAY_MS, QUEUE, StoreBase, a_job, ms_of, now_ms


class StoreShown(StoreBase):
    """``place``, ``overview`` and ``retire``."""

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
        buckets = totals["upstream_ms"]["buckets"]
        assert ([most for most, _ in buckets][:2], buckets[-1]) == ([50, 100], ["+Inf", 2])
        assert (overview["jobs"]["parks"], overview["jobs"]["waiting"]) == (2, 2)

    @pytest.mark.parametrize(
        ("used", "closing", "reason"),
        [
            pytest.param(49, None, None, id="one-request-is-left"),
            pytest.param(50, None, "day_quota", id="used-up"),
            pytest.param(51, None, "day_quota", id="the-limit-was-lowered"),
            pytest.param(50, "overloaded", "overloaded", id="closed-as-well"),
        ],
    )
    def test_a_day_that_is_used_up_closes_until_midnight(
        self, store, client, used, closing, reason
    ):
        """UTC's, where the day of Redis' clock ends; another reason is told before it."""
        self.admitted(store)
        self.limit(client, rpd=50)
        today = {"day": now_ms(client) // DAY_MS, "used": used}
        client.hset("budget:ollama:*", mapping=today)
        if closing:
            self.close(client, 9, closing)
        (budget,) = store.overview(["ollama"])["providers"][0]["budgets"]

        assert (budget["closed"] or {}).get("reason") == reason
        if reason == "day_quota":
            assert budget["closed"]["until"] == budget["day"]["resets_at"]

    def test_a_budget_knows_its_limit_when_nothing_of_it_waits(self, store):
        """The pattern, and the model where each has its own."""
        for model in ("a:free", "b"):
            job = self.admitted(store, provider="openrouter", upstream_model=model)
            (grant,) = self.called(store, job)
            self.finish(store, grant)
        budgets = store.overview(["openrouter"])["providers"][0]["budgets"]

        assert {(view["match"], view["model"]) for view in budgets} == {
            ("*:free", None),
            ("*", "b"),
        }
        assert [view["rate_cap_per_minute"] for view in budgets if view["model"] is None] == [20]

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

    def test_a_retry_of_a_closed_budget_waits_for_its_opening(self, store, client):
        """Its own back-off is over before that."""
        (job,) = self.batch(store, 1, timeout_ms=3_600_000)
        (grant,) = self.called(store, job)
        store.finish(self.again(grant, 1.0, "overloaded", signal="overloaded", retry_after_s=60))
        until = int(client.hget("budget:ollama:*", "closed_until"))
        waiting = store.record(job.id).waiting

        assert waiting["reason"] == "overloaded"
        assert ms_of(waiting["until"]) == ms_of(waiting["estimated_start_at"]) == until

    def test_the_budget_of_a_job_that_never_began_is_removed_too(self, store, client):
        """Else each model name that somebody makes up would leave one behind."""
        job = self.admitted(store, provider="openrouter", upstream_model="no/such")
        store.cancel(job.id)
        client.zadd("budgets:openrouter", {"openrouter:no/such": 1}, xx=True)
        store.retire("openrouter")

        assert not client.exists("budget:openrouter:no/such")
        assert not client.exists("budgets:openrouter")

    def test_the_record_that_comes_with_the_admission_is_the_one_that_is_read(self, store, client):
        """Whether the job is queued, behind others, or parked; with all that the caller said."""
        self.limit(client, provider="openrouter", rpm=60)
        free = {"provider": "openrouter", "upstream_model": "openai/gpt-oss:free"}
        said = {"metadata": {"run": "7", "ä": "–"}, "owner": "ann", "timeout_ms": 1_234_567}

        def states(*jobs):
            for job in jobs:
                given = store.admit(job, record=True).record
                read = store.record(job.id)
                begins = [record.waiting["estimated_start_at"] for record in (given, read)]
                if begins[0] is not None:  # Reckoned from now, which is later for the second.
                    assert 0 <= ms_of(begins[1]) - ms_of(begins[0]) < 1000
                    given.waiting["estimated_start_at"] = begins[1]
                assert given == read
                yield given.state

        queued = [*states(a_job(), a_job(**said), a_job(lane=Lane.BATCH, **said))]
        paced = [*states(*(a_job(lane=Lane.BATCH, **free) for _ in range(3)))]
        self.close(client, 30)
        closed = [*states(a_job(), a_job(lane=Lane.BATCH, **said))]
        store.drain("ollama")
        drained = [*states(a_job(lane=Lane.BATCH))]
        again = store.admit(job := self.admitted(store), record=True)

        assert queued == ["queued"] * 3
        assert paced == ["queued", "waiting", "waiting"]
        assert (closed, drained) == (["waiting"] * 2, ["waiting"])
        assert (again.job_id, again.record) == (job.id, None)
