"""Waiting for jobs through the reply channel, on a fake server."""

from __future__ import annotations

import fakeredis
import pytest

from chat.config import ChatdConfig
from chat.replies import Replies
from chat.store import Grant, JobStore
from tests.store_suite import StoreSuite, a_job


@pytest.fixture
def client():
    return fakeredis.FakeRedis(decode_responses=True)


@pytest.fixture
def store(client):
    store = JobStore(client, ChatdConfig())
    store.register_settings(["ollama"])
    return store


@pytest.fixture
def replies(client, store):
    return Replies(client, store)


def run(store, job, content="Paris"):
    grant = store.start(job.id, worker="w", token=job.id)
    assert isinstance(grant, Grant)
    StoreSuite().finish(store, grant, payload={"content": content})


def test_the_answer_reaches_the_waiter(store, replies):
    """Registered before admission, so that not even an instant answer is missed."""
    job = a_job()
    with replies.expect(job.id) as waiter:
        store.admit(a_job(id=job.id, reply_to=replies.channel))
        run(store, job)

        assert waiter.wait(10).response == {"content": "Paris"}


def test_each_waiter_gets_its_own(store, replies):
    """A hundred at once, answered in another order."""
    jobs = [a_job(reply_to=replies.channel) for _ in range(100)]
    waiters = [replies.expect(job.id) for job in jobs]
    for job in jobs:
        store.admit(job)
    for job in reversed(jobs):
        run(store, job, job.id)

    assert [waiter.wait(10).response["content"] for waiter in waiters] == [job.id for job in jobs]


def test_two_waiters_for_one_job_both_get_it(store, replies):
    """A joined Idempotency-Key."""
    job = a_job(reply_to=replies.channel)
    first, second = replies.expect(job.id), replies.expect("job_other")
    store.admit(job)
    replies.rename(second, job.id)
    run(store, job)

    assert first.wait(10) == second.wait(10)


def test_a_job_that_ended_before_it_was_joined_is_found(store, replies):
    """Nobody here waited for its id when the message came; the sweep would need two seconds."""
    job = a_job(reply_to=replies.channel)
    first, second = replies.expect(job.id), replies.expect("job_other")
    store.admit(job)
    run(store, job)
    told = first.wait(10)
    replies.rename(second, job.id)

    assert second.outcome == told


def test_a_large_answer_is_fetched(store, replies):
    """It is announced by its id alone."""
    job = a_job(reply_to=replies.channel)
    waiter = replies.expect(job.id)
    store.admit(job)
    run(store, job, "x" * 100_000)

    assert len(waiter.wait(10).response["content"]) == 100_000


def test_a_lost_message_is_made_good_by_the_key(store, replies):
    """Nobody told this process, and the sweep finds the result all the same."""
    job = a_job(reply_to=None)
    waiter = replies.expect(job.id)
    store.admit(job)
    run(store, job)

    assert waiter.wait(10).response == {"content": "Paris"}


def test_wake_ends_the_wait_without_an_answer(replies):
    """The caller has gone."""
    job = a_job()
    waiter = replies.expect(job.id)
    waiter.wake()

    assert waiter.wait(10) is None


def test_a_waiter_that_leaves_is_forgotten(replies):
    """Nothing is kept for callers that are no longer there."""
    with replies.expect("job_a"):
        pass

    assert replies._waiting == {}
