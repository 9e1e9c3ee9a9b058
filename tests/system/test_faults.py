"""Things break, and every job still ends exactly once. The long versions are in bench/faults.py."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis.exceptions import ReadOnlyError

from chat.connection import connect
from cli.redis_server import free_port
from tests.stack import Stack
from tests.waiting import eventually


@pytest.fixture
def stack(upstream, tmp_path):
    stack = Stack(tmp_path, {"ollama": upstream.url})
    yield stack.start()
    upstream.release()
    stack.stop()


def test_a_killed_worker_loses_no_job(stack, upstream):
    """Calls that ran end as their policy says, those that waited are answered."""
    upstream.hold()
    with ThreadPoolExecutor(20) as pool:
        ran = [pool.submit(stack.chat, f"ran {n}") for n in range(4)]
        eventually(lambda: upstream.in_flight == 4)
        batch = [stack.submit(f"batch {n}") for n in range(4)]
        eventually(lambda: upstream.in_flight == 8)
        later = [pool.submit(stack.chat, f"later {n}") for n in range(16)]
        eventually(lambda: stack.store.counters()["queued"] == 16)
        stack.workers["ollama"].kill()
        upstream.release()
        stack.workers["ollama"].start()
        codes = [future.result().json()["error"]["code"] for future in ran]
        answers = [future.result().json()["content"] for future in later]
    records = [stack.ended(job_id) for job_id in batch]

    assert codes == ["outcome_unknown"] * 4
    assert answers == [f"echo: later {n}" for n in range(16)]
    assert {record["state"] for record in records} == {"succeeded"}
    assert [[a["outcome"] for a in record["attempts"]] for record in records] == [
        ["lost", "succeeded"]
    ] * 4
    # 28 calls were made for 24 jobs; the ledger has each of the four more.
    assert upstream.calls.total() == 28
    assert stack.balanced()["reclaimed"] == 8


def test_a_restart_of_redis_loses_no_call(stack, upstream):
    """Calls in flight end in their answers; meanwhile new ones are refused, not hung."""
    upstream.hold()
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(stack.chat, f"call {n}") for n in range(8)]
        eventually(lambda: upstream.in_flight == 8)
        stack.redis.kill()
        refused = stack.chat("during")
        upstream.release()
        stack.redis.start()
        answers = [future.result().json()["content"] for future in calls]
    eventually(stack.ready)

    assert answers == [f"echo: call {n}" for n in range(8)]
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "redis_unavailable")
    assert int(refused.headers["Retry-After"]) >= 1
    assert stack.chat("after").status_code == 200
    assert stack.workers["ollama"].alive
    assert set(upstream.calls.values()) == {1}
    stack.balanced()


def test_a_call_that_waits_needs_a_worker_and_a_job_does_not(stack):
    """503 no_worker after the grace period; the job is answered when a worker comes."""
    stack.workers["ollama"].stop()
    for worker in stack.redis.client.zrange("workers:ollama", 0, -1):
        # As if it had been seen long ago.
        stack.redis.client.zadd("workers:ollama", {worker: 1})
    reply = stack.chat("now")
    job_id = stack.submit("whenever")
    ready = stack.http.get(f"{stack.url}/ready", timeout=10).status_code
    stack.workers["ollama"].start()

    assert reply.json()["error"]["code"] == "no_worker"
    assert "Retry-After" in reply.headers
    assert ready == 503
    assert stack.ended(job_id)["response"]["content"] == "echo: whenever"


def test_an_expired_job_never_reaches_upstream(stack, upstream):
    """Its deadline passed while no worker was there."""
    stack.workers["ollama"].stop()
    job_id = stack.submit("too late", timeout_s=0.5)
    record = stack.ended(job_id)
    stack.workers["ollama"].start()
    stack.chat("another")

    assert (record["state"], record["error"]["code"]) == ("expired", "deadline_exceeded")
    assert upstream.calls["too late"] == 0


def test_two_keepers_do_no_harm(stack, upstream):
    """Both look after the same queues while wake-ups get lost; nothing is called twice."""
    second = stack.child("keeper-2", "keeper").start()
    try:
        upstream.delay_s = 0.05
        jobs = [stack.submit(f"job {n}") for n in range(50)]
        records = [stack.ended(job_id) for job_id in jobs]
    finally:
        second.stop()

    assert {record["state"] for record in records} == {"succeeded"}
    assert set(upstream.calls.values()) == {1}


def test_two_workers_share_the_permits(stack, upstream):
    """Sixteen threads, eight permits: never more than eight calls, and every job is answered."""
    second = stack.child("worker-2", "worker", "ollama").start()
    try:
        eventually(lambda: stack.redis.client.zcard("workers:ollama") == 2)
        upstream.delay_s = 0.1
        jobs = [stack.submit(f"job {n}", lane="interactive") for n in range(60)]
        records = [stack.ended(job_id) for job_id in jobs]
    finally:
        second.stop()
    workers = {attempt["worker"] for record in records for attempt in record["attempts"]}

    assert {record["state"] for record in records} == {"succeeded"}
    assert len(workers) == 2
    assert upstream.peak <= 8
    assert set(upstream.calls.values()) == {1}


def test_a_stopping_worker_finishes_its_calls_and_leaves_the_rest(stack, upstream):
    """SIGTERM under load: no call is cut, no wake-up lost; its successor does the others."""
    upstream.hold()
    jobs = [stack.submit(f"job {n}") for n in range(30)]
    eventually(lambda: upstream.in_flight == 7)
    worker = stack.workers["ollama"]
    worker.process.terminate()
    eventually(lambda: "told to stop" in worker.output())
    upstream.release()
    code = worker.wait()
    answered = sum(stack.record(job_id)["state"] == "succeeded" for job_id in jobs)
    worker.start()
    records = [stack.ended(job_id) for job_id in jobs]

    assert code == 0
    assert answered == 7
    assert {record["state"] for record in records} == {"succeeded"}
    assert set(upstream.calls.values()) == {1}
    assert stack.balanced().get("republished", 0) == 0


def test_a_worker_survives_a_redis_that_refuses_writes(stack, upstream):
    """As after a fail-over: it goes on when writes are taken again, in the same process."""
    client, pid = stack.redis.client, stack.workers["ollama"].pid
    upstream.hold()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(stack.chat, "held")
        eventually(lambda: upstream.in_flight == 1)
        client.config_set("min-replicas-to-write", 1)
        eventually(lambda: "NOREPLICAS" in stack.workers["ollama"].output())
        client.config_set("min-replicas-to-write", 0)
        eventually(stack.ready)
        job_id = stack.submit("next")
        eventually(lambda: upstream.calls["next"] == 1, what="the worker takes jobs again")
        upstream.release()
        answer = call.result().json()

    assert answer["content"] == "echo: held"
    assert stack.ended(job_id)["state"] == "succeeded"
    assert stack.workers["ollama"].pid == pid
    assert stack.workers["ollama"].alive


def test_a_master_that_has_become_a_replica_is_left(redis_server):
    """The connection is not kept: after a fail-over its name stands for another server."""
    client = connect(redis_server.url, retries=0)
    before = client.client_id()
    redis_server.client.replicaof("127.0.0.1", str(free_port()))
    with pytest.raises(ReadOnlyError):
        client.eval("return redis.call('SET', 'key', 'value')", 0)

    assert client.client_id() != before


def test_a_redis_that_lost_everything_works_again(stack, upstream):
    """Fail-over to an empty one: running calls are answered, new ones run."""
    upstream.hold()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(stack.chat, "in flight")
        eventually(lambda: upstream.in_flight == 1)
        stack.redis.client.flushall()
        upstream.release()
        answer = call.result().json()
    eventually(stack.ready)
    eventually(lambda: stack.redis.client.exists("envelope:chat.ollama.batch"))

    assert answer["content"] == "echo: in flight"
    assert stack.ended(stack.submit("afterwards"))["state"] == "succeeded"
    stack.balanced()


def test_a_full_redis_refuses_new_work_and_takes_what_is_paid_for(stack, upstream):
    """503 for a new call; the answer of the one in flight arrives."""
    upstream.hold()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(stack.chat, "paid for")
        eventually(lambda: upstream.in_flight == 1)
        stack.redis.client.config_set("maxmemory", 1)
        refused = stack.chat("new")
        upstream.release()
        answer = call.result()
        stack.redis.client.config_set("maxmemory", 0)

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "redis_unavailable")
    assert answer.json()["content"] == "echo: paid for"
    assert json.loads(answer.text)["attempt_count"] == 1
    assert stack.workers["ollama"].alive
