"""Callers with keys: whose jobs are whose, and how many calls one of them may make."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chat.access import Caller
from chat.errors import ClientLimited, JobNotFound
from chat.jobs import new_job_id
from chat.store import JobStore
from tests.store_base import StoreBase

HERS, HIS = "alice", "bob"


def refused(store: JobStore, client: Caller, call: str) -> ClientLimited:
    """The refusal of a call."""
    with pytest.raises(ClientLimited) as caught:
        store.begin_call(client, call)
    return caught.value


class StoreClients(StoreBase):
    """Owners and limits of keys."""

    def test_a_job_has_an_owner(self, store):
        """In its record and in lists; whose is somebody else's is not there."""
        hers, his, nobodys = (
            self.admitted(store, id=new_job_id(), owner=owner).id for owner in (HERS, HIS, "")
        )

        assert [store.record(job_id).owner for job_id in (hers, his, nobodys)] == [HERS, HIS, ""]
        assert [job.id for job in store.listed(owner=HERS).records] == [hers]
        assert {job.id: job.owner for job in store.listed().records} == {
            hers: HERS,
            his: HIS,
            nobodys: "",
        }
        store.check_owner(hers, HERS)
        store.check_owner(hers, None)
        for job_id in (hers, nobodys, new_job_id()):
            with pytest.raises(JobNotFound, match=f"job {job_id}: no such job"):
                store.check_owner(job_id, HIS)

    def test_a_page_has_one_owners_jobs_alone(self, store):
        """However many of others lie between them."""
        made = [
            self.admitted(store, id=new_job_id(), owner=(HERS, HIS)[number % 2]).id
            for number in range(20)
        ]
        pages = [store.listed(owner=HERS, limit=4)]
        while pages[-1].after:
            pages.append(store.listed(owner=HERS, limit=4, after=pages[-1].after))

        assert [job.id for page in pages for job in page.records] == sorted(made[::2], reverse=True)

    def test_calls_at_the_same_time_have_a_bound(self, store):
        """One that ends makes room; one that is sent twice counts once."""
        client = Caller(HERS, concurrency=2)
        for call in ("a", "b", "b"):
            store.begin_call(client, call)
        error = refused(store, client, "c")
        store.begin_call(replace(client, name=HIS), "c")
        store.end_call(client, "a")
        store.begin_call(client, "c")

        assert "alice may have 2 calls open" in error.message
        assert error.retryable

    def test_a_call_that_nobody_ends_counts_for_a_while(self, store, config):
        """Its front end has died; the lease is longer than a call may take."""
        client = Caller(HERS, concurrency=1)
        store.begin_call(client, "a")
        left = store.redis.pttl("client:alice:calls") / 1000

        assert config.timeout_s < left <= config.timeout_s + 30
        store.redis.zadd("client:alice:calls", {"a": 1})
        store.begin_call(client, "b")

    def test_calls_a_minute_have_a_bound(self, store):
        """A sixth of them at once, then one after the other."""
        client = Caller(HERS, requests_per_minute=60)
        for number in range(10):
            store.begin_call(client, str(number))
        error = refused(store, client, "one more")

        assert "may make 60 calls a minute" in error.message
        assert error.retry_after_s is not None
        assert 0 < error.retry_after_s <= 1
        for passed_ms, more in ((1_000, 1), (4_000, 4), (3_600_000, 10)):
            self.let_pass(store, passed_ms)
            begun = 0
            while True:
                try:
                    store.begin_call(client, f"{passed_ms} {begun}")
                except ClientLimited:
                    break
                begun += 1
            assert begun in {more, more + 1}  # A test may take a second.

    def let_pass(self, store: JobStore, milliseconds: int) -> None:
        """Move what is due, since time cannot be set."""
        due = int(str(store.redis.get("client:alice:due"))) - milliseconds
        store.redis.set("client:alice:due", due)

    def test_a_refused_call_costs_nothing(self, store):
        """Neither of the rate, nor of the calls at the same time."""
        client = Caller(HERS, requests_per_minute=6, concurrency=1)
        store.begin_call(client, "a")
        due = store.redis.get("client:alice:due")
        refused(store, client, "b")
        store.end_call(client, "a")
        refused(store, client, "c")

        assert store.redis.get("client:alice:due") == due
        assert store.redis.zcard("client:alice:calls") == 0

    def test_nothing_stays_of_a_client_that_went(self, store):
        """What is stored has an end."""
        client = Caller(HERS, requests_per_minute=60, concurrency=1)
        store.begin_call(client, "a")

        for key in ("client:alice:due", "client:alice:calls"):
            assert 0 < store.redis.pttl(key) < 300_000
