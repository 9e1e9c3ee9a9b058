"""What the keeper takes for dead or lost, on a clock the test moves."""

from __future__ import annotations

import random
import threading

import fakeredis
import pytest
import redis

from chat.config import ChatdConfig
from chat.jobs import queue_name
from chat.store import JobStore
from chat.types import Lane
from chat.upkeep import Call
from tests.store_suite import a_job
from workers.keeper import Keeper, LeaseWatch, QueueWatch


def test_a_lease_is_overdue_after_a_full_period_without_renewal():
    """Counted from when this keeper first saw that renewal."""
    watch = LeaseWatch(30.0)
    call = Call("job_a", "t", 1000)
    seen = [watch.overdue([call], now) for now in (0.0, 29.9, 30.0)]

    assert seen == [[], [], [call]]


def test_a_renewed_lease_begins_a_new_period():
    """Whatever the renewal time says, only that it changed counts: no clocks are compared."""
    watch = LeaseWatch(30.0)
    watch.overdue([Call("job_a", "t", 1000)], 0.0)
    renewed = Call("job_a", "t", 5)

    assert watch.overdue([renewed], 29.0) == []
    assert watch.overdue([renewed], 58.9) == []
    assert watch.overdue([renewed], 59.0) == [renewed]


def test_after_an_outage_every_lease_gets_its_full_period():
    """A pause of Redis must kill no healthy call."""
    watch = LeaseWatch(30.0)
    call = Call("job_a", "t", 1000)
    watch.overdue([call], 0.0)
    watch.forget()

    assert watch.overdue([call], 40.0) == []
    assert watch.overdue([call], 70.0) == [call]


def test_a_wake_up_is_lost_when_a_later_one_was_started_a_period_ago():
    """Not before: the worker that popped it may be between pop and start."""
    watch = QueueWatch(30.0)
    looks = [
        watch.lost_below(seq, mark, empty=False, now=now)
        for now, seq, mark in [(0.0, 50, 0), (1.0, 50, 10), (30.0, 60, 20), (31.0, 60, 25)]
    ]

    assert looks == [(-1, False), (-1, False), (-1, False), (9, False)]


def test_an_empty_list_means_everything_older_than_a_period_is_lost():
    """Young wake-ups may be in a worker's hand."""
    watch = QueueWatch(30.0)
    watch.lost_below(5, 0, empty=True, now=0.0)
    watch.lost_below(8, 0, empty=True, now=10.0)

    assert watch.lost_below(9, 0, empty=True, now=30.0) == (5, True)
    assert watch.lost_below(9, 0, empty=True, now=40.0) == (8, True)


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_backlog_is_never_taken_for_lost(seed):
    """Workers start wake-ups in order but for a few seconds; nothing ever counts as lost."""
    chance = random.Random(seed)
    watch = QueueWatch(30.0)
    waiting: list[int] = []
    hands: list[tuple[int, float]] = []
    lost: list[int] = []
    seq, mark, now = 0, 0, 0.0
    for _ in range(2000):
        now += 1.0
        for _ in range(chance.randrange(4)):
            seq += 1
            waiting.append(seq)
        while waiting and len(hands) < 8:
            hands.append((waiting.pop(0), now + chance.uniform(0, 20)))
        for hand in [h for h in hands if h[1] <= now]:
            hands.remove(hand)
            mark = max(mark, hand[0])
        upto, only_if_empty = watch.lost_below(seq, mark, empty=not waiting, now=now)
        if not only_if_empty or not waiting:
            lost += [n for n in waiting if n <= upto] + [n for n, _ in hands if n <= upto]

    assert lost == []
    assert mark > 1000


class BrokenRedis(fakeredis.FakeRedis):
    """A server that can be taken away."""

    broken = False

    used_memory, maxmemory = 10, 0

    def info(self, section=None, *_args, **_options):
        """What the fake server has no command for."""
        assert section == "memory"
        return {"used_memory": self.used_memory, "maxmemory": self.maxmemory}

    def execute_command(self, *args, **options):
        if self.broken:
            message = "gone"
            raise redis.ConnectionError(message)
        return super().execute_command(*args, **options)


@pytest.fixture
def house():
    """A keeper on a clock of its own: (keeper, store, client, clock)."""
    client = BrokenRedis(decode_responses=True)
    store = JobStore(client, ChatdConfig())
    clock = [0.0]
    store.register_envelopes({queue_name("ollama", Lane.INTERACTIVE): "@JOB@"})
    store.register_settings(["ollama"])
    return Keeper(store, ["ollama"], clock=lambda: clock[0]), store, client, clock


def run(keeper, clock, seconds):
    for _ in range(seconds):
        clock[0] += 1.0
        keeper.tick()


def test_the_keeper_gives_up_a_call_that_nobody_renews(house):
    """After thirty seconds of its own clock, and not before."""
    keeper, store, _, clock = house
    job = a_job()
    store.admit(job)
    store.start(job.id, worker="w", token="t")
    run(keeper, clock, 30)
    before = store.record(job.id).state
    run(keeper, clock, 1)

    assert before == "calling"
    assert store.record(job.id).error["code"] == "outcome_unknown"


def test_an_outage_gives_every_call_its_full_period_again(house):
    """The keeper saw nothing while Redis was away."""
    keeper, store, client, clock = house
    job = a_job()
    store.admit(job)
    store.start(job.id, worker="w", token="t")
    run(keeper, clock, 20)
    client.broken = True
    run(keeper, clock, 20)
    client.broken = False
    run(keeper, clock, 30)

    assert store.record(job.id).state == "calling"


def test_a_keeper_that_stood_still_gives_every_call_its_period_again(house):
    """The whole machine was frozen, the workers with it."""
    keeper, store, _, clock = house
    job = a_job()
    store.admit(job)
    store.start(job.id, worker="w", token="t")
    run(keeper, clock, 5)
    clock[0] += 40.0
    run(keeper, clock, 5)

    assert store.record(job.id).state == "calling"


def test_a_redis_that_lost_its_data_gets_its_envelopes_again():
    """Without them no wake-up could ever be sent."""
    client = BrokenRedis(decode_responses=True)
    store = JobStore(client, ChatdConfig())
    clock = [0.0]
    keeper = Keeper(store, ["ollama"], envelopes={"chat.ollama": "@JOB@"}, clock=lambda: clock[0])
    run(keeper, clock, 1)
    client.flushall()
    run(keeper, clock, 2)

    assert client.get("envelope:chat.ollama") == "@JOB@"


def test_the_keeper_sends_a_lost_wake_up_again(house):
    """The list is empty and the job is old enough."""
    keeper, store, client, clock = house
    job = a_job()
    store.admit(job)
    client.delete("chat.ollama")
    run(keeper, clock, 30)
    before = client.llen("chat.ollama")
    run(keeper, clock, 1)

    assert (before, client.lrange("chat.ollama", 0, -1)) == (0, [job.id])


def test_the_keeper_ends_due_jobs_and_removes_old_records(house):
    """Deadlines within a tick; retention after its time."""
    keeper, store, client, clock = house
    due, old = a_job(timeout_ms=0), a_job()
    for job in (due, old):
        store.admit(job)
    store.cancel(old.id)
    client.zadd("terminal", {f"{old.id} cancelled": 1})
    run(keeper, clock, 2)

    assert store.record(due.id).state == "expired"
    assert not client.exists(f"job:{old.id}")


def test_of_two_keepers_one_works(house):
    """The lock saves the other the work, and it takes over when the first is gone."""
    keeper, store, client, clock = house
    second = Keeper(store, ["ollama"], clock=lambda: clock[0])
    job = a_job(timeout_ms=0)
    run(keeper, clock, 1)
    store.admit(job)
    run(second, clock, 1)
    idle = store.record(job.id).state
    client.delete("chatd:keeper")
    run(second, clock, 1)

    assert (idle, store.record(job.id).state) == ("queued", "expired")


def test_the_wake_ups_of_a_drained_provider_are_not_lost(house):
    """One that went back to the front was overtaken for good; nor are they right after the end."""
    keeper, store, client, clock = house
    jobs = [a_job() for _ in range(4)]
    for job in jobs:
        store.admit(job)
    client.rpop("chat.ollama")
    client.rpop("chat.ollama")
    store.start(jobs[1].id, worker="w", token="t")
    store.drain("ollama")
    went_back = store.start(jobs[0].id, worker="w", token="u")
    backlog = client.lrange("chat.ollama", 0, -1)
    run(keeper, clock, 120)
    drained = client.lrange("chat.ollama", 0, -1)
    store.resume("ollama")
    run(keeper, clock, 29)
    resumed = client.lrange("chat.ollama", 0, -1)

    assert went_back.kind == "back"
    assert backlog == drained == resumed == [jobs[3].id, jobs[2].id, jobs[0].id]
    assert "republished" not in store.counters()


def test_a_wake_up_that_was_lost_is_sent_again_after_the_end_of_a_drain(house):
    """It is looked for anew from then on."""
    keeper, store, client, clock = house
    store.drain("ollama")
    store.admit(job := a_job())
    client.delete("chat.ollama")
    run(keeper, clock, 60)
    before = client.llen("chat.ollama")
    store.resume("ollama")
    run(keeper, clock, 31)

    assert (before, client.lrange("chat.ollama", 0, -1)) == (0, [job.id])


def test_a_keeper_that_is_told_to_stop_leaves_its_place_at_once(house):
    """The next one would find it taken for five seconds, and bring back no parked job meanwhile."""
    keeper, store, client, clock = house
    second = Keeper(store, ["ollama"], clock=lambda: clock[0])
    stop = threading.Event()
    stop.set()
    run(keeper, clock, 1)
    run(second, clock, 1)
    second.run(stop)
    taken = client.get("chatd:keeper")
    keeper.run(stop)

    assert taken is not None
    assert client.get("chatd:keeper") is None


def test_a_keeper_that_cannot_leave_its_place_ends_all_the_same(house, caplog):
    """It runs out by itself."""
    keeper, _, client, clock = house
    stop = threading.Event()
    stop.set()
    run(keeper, clock, 1)
    client.broken = True
    keeper.run(stop)

    assert "left to run out" in caplog.text
