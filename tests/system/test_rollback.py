"""A power failure takes back Redis' last second; what lives on makes good what it remembers."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from chat.types import Lane
from tests.servers import RedisProcess
from tests.stack import Stack
from tests.waiting import eventually


@pytest.fixture
def stack(upstream, tmp_path):
    stack = Stack(tmp_path, {"ollama": upstream.url})
    yield stack.start()
    upstream.release()
    stack.stop()


def test_what_a_power_failure_takes_back_is_told_again(stack, upstream):
    """Calls in flight, and jobs whose callers wait: each is called once, and answered."""
    stack.chat("before")
    redis = stack.redis
    # Calls that begin and end from here on are forgotten.
    kept = redis.written()
    upstream.hold()
    with ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(stack.chat, f"call {n}") for n in range(8)]
        eventually(lambda: upstream.in_flight == 8)
        waiting = [pool.submit(stack.chat, f"waiting {n}") for n in range(4)]
        eventually(lambda: stack.store.counters()["queued"] == 4)
        redis.kill()
        redis.lose_after(kept)
        redis.start()
        upstream.release()
        answers = [future.result().json()["content"] for future in (*calls, *waiting)]

    assert answers == [
        *(f"echo: call {n}" for n in range(8)),
        *(f"echo: waiting {n}" for n in range(4)),
    ]
    assert set(upstream.calls.values()) == {1}
    counters = stack.balanced()
    assert counters["recalled"] == counters["recreated"] == 8
    assert counters["accepted"] == counters["succeeded"] == 13


@pytest.mark.parametrize("lane", list(Lane))
def test_an_answer_whose_end_was_taken_back_is_kept(stack, upstream, lane):
    """It was fetched already; asking again finds the same, and nothing is called twice."""
    stack.chat("before")
    kept = stack.redis.written()
    job_id = stack.submit("paid", lane=lane.value)
    before = stack.ended(job_id)
    stack.redis.kill()
    stack.redis.lose_after(kept)
    stack.redis.start()
    eventually(lambda: stack.store.counters().get("recalled") == 1, what="the end is told again")
    after = stack.record(job_id)

    assert after["response"]["content"] == before["response"]["content"] == "echo: paid"
    assert [(a["outcome"], a["billed"]) for a in after["attempts"]] == [("succeeded", "yes")]
    assert upstream.calls["paid"] == 1


def test_two_workers_do_not_take_each_others_calls(stack, upstream):
    """One is late, and its jobs are queued again: the other has a free thread, and waits for it."""
    client = stack.redis.client
    first = stack.workers["ollama"]
    second = stack.child("worker-2", "worker", "ollama", "--instance", "2").start()
    try:
        eventually(lambda: client.zcard("workers:ollama") == 2)
        upstream.hold()
        for worker in (first, second):
            worker.send(signal.SIGSTOP)
        jobs = [stack.submit(f"job {n}", lane="interactive") for n in range(8)]
        kept = stack.redis.written()
        # The one that is stopped has one wake-up in its socket.
        second.send(signal.SIGCONT)
        eventually(lambda: upstream.in_flight >= 7, what="the second calls")
        second.send(signal.SIGSTOP)
        first.send(signal.SIGCONT)
        eventually(lambda: upstream.in_flight == 8, what="all are called")
        stack.redis.kill()
        stack.redis.lose_after(kept)
        stack.redis.start()
        sent = int(client.get("seq:chat.ollama"))
        # It asks, and is told to wait; or it calls.
        eventually(
            lambda: int(client.get("seq:chat.ollama")) > sent or upstream.calls.total() > 8,
            what="the first one takes a job of the second",
        )
        second.send(signal.SIGCONT)
        eventually(lambda: stack.store.counters().get("recalled") == 8, what="all are told again")
        upstream.release()
        records = [stack.ended(job_id) for job_id in jobs]
    finally:
        upstream.release()
        second.stop()

    assert {record["state"] for record in records} == {"succeeded"}
    assert set(upstream.calls.values()) == {1}
    assert stack.balanced().get("recreated", 0) == 0


def test_durability_always_is_checked_at_the_start(upstream, tmp_path):
    """A Redis that confirms what it has not on disk is refused in words."""
    stack = Stack(tmp_path, {"ollama": upstream.url}, settings='durability = "always"')
    stack.redis.start()
    try:
        up = stack.child("up", "up").start()
        for part in (stack.workers["ollama"].start(), stack.keeper.start(), up):
            assert part.wait() == 1
            assert "appendfsync everysec" in part.output()
        # The front end lives, and accepts nothing.
        stack.api.start()
        eventually(lambda: "Listening at" in stack.api.output(), what="it listens")
        reply = stack.chat("promised")
        assert reply.status_code == 503
        assert "appendfsync everysec" in reply.json()["error"]["message"]
    finally:
        stack.stop()


def test_durability_always_works(upstream, tmp_path):
    """With a Redis that does so."""
    redis = RedisProcess(tmp_path / "redis", appendfsync="always")
    stack = Stack(
        tmp_path, {"ollama": upstream.url}, settings='durability = "always"', redis=redis
    ).start()
    try:
        assert stack.chat("kept").json()["content"] == "echo: kept"
    finally:
        stack.stop()
