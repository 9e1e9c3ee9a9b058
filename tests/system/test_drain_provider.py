"""``chatd drain`` and ``chatd resume`` under load: two workers, callers who wait, and a backlog."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest

from chat.jobs import queue_name
from chat.types import Lane
from tests.servers import ROOT, python
from tests.stack import Stack
from tests.waiting import eventually

PERMITS = 4


@pytest.fixture
def stack(upstream, tmp_path):
    stack = Stack(tmp_path, {"ollama": upstream.url}, concurrency=PERMITS)
    second = stack.child("worker-second", "worker", "ollama")
    stack.start()
    second.start()
    eventually(lambda: stack.redis.client.zcard("workers:ollama") == 2, what="two workers")
    yield stack
    upstream.release()
    second.stop(60)
    stack.stop()


def chatd(stack, *arguments):
    """A command as a process of its own, started."""
    return subprocess.Popen(
        python("-m", "cli", *arguments),
        cwd=ROOT,
        env={**os.environ, **stack.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said(process):
    """Its exit code and the lines that it wrote, once it is over."""
    output, _ = process.communicate(timeout=60)
    return process.returncode, output.splitlines()


def lists(stack):
    """The jobs whose wake-ups lie in the lists of both lanes, in the order of their fetching."""
    return {
        lane: [
            json.loads(message)["headers"]["id"]
            for message in reversed(stack.redis.client.lrange(queue_name("ollama", lane), 0, -1))
        ]
        for lane in Lane
    }


def queued(stack):
    """The jobs in state `queued` of both lanes, by admission: what `lists` has to be."""
    members = {
        lane: stack.redis.client.zrange(f"queued:{queue_name('ollama', lane)}", 0, -1)
        for lane in Lane
    }
    return {
        lane: sorted(ids, key=lambda job: int(stack.redis.client.hget(f"job:{job}", "order")))
        for lane, ids in members.items()
    }


def begin_anew(stack, worker):
    """Restart the first worker and let it come to the point at which it would fetch something."""
    seen = partial(stack.redis.client.zscore, "workers:ollama", f"ollama-1@{socket.gethostname()}")

    def heard_after(moment):
        return seen() > moment

    worker.stop(60)
    worker.start()
    for _ in range(2):  # One heartbeat comes before it fetches anything, and the next one after.
        eventually(partial(heard_after, seen()), what="a heartbeat")


def test_a_provider_is_drained_and_goes_on(stack, upstream):
    """No call begins and none is cut short; nothing is lost or out of order; a job is one call."""
    upstream.hold()
    # Whatever fails, the callers get their answers, so that the pool comes to its end.
    with ThreadPoolExecutor(16) as pool, ExitStack() as at_last:
        at_last.callback(stack.store.resume, "ollama")
        at_last.callback(upstream.release)
        waiting = [
            pool.submit(stack.chat, f"person {number}", timeout_s=80) for number in range(10)
        ]
        eventually(lambda: upstream.in_flight == PERMITS and stack.balanced()["queued"] == 6)
        jobs = [stack.submit(f"item {number}", lane="batch") for number in range(20)]
        draining = chatd(stack, "drain", "ollama")
        eventually(lambda: stack.store.drained(["ollama"]), what="it is drained")

        refused = stack.chat("too late", timeout_s=10)
        jobs += [stack.submit(f"late {number}", lane=lane) for number, lane in enumerate(Lane)]
        eventually(lambda: lists(stack) == queued(stack), what="every wake-up is back in its list")
        reasons = {stack.record(job)["waiting"]["reason"] for job in jobs}
        upstream.release()
        drained = said(draining)
        eventually(lambda: sum(call.done() for call in waiting) >= PERMITS, what="four answers")
        answered = [call.result() for call in waiting if call.done()]

        begin_anew(stack, stack.workers["ollama"])
        calls_while_drained = upstream.calls.total()
        left = lists(stack)
        expected = queued(stack)

        resumed = said(chatd(stack, "resume", "ollama"))
        answers = [call.result().json()["content"] for call in waiting]
        ends = {stack.ended(job)["state"] for job in jobs}
    acct = stack.balanced()

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert reasons == {"drained"}
    assert drained[0] == 0, drained
    assert drained[1][0] == f"ollama: no new call begins, {PERMITS} calls in flight"
    assert drained[1][-1] == "drained"
    assert [reply.status_code for reply in answered] == [200] * PERMITS
    assert calls_while_drained == PERMITS
    assert left == expected
    assert [len(ids) for ids in left.values()] == [7, 21]
    assert resumed[0] == 0, resumed
    assert answers == [f"echo: person {number}" for number in range(10)]
    assert ends == {"succeeded"}
    assert set(upstream.calls.values()) == {1}
    assert upstream.calls.total() == len(waiting) + len(jobs) == acct["accepted"]
    assert acct.get("republished", 0) == 0
