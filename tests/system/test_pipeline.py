"""Scripts of many threads in one round trip on a real Redis, and what may happen to that."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from chat.connection import connect
from chat.errors import QueueUnavailable
from chat.settings import ChatdConfig
from chat.store import Admitted, JobStore
from tests.store_base import a_job
from tests.waiting import eventually

CALLERS = 60
#: No call takes longer than this, whatever Redis does: (retries + 1) * timeout_s and the pauses.
TIMEOUT_S, RETRIES = 0.5, 2
BOUND_S = (RETRIES + 1) * TIMEOUT_S + 0.5


@pytest.fixture
def pool():
    with ThreadPoolExecutor(CALLERS) as threads:
        yield threads


@pytest.fixture(params=[1, 8], ids=["one connection", "eight"])
def store(redis_server, request, monkeypatch):
    """Of eight connections each is taken as soon as a few callers wait."""
    monkeypatch.setattr("chat.pipeline._CROWD", 2)
    monkeypatch.setattr("chat.pipeline._MOST_COMMANDS", 8 if request.param > 1 else 128)
    client = connect(redis_server.url, timeout_s=TIMEOUT_S, retries=RETRIES)
    store = JobStore(client, ChatdConfig(), pipelined=request.param)
    store.register_settings(["ollama"])
    yield store
    client.close()


def admit_many(store, pool, each=20):
    """Jobs of many threads, and what became of them."""

    def admit(_):
        jobs = [a_job() for _ in range(each)]
        return [(job.id, store.admit(job)) for job in jobs]

    return [pool.submit(admit, number) for number in range(CALLERS)]


def accepted_more_than(store, count):
    return store.counters().get("accepted", 0) > count


def test_many_callers_get_their_own_replies(store, pool, redis_server):
    """In far fewer round trips than there are calls."""
    store.admit(a_job())
    before = redis_server.client.info("stats")["total_reads_processed"]
    done = [pair for future in admit_many(store, pool) for pair in future.result(30)]
    trips = redis_server.client.info("stats")["total_reads_processed"] - before

    assert all(admitted == Admitted(job_id) for job_id, admitted in done)
    assert store.counters()["accepted"] == CALLERS * 20 + 1
    assert trips < CALLERS * 20 / 2


def test_connections_that_are_cut_cost_no_call(store, pool, redis_server):
    """In the middle of a batch: what has no reply is sent again, and nothing is done twice."""
    store.admit(a_job())
    over = threading.Event()
    cuts = []

    def cut():
        while not over.wait(0.01):
            cuts.append(redis_server.client.client_kill_filter(_type="normal", skipme=True))

    cutter = threading.Thread(target=cut)
    futures = admit_many(store, pool)
    cutter.start()
    try:
        results = [future.exception(30) or future.result() for future in futures]
    finally:
        over.set()
        cutter.join()
    done = [pair for result in results if isinstance(result, list) for pair in result]

    assert all(admitted == Admitted(job_id) for job_id, admitted in done)
    # Three cuts in a row are trouble that callers hear of.
    assert all(isinstance(result, (list, QueueUnavailable)) for result in results)
    assert sum(cuts) > 3
    assert len(done) <= store.counters()["accepted"] <= CALLERS * 20 + 1
    assert store.record(done[0][0]).state == "queued"


def test_a_server_that_lost_the_scripts_costs_no_call(store, pool, redis_server):
    """Each SCRIPT FLUSH is as a restart is."""
    futures = admit_many(store, pool)
    for part in (1, 2, 3):
        eventually(partial(accepted_more_than, store, part * CALLERS * 4))
        redis_server.client.script_flush()
    done = [pair for future in futures for pair in future.result(30)]

    assert all(admitted == Admitted(job_id) for job_id, admitted in done)
    assert store.counters()["accepted"] == CALLERS * 20


def test_a_script_that_fails_fails_its_own_caller_alone(store, pool, redis_server):
    """A key that was changed by hand stops one job's script, not those that travel with it."""
    broken = [a_job() for _ in range(10)]
    for job in broken:
        redis_server.client.set(f"job:{job.id}", "by hand")

    def cancel(job):
        with pytest.raises(QueueUnavailable, match="defect of chatd"):
            store.cancel(job.id)

    futures = admit_many(store, pool)
    for job in broken:
        cancel(job)
    done = [pair for future in futures for pair in future.result(30)]

    assert all(admitted == Admitted(job_id) for job_id, admitted in done)
    assert store.counters()["accepted"] == CALLERS * 20


def test_nobody_waits_longer_for_a_redis_that_is_frozen(store, pool, redis_server):
    """However many wait, each hears within the bound of one call; afterwards all goes on."""
    store.admit(a_job())
    redis_server.pause()

    def admit(number):
        time.sleep(number % 20 / 20)  # They come one after the other, some late in others' trouble.
        began = time.monotonic()
        with pytest.raises(QueueUnavailable):
            store.admit(a_job())
        return time.monotonic() - began

    waited = list(pool.map(admit, range(CALLERS)))
    redis_server.resume()
    eventually(redis_server.client.ping)

    assert max(waited) < BOUND_S
    assert store.admit(job := a_job()) == Admitted(job.id)


def test_a_redis_that_was_restarted_is_found_again(store, pool, redis_server):
    """Calls fail while it is away, and go on when it is back, on a new connection."""
    store.admit(a_job())
    redis_server.kill()
    with pytest.raises(QueueUnavailable):
        store.admit(a_job())
    redis_server.start()
    done = [pair for future in admit_many(store, pool, each=2) for pair in future.result(30)]

    assert all(admitted == Admitted(job_id) for job_id, admitted in done)
