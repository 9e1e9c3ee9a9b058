"""Many jobs at once: lists of them, records of many, records that were collected or are too old."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from chat.errors import JobNotFound, ResultExpired
from chat.jobs import JobState, new_id, new_job_id
from chat.store import JobStore
from chat.types import Lane
from tests.store_base import BATCH, QUEUE, StoreBase, a_job

MODELS = {"ollama": "qwen3:8b", "openrouter": "c/x"}


def made(seconds_ago: float) -> str:
    """An id as it was made so long ago."""
    return new_id("job_", int((time.time() - seconds_ago) * 1000))


class StoreListed(StoreBase):
    """Lists, collected records, and ids that have none."""

    def of_all_kinds(self, store: JobStore) -> dict[str, str]:
        """Jobs in seven states, two lanes and two providers, the oldest first: id to what it is."""
        kinds: dict[str, str] = {}
        for state in JobState:
            for provider, lane in (("ollama", Lane.BATCH), ("openrouter", Lane.INTERACTIVE)):
                job = self.admitted(
                    store,
                    id=made(100 - len(kinds)),
                    provider=provider,
                    upstream_model=MODELS[provider],
                    lane=lane,
                    metadata={"number": str(len(kinds))},
                )
                self.bring(store, job.id, state)
                kinds[job.id] = f"{state} {provider} {lane}"
        return kinds

    def bring(self, store: JobStore, job_id: str, state: JobState) -> None:
        """Let a queued job come to a state."""
        if state is JobState.CANCELLED:
            store.cancel(job_id)
        elif state is JobState.EXPIRED:
            store.redis.hset(f"job:{job_id}", "deadline", 1)
            store.expire(job_id)
        elif state is not JobState.QUEUED:
            grant = self.start(store, job_id, job_id)
            if state is JobState.WAITING:
                store.finish(self.again(grant, 30, signal=""))
            elif state is JobState.FAILED:
                store.finish(self.refusal(grant, signal=""))
            elif state is JobState.SUCCEEDED:
                store.finish(self.ending(grant))

    # -- lists

    def test_a_list_begins_with_the_newest(self, store):
        """Whatever the state, the lane and the provider."""
        kinds = self.of_all_kinds(store)
        page = store.listed(limit=100)

        assert [record.id for record in page.records] == list(kinds)[::-1]
        assert [f"{r.state} {r.provider} {r.lane}" for r in page.records] == [*kinds.values()][::-1]
        assert page.after is None

    def test_a_listed_job_is_its_record_without_the_answer(self, store):
        """What it waits for, its attempts, its error: all the same."""
        kinds = self.of_all_kinds(store)
        page = store.listed(limit=100)
        records = [store.record(record.id) for record in page.records]
        # When it may start is reckoned anew each time.
        for record in (*page.records, *records):
            if record.waiting is not None:
                del record.waiting["estimated_start_at"]

        assert [record.response is None for record in records].count(False) == 2
        assert sum(record.waiting is not None for record in records) == 4
        assert list(page.records) == [replace(record, response=None) for record in records]
        assert len(page.records) == len(kinds)

    def test_requests_and_answers_are_not_read_for_a_list(self, store):
        """A page of them might be a gigabyte."""
        self.of_all_kinds(store)

        assert "Paris" not in str(store._run("list", "", 100, "", "", "", ""))

    @pytest.mark.parametrize("limit", [1, 2, 5, 13, 14])
    def test_pages_show_each_job_once(self, store, limit):
        """And the last one says that it is the last."""
        kinds = self.of_all_kinds(store)
        pages = [store.listed(limit=limit)]
        while pages[-1].after is not None and len(pages) <= len(kinds):
            pages.append(store.listed(limit=limit, after=pages[-1].after))

        assert [r.id for page in pages for r in page.records] == list(kinds)[::-1]
        assert [page.after for page in pages[:-1]] == [p.records[-1].id for p in pages[:-1]]
        assert pages[-1].after is None
        assert len(pages) == -(-len(kinds) // limit)

    @pytest.mark.parametrize(
        ("filters", "words"),
        [
            pytest.param({"states": [JobState.WAITING]}, ["waiting "], id="state"),
            pytest.param(
                {"states": [JobState.FAILED, JobState.QUEUED]}, ["failed ", "queued "], id="states"
            ),
            pytest.param({"provider": "openrouter"}, [" openrouter "], id="provider"),
            pytest.param({"lane": Lane.BATCH}, [" batch"], id="lane"),
            pytest.param(
                {"states": list(JobState), "provider": "ollama", "lane": Lane.BATCH},
                [" ollama batch"],
                id="all",
            ),
            pytest.param({"provider": "ollama", "lane": Lane.INTERACTIVE}, [], id="none"),
        ],
    )
    def test_a_list_has_what_matches(self, store, filters, words):
        """Every filter that is given has to fit, and of the states one."""
        kinds = self.of_all_kinds(store)
        page = store.listed(limit=100, **filters)

        assert [record.id for record in page.records] == [
            job_id for job_id, kind in reversed(kinds.items()) if any(w in kind for w in words)
        ]

    def test_a_page_that_is_full_goes_on_at_the_next_match(self, store):
        """Also when filters leave jobs out in between."""
        kinds = self.of_all_kinds(store)
        mine = [job_id for job_id, kind in reversed(kinds.items()) if "ollama" in kind]
        first = store.listed(provider="ollama", limit=3)
        rest = store.listed(provider="ollama", limit=100, after=first.after)

        assert [r.id for r in first.records] == mine[:3]
        assert [r.id for r in rest.records] == mine[3:]

    def test_a_job_that_is_gone_still_marks_a_place(self, store):
        """So that a walk goes on although the page it came from was removed meanwhile."""
        jobs = [self.admitted(store, id=made(10 - n)) for n in range(4)]
        page = store.listed(limit=2)
        for job in jobs[2:]:
            store.cancel(job.id)
        store.settle([job.id for job in jobs[2:]])

        rest = store.listed(after=page.after)
        assert page.after == jobs[2].id
        assert [record.id for record in rest.records] == [jobs[1].id, jobs[0].id]

    def test_a_list_looks_at_a_thousand_jobs_at_the_most(self, store, client):
        """What it did not look at comes on the pages that follow."""
        match = self.admitted(store, id=made(100), lane=Lane.BATCH)
        older = self.admitted(store, id=made(99))
        others = [made(50) for _ in range(1999)]
        client.zadd("jobs", dict.fromkeys(others, 0))
        first = store.listed(lane=Lane.BATCH)
        second = store.listed(lane=Lane.BATCH, after=first.after)
        third = store.listed(lane=Lane.BATCH, after=second.after)
        client.zrem("jobs", *others)

        assert (first.records, first.after) == ((), sorted(others)[-1000])
        assert (second.records, second.after) == ((), older.id)
        assert ([record.id for record in third.records], third.after) == ([match.id], None)

    def test_nothing_is_an_empty_list(self, store):
        """With no page after it."""
        page = store.listed(states=[JobState.QUEUED])

        assert (page.records, page.after) == ((), None)

    def test_a_job_that_is_made_again_is_listed_again(self, store, client):
        """Redis lost it, and its worker brought it back."""
        job = self.admitted(store)
        grant = self.start(store, job.id)
        client.flushdb()
        forgotten = store.listed()
        self.finish(store, grant)

        assert forgotten.records == ()
        assert [record.id for record in store.listed().records] == [job.id]

    def test_a_record_that_is_removed_is_listed_no_more(self, store, client):
        """At the end of its retention."""
        job, kept = self.admitted(store), self.admitted(store)
        store.cancel(job.id)
        client.zadd("terminal", {f"{job.id} cancelled": 1})
        store.retire()

        assert [record.id for record in store.listed().records] == [kept.id]

    # -- many at once

    def test_many_records_come_in_one_answer(self, store):
        """In the order asked for, with their answers; nothing for what does not exist."""
        kinds = self.of_all_kinds(store)
        asked = [*kinds, new_job_id()]
        found = store.records(asked)

        assert found[-1] is None
        assert found[:-1] == [replace(store.record(job_id), waiting=None) for job_id in kinds]
        assert store.records([]) == []

    def test_the_states_of_many_jobs_come_in_one_answer(self, store):
        """And nothing for what has no record."""
        kinds = self.of_all_kinds(store)
        asked = [new_job_id(), *kinds, new_job_id()]

        states = [None, *(kind.split()[0] for kind in kinds.values()), None]
        alive = {"queued", "waiting", "calling"}
        assert store.states(asked) == states
        assert store.states([]) == []
        assert store.over(asked) == [
            job_id for job_id, state in zip(asked, states, strict=True) if state not in alive
        ]
        assert store.over([]) == []

    # -- collected records

    def test_settling_removes_what_is_over_and_nothing_else(self, store, client):
        """As the end of its retention would, at once."""
        kinds = self.of_all_kinds(store)
        over = {i for i, kind in kinds.items() if JobState(kind.split()[0]).terminal}
        settled = store.settle([*kinds, new_job_id()])
        counters = store.counters()

        assert settled == len(over) == counters["retired"] == 8
        assert [state is None for state in store.states(list(kinds))] == [i in over for i in kinds]
        assert not [key for key in client.keys("*") if any(job_id in key for job_id in over)]
        assert client.zcard("terminal") == 0
        assert counters["succeeded"] == counters["expired"] == 0

    def test_settling_twice_is_settling_once(self, store, client):
        """Its caller may have missed the first answer."""
        job, other = self.admitted(store), self.admitted(store)
        store.cancel(job.id)
        first = store.settle([job.id, other.id, job.id])
        before = self.everything(client)

        assert (first, store.settle([job.id, other.id])) == (1, 0)
        assert self.everything(client) == before

    def test_any_number_of_jobs_is_settled(self, store, client):
        """In steps that do not hold Redis up."""
        jobs = [self.admitted(store) for _ in range(205)]
        for job in jobs:
            store.cancel(job.id)

        assert store.settle([job.id for job in jobs]) == 205
        assert client.zcard("jobs") == client.zcard("terminal") == 0

    def test_a_settled_job_is_not_retired_again(self, store):
        """Its retention would have ended some day."""
        job = self.admitted(store)
        store.cancel(job.id)
        store.settle([job.id])

        assert store.retire() == 0
        assert store.counters()["retired"] == 1

    # -- an id of the caller's choosing

    @pytest.mark.parametrize("state", list(JobState))
    def test_admitting_what_is_there_changes_nothing(self, store, client, state):
        """Whoever chooses the id may ask as often as it likes, whatever became of the job."""
        job = a_job(
            id=new_id("job_", 1_795_000_000_000, b"line 00007"),
            lane=Lane.BATCH,
            idempotency_key="k",
            body_hash="h",
        )
        store.admit(job)
        self.bring(store, job.id, state)
        before = self.everything(client)

        assert store.admit(job) == store.admit(replace(job, timeout_ms=1)) == store.admit(job)
        assert store.admit(job).job_id == job.id
        assert not store.admit(job).joined
        assert self.everything(client) == before

    def test_what_was_settled_can_be_admitted_anew(self, store, client):
        """Its id is free again: it is for the caller to remember what it has collected."""
        job = a_job(lane=Lane.BATCH)
        store.admit(job)
        store.cancel(job.id)
        store.settle([job.id])
        store.admit(job)

        assert store.record(job.id).state == "queued"
        assert (client.llen(QUEUE), client.zcard(f"queued:{BATCH}")) == (0, 1)

    # -- no record

    @pytest.mark.parametrize(
        ("sync_retention_s", "retention_s", "seconds_ago", "error"),
        [
            pytest.param(900, 86_400, 901, ResultExpired, id="old"),
            pytest.param(900, 86_400, 880, JobNotFound, id="young"),
            pytest.param(900, 86_400, 0, JobNotFound, id="just-made"),
            pytest.param(900, 86_400, -3600, JobNotFound, id="of-the-future"),
            pytest.param(900, 600, 700, ResultExpired, id="the-shorter-one-decides"),
        ],
    )
    def test_an_id_that_is_too_old_had_a_record_perhaps(
        self, store, config, sync_retention_s, retention_s, seconds_ago, error
    ):
        """An id tells its age: records of that time may have been removed, younger ones not."""
        own = replace(config, sync_retention_s=sync_retention_s, retention_s=retention_s)
        asked = JobStore(store.redis, own)
        job_id = made(seconds_ago)
        for ask in (asked.record, asked.cancel, lambda i: asked.watch(i, "channel")):
            with pytest.raises(error) as refusal:
                ask(job_id)

            assert refusal.value.job_id == job_id
            assert job_id in refusal.value.message

    def test_an_old_id_is_told_how_long_records_are_kept(self, store):
        """Both retentions by name, since nobody knows which one it was."""
        with pytest.raises(ResultExpired, match=r"sync_retention_s = 900 .* retention_s = 86400"):
            store.record(new_id("job_", 0))

    def test_an_old_job_that_has_a_record_is_there(self, store):
        """Its age alone says nothing."""
        job = self.admitted(store, id=made(10**6))

        assert store.record(job.id).state == "queued"
