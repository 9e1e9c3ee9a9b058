"""One Idempotency-Key is one job: whoever asks at once, whoever asks again, whatever restarts."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from bench.upstream import Upstream
from tests.stack import Stack
from tests.waiting import eventually

AT_ONCE = 64


@pytest.fixture(scope="module")
def upstream():
    upstream = Upstream().start()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def stack(upstream, tmp_path_factory):
    stack = Stack(tmp_path_factory.mktemp("keys"), {"ollama": upstream.url})
    yield stack.start()
    upstream.release()
    stack.stop()


@pytest.fixture(autouse=True)
def fresh(stack, upstream):
    upstream.release()
    yield
    upstream.release()
    eventually(lambda: stack.store.counters().get("calling", 0) == 0)
    stack.balanced()


def at_once(call):
    """What so many threads get that set off together."""
    line = threading.Barrier(AT_ONCE)

    def run(_):
        line.wait(30)
        return call()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(run, range(AT_ONCE)))


def post(stack, path, question, key, **headers):
    """POST a chat with a key."""
    return stack.http.post(
        f"{stack.url}{path}",
        json={"model": "echo", "messages": [{"role": "user", "content": question}]},
        headers={"Idempotency-Key": key, **headers},
        timeout=120,
    )


def restart(stack):
    """Another front end, which knows nothing of what the one before was asked."""
    before = stack.api.pid
    stack.api.stop()
    stack.api.start()
    eventually(stack.ready, within_s=60, what="ready again")
    assert stack.api.pid != before


def test_jobs_submitted_at_once_with_one_key_are_one_job(stack, upstream):
    """Each caller gets its record; it is called, counted and listed once."""
    accepted = stack.store.counters().get("accepted", 0)
    replies = at_once(lambda: post(stack, "/v1/jobs", "job at once", "key-jobs"))
    job_id = replies[0].json()["id"]
    record = stack.ended(job_id)
    page = stack.http.get(f"{stack.url}/v1/jobs?lane=batch&limit=100", timeout=30).json()
    again = post(stack, "/v1/jobs", "job at once", "key-jobs")

    assert {reply.status_code for reply in [*replies, again]} == {202}
    assert {reply.json()["id"] for reply in [*replies, again]} == {job_id}
    assert {reply.headers["Location"] for reply in replies} == {f"/v1/jobs/{job_id}"}
    assert stack.store.counters()["accepted"] == accepted + 1
    assert upstream.calls["job at once"] == len(record["attempts"]) == 1
    assert [job["id"] for job in page["jobs"]].count(job_id) == 1
    assert again.json() == record


def test_chats_sent_at_once_with_one_key_are_one_call(stack, upstream):
    """All of them wait for the same call, and get the same answer."""
    upstream.hold()
    accepted = stack.store.counters().get("accepted", 0)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(at_once, lambda: post(stack, "/v1/chat", "chat at once", "key-chat"))
        eventually(lambda: upstream.calls["chat at once"] == 1)
        upstream.release()
        replies = asking.result(120)
    answer = replies[0].json()

    assert {reply.status_code for reply in replies} == {200}
    assert [reply.json() for reply in replies] == [answer] * AT_ONCE
    assert answer["content"] == "echo: chat at once"
    assert upstream.calls["chat at once"] == 1
    assert stack.store.counters()["accepted"] == accepted + 1


def test_a_key_is_known_after_the_front_end_was_restarted(stack, upstream):
    """The answer is Redis', not the process's."""
    first = post(stack, "/v1/chat", "before the restart", "key-restart")
    job = post(stack, "/v1/jobs", "before the restart", "key-restart")
    stack.ended(job.json()["id"])
    restart(stack)
    again = post(stack, "/v1/chat", "before the restart", "key-restart")
    job_again = post(stack, "/v1/jobs", "before the restart", "key-restart")
    other = post(stack, "/v1/chat", "after the restart", "key-restart")

    assert (again.status_code, again.json()) == (200, first.json())
    assert job_again.json()["id"] == job.json()["id"]
    # The path is a part of the key: a chat and a job are two calls.
    assert upstream.calls["before the restart"] == 2
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")
    assert upstream.calls["after the restart"] == 0


def test_a_key_joins_the_call_of_a_front_end_that_died(stack, upstream):
    """Its callers are cut off; whoever asks again waits for the call that is still running."""
    upstream.hold()
    with ThreadPoolExecutor(8) as pool:
        cut_off = [
            pool.submit(post, stack, "/v1/chat", "in mid-call", "key-kill") for _ in range(8)
        ]
        eventually(lambda: upstream.calls["in mid-call"] == 1)
        stack.api.kill()
        broken = [call.exception(60) for call in cut_off]
    stack.api.start()
    eventually(stack.ready, within_s=60, what="ready again")
    with ThreadPoolExecutor(8) as pool:
        joined = post(stack, "/v1/chat", "in mid-call", "key-kill", Prefer="respond-async")
        waiting = [
            pool.submit(post, stack, "/v1/chat", "in mid-call", "key-kill") for _ in range(8)
        ]
        channels = f"job:{joined.json()['id']}"
        # The channel of the process that died, and that of the one that took its place.
        eventually(lambda: len(stack.redis.client.hget(channels, "watch").split()) == 2)
        upstream.release()
        replies = [call.result(60) for call in waiting]

    assert all(isinstance(error, requests.ConnectionError) for error in broken)
    assert joined.json()["state"] == "calling"
    assert {reply.status_code for reply in replies} == {200}
    assert {reply.json()["id"] for reply in replies} == {joined.json()["id"]}
    assert {reply.json()["content"] for reply in replies} == {"echo: in mid-call"}
    assert upstream.calls["in mid-call"] == 1
