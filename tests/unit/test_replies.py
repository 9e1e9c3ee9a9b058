"""Waiting for jobs through the reply channel, on a fake server."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from functools import partial

import fakeredis
import pytest

from chat import replies as replies_module
from chat.config import ChatdConfig
from chat.errors import QueueFull, QueueUnavailable
from chat.follower import Follower
from chat.replies import Replies
from chat.store import Grant, JobStore
from tests.events import say
from tests.store_base import new_life
from tests.store_suite import StoreSuite, a_job
from tests.waiting import eventually


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


def test_a_wait_that_is_over_holds_nothing(replies):
    """The request of the job that it would have admitted again is freed at once."""
    gc.disable()
    try:
        with replies.expect(a_job().id) as waiter:
            waiter.again = partial(waiter.deliver, None)
            gone = weakref.ref(waiter)
        del waiter
        left = gone()
    finally:
        gc.enable()

    assert left is None


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


def test_a_wake_is_for_one_wait(store, replies):
    """Whoever was woken and waits on is told the job's end as before."""
    job = a_job(reply_to=replies.channel)
    waiter = replies.expect(job.id)
    waiter.wake()
    woken = waiter.wait(10)
    waits_again = not waiter._event.is_set()
    store.admit(job)
    run(store, job)

    assert (woken, waits_again) == (None, True)
    assert waiter.wait(10).response == {"content": "Paris"}


def test_an_end_that_is_told_before_the_wait_is_not_missed(store, replies):
    """Nor one that comes together with a wake."""
    job = a_job(reply_to=replies.channel)
    waiter = replies.expect(job.id)
    store.admit(job)
    run(store, job)
    told = waiter.wait(10)
    waiter.wake()

    assert waiter.wait(10) is waiter.wait(0) is told


def test_a_waiter_that_leaves_is_forgotten(replies):
    """Nothing is kept for callers that are no longer there."""
    with replies.expect("job_a"):
        pass

    assert replies._waiting == {}


def test_a_forgotten_job_is_admitted_again(store, replies, client):
    """Its caller still waits; one that Redis has is left alone, and so is a poll."""
    jobs = [a_job(reply_to=replies.channel) for _ in range(3)]
    waiters = [replies.expect(job.id) for job in jobs]
    for job, waiter in zip(jobs, waiters, strict=True):
        store.admit(job)
        waiter.again = lambda job=job: store.admit(job)
    waiters[2].again = None
    client.delete(f"job:{jobs[1].id}", f"job:{jobs[2].id}")
    replies._admit_forgotten()
    run(store, jobs[1])

    assert waiters[1].wait(10).response == {"content": "Paris"}
    assert store.states([job.id for job in jobs]) == ["queued", "succeeded", None]
    assert store.counters()["accepted"] == 4


def test_a_caller_hears_why_a_forgotten_job_is_not_taken_again(replies):
    """Others came first, and the queue is full now."""

    def again():
        message = "the queue is full"
        raise QueueFull(message, retry_after_s=3)

    job = a_job(reply_to=replies.channel)
    waiter = replies.expect(job.id)
    waiter.again = again
    replies._admit_forgotten()
    outcome = waiter.wait(10)

    assert outcome.error == {
        "code": "queue_full",
        "message": "the queue is full",
        "retry_after_s": 3,
    }
    with pytest.raises(QueueFull):
        outcome.raise_error()


def test_a_new_life_of_redis_is_looked_at(replies, client, monkeypatch):
    """Without one nothing can have been forgotten, and the first that is seen is not new."""
    looks: list[int] = []
    monkeypatch.setattr(replies, "_admit_forgotten", lambda: looks.append(len(looks)))
    replies._look_at_life(0.0)
    replies._look_at_life(0.0)
    before = list(looks)
    new_life(client)
    replies._look_at_life(0.0)
    replies._look_at_life(0.0)

    assert (before, looks) == ([], [0])


def test_a_new_life_is_looked_at_until_all_is_admitted(replies, client, monkeypatch):
    """Redis may go away once more in the middle."""

    def fail():
        raise QueueUnavailable("away")

    replies._look_at_life(0.0)
    new_life(client)
    monkeypatch.setattr(replies, "_admit_forgotten", fail)
    with pytest.raises(QueueUnavailable):
        replies._look_at_life(0.0)
    looked = threading.Event()
    monkeypatch.setattr(replies, "_admit_forgotten", looked.set)
    replies._look_at_life(0.0)

    assert looked.is_set()


@pytest.mark.parametrize("message", [{"type": "subscribe", "data": 1}, None])
def test_redis_is_asked_for_its_life(replies, monkeypatch, message):
    """At each subscription, and every two seconds: a dead connection may bring nothing at all."""
    looked = threading.Event()
    monkeypatch.setattr(replies, "_look_at_life", lambda _: looked.set())
    monkeypatch.setattr(replies_module, "_SWEEP_S", 0.0)
    with pytest.raises(StopIteration):
        replies._drain(Scripted([message]), threading.Event())

    assert looked.is_set()


def test_an_accepted_job_is_admitted_again(store, replies, client):
    """Nobody waits for it, but its caller was told that it is accepted."""
    jobs = [a_job() for _ in range(3)]
    for job in jobs:
        store.admit(job)
        replies.remember(job, 100)
    run(store, jobs[2])
    client.zadd("terminal", {f"{jobs[2].id} succeeded": 1})
    store.retire()
    client.delete(f"job:{jobs[0].id}")
    replies._admit_forgotten()

    # The last one is gone since its retention has ended.
    assert store.states([job.id for job in jobs]) == ["queued", "queued", None]


def test_an_accepted_job_that_is_refused_this_time_is_told_of(replies, caplog, monkeypatch):
    """The log is the only place that is left."""

    def admit(_, **_more):
        message = "the queue is full"
        raise QueueFull(message)

    monkeypatch.setattr(replies._store, "admit", admit)
    job = a_job()
    replies.remember(job, 100)
    replies._admit_forgotten()

    assert f"job {job.id} was forgotten by Redis and is refused this time" in caplog.text


def test_accepted_jobs_are_remembered_for_seconds_and_up_to_a_size(replies, monkeypatch):
    """By then they are on Redis' disk; and the oldest go first when there are too many."""
    now = [1000.0]
    old, big, young = a_job(), a_job(), a_job()
    monkeypatch.setattr("chat.replies.time.monotonic", lambda: now[0])
    monkeypatch.setattr("chat.memory._MOST", 200)
    replies.remember(old, 100)
    now[0] += 4
    for job in (big, young):
        replies.remember(job, 100)
    first = replies._recent.all()
    replies._look_at_life(now[0] + 4)
    still = len(replies._recent.all())
    replies._look_at_life(now[0] + 6)

    assert (first, still, replies._recent.all(), replies._recent._size) == ([big, young], 2, [], 0)


def test_what_is_remembered_is_kept_while_redis_says_nothing(replies, monkeypatch):
    """However long: it may have forgotten it."""

    def away():
        raise QueueUnavailable("away")

    replies.remember(a_job(), 100)
    monkeypatch.setattr(replies._store, "life", away)
    with pytest.raises(QueueUnavailable):
        replies._look_at_life(1e9)

    assert len(replies._recent.all()) == 1


def deliver(client, channel, job_id, *texts, begin=1, told=True, large=False):
    """Pieces as the script delivers them: kept, then told on the channel, all in one message."""
    events = []
    for number, text in enumerate(texts, begin):
        delta = say(text).to_wire()
        client.xadd(f"stream:{job_id}", {"d": json.dumps(delta)}, id=f"1-{number}")
        events.append([job_id, 1, number, None if large else delta])
    if told:
        client.publish(channel, json.dumps({"events": events}))


def taken(waiter, count):
    """The next pieces of a waiter, once there are so many."""
    found = []

    def enough():
        found.extend(waiter.follower.take())
        return len(found) >= count

    eventually(enough, within_s=10, what=f"{count} pieces")
    return [(str(place), delta.text) for place, delta in found]


@pytest.fixture
def follower(store, replies):
    """A waiter of one job that follows its pieces."""
    waiter = replies.expect(a_job().id)
    waiter.follower = Follower(partial(store.events, waiter.job_id))
    return waiter


def test_pieces_reach_their_follower_and_wake_it(client, replies, follower):
    """Those of other jobs do not, nor those of jobs that nobody follows here."""
    plain = replies.expect("job_plain")
    channel = replies.channel
    for job_id in ("job_other", "job_plain"):
        deliver(client, channel, job_id, "x")
    deliver(client, channel, follower.job_id, "a", "b")

    assert follower.wait(10) is None
    assert taken(follower, 2) == [("1-1", "a"), ("1-2", "b")]
    assert not plain._event.is_set()


def test_two_followers_of_a_job_have_all_pieces_each(client, store, replies, follower):
    """A key that came twice."""
    other = replies.expect(follower.job_id)
    other.follower = Follower(partial(store.events, follower.job_id))
    deliver(client, replies.channel, follower.job_id, "a", "b")

    assert taken(follower, 2) == taken(other, 2) == [("1-1", "a"), ("1-2", "b")]


def test_the_end_comes_behind_the_pieces(client, store, replies, follower):
    """They are there when the waiter is told of it."""
    job = a_job(id=follower.job_id, reply_to=replies.channel)
    store.admit(job)
    deliver(client, replies.channel, job.id, "Pa", "ris")
    run(store, job)
    eventually(lambda: follower.wait(1) is not None, within_s=10, what="the end")

    assert [delta.text for _, delta in follower.follower.take()] == ["Pa", "ris"]


@pytest.mark.parametrize("lost", [{"told": False}, {"large": True}], ids=["lost", "large"])
def test_what_the_channel_does_not_tell_is_read(client, replies, follower, lost):
    """A message that was lost, or a piece that is too large for it."""
    channel = replies.channel
    deliver(client, channel, follower.job_id, "a")
    deliver(client, channel, follower.job_id, "b", begin=2, **lost)
    deliver(client, channel, follower.job_id, "c", begin=3)

    assert taken(follower, 3) == [("1-1", "a"), ("1-2", "b"), ("1-3", "c")]


def test_each_subscription_lets_followers_look(client, replies, follower):
    """Nobody listened meanwhile, and no further piece may come for long."""
    channel = replies.channel
    deliver(client, channel, follower.job_id, "a", told=False)
    first = follower.follower.take()
    with pytest.raises(StopIteration):
        replies._drain(Scripted([{"type": "subscribe", "data": 1}]), threading.Event())

    assert first == []
    assert follower.wait(10) is None
    assert taken(follower, 1) == [("1-1", "a")]


def test_pieces_are_read_behind_an_entry(client, store):
    """As the job's stream in Redis has them."""
    deliver(client, "nowhere", "job_a", "a", "b", "c")

    assert store.events("job_a") == [("1-1", say("a")), ("1-2", say("b")), ("1-3", say("c"))]
    assert store.events("job_a", "1-2") == [("1-3", say("c"))]
    assert store.events("job_a", "1-3") == store.events("job_b") == []


def test_where_a_job_stands_can_be_asked_for(store):
    """As its record tells it, and without all the rest of that."""
    jobs = [a_job() for _ in range(2)]
    for job in jobs:
        store.admit(job)
    found = [store.waiting(job.id) for job in jobs]
    run(store, jobs[0])

    assert [(one["reason"], one["position"]) for one in found] == [("queue", 1), ("queue", 2)]
    assert set(found[0]) == set(store.record(jobs[1].id).waiting)
    assert (store.waiting(jobs[0].id), store.waiting("job_nowhere")) == (None, None)


class Scripted:
    """A subscription that brings these messages and ends."""

    def __init__(self, messages):
        self.messages = iter(messages)

    def get_message(self, timeout):
        assert timeout >= 0
        return next(self.messages)
