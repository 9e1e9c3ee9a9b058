"""The main job through real processes: a chat goes into the queue and its answer comes back."""

from __future__ import annotations

import json
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery import Celery
from celery.result import AsyncResult

from bench.upstream import Upstream
from chat.jobs import new_job_id
from tests.servers import ROOT
from tests.stack import Stack
from tests.waiting import eventually


def only_echo(_path, body):
    """Ollama's answer to a model it does not have; ``None`` lets the upstream echo."""
    if body["model"] == "echo":
        return None
    return 404, {"error": f"model '{body['model']}' not found"}


@pytest.fixture(scope="module")
def upstream():
    upstream = Upstream(reply=only_echo).start()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def stack(upstream, tmp_path_factory):
    settings = '[models]\nlocal_fast = "echo"\n'
    stack = Stack(tmp_path_factory.mktemp("stack"), {"ollama": upstream.url}, tail=settings)
    yield stack.start()
    stack.stop()


@pytest.fixture(autouse=True)
def fresh(stack, upstream):
    upstream.calls.clear()
    upstream.release()
    yield
    upstream.release()
    eventually(lambda: stack.store.counters().get("calling", 0) == 0)
    stack.balanced()


def test_the_acceptance_checks_pass(stack):
    """deploy/smoke.sh against a chatd that has only Ollama."""
    run = subprocess.run(
        ["bash", str(ROOT / "deploy" / "smoke.sh"), stack.url, "echo"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert run.stdout.splitlines()[-1].startswith("6/6"), run.stdout + run.stderr
    assert run.returncode == 0


def test_a_chat_comes_back(stack):
    """Answer, tokens, times, and the headers that explain them."""
    reply = stack.chat("Capital of France?", headers={"X-Request-Id": "mine-1"})
    answer = reply.json()

    assert reply.status_code == 200
    assert answer["content"] == "echo: Capital of France?"
    assert (answer["provider"], answer["upstream_model"]) == ("ollama", "echo")
    assert (answer["input_tokens"], answer["output_tokens"]) == (7, 3)
    assert answer["attempt_count"] == 1
    assert reply.headers["X-Request-Id"] == "mine-1"
    assert {part.split(";")[0].strip() for part in reply.headers["Server-Timing"].split(",")} == {
        "queue",
        "upstream",
        "gateway",
    }


def test_a_tier_is_a_model(stack):
    """The name as asked stays in the answer; upstream sees the model id."""
    answer = stack.chat("hi", "local_fast").json()

    assert (answer["model"], answer["upstream_model"]) == ("local_fast", "echo")


def test_two_hundred_at_once_get_their_own_answers(stack, upstream):
    """None lost, none mixed up, one upstream call each."""
    questions = [f"question {n}" for n in range(200)]
    with ThreadPoolExecutor(64) as pool:
        answers = [reply.json()["content"] for reply in pool.map(stack.chat, questions)]

    assert answers == [f"echo: {question}" for question in questions]
    assert set(upstream.calls.values()) == {1}


def test_a_job_is_submitted_and_polled(stack, upstream):
    """202 with a path, then the record through its states."""
    upstream.hold()
    body = {
        "model": "echo",
        "messages": [{"role": "user", "content": "later"}],
        "metadata": {"run": "7"},
    }
    accepted = stack.http.post(f"{stack.url}/v1/jobs", json=body, timeout=30)
    job_id = accepted.json()["id"]
    eventually(lambda: stack.record(job_id)["state"] == "calling")
    upstream.release()
    reply = stack.http.get(f"{stack.url}{accepted.headers['Location']}?wait=30", timeout=60)
    record = reply.json()

    assert (accepted.status_code, accepted.headers["Location"]) == (202, f"/v1/jobs/{job_id}")
    assert (record["state"], record["lane"]) == ("succeeded", "batch")
    assert record["response"]["content"] == "echo: later"
    assert record["metadata"] == {"run": "7"}
    assert [(a["outcome"], a["billed"]) for a in record["attempts"]] == [("succeeded", "yes")]


def test_prefer_wait_hands_out_the_job(stack, upstream):
    """After that time 202 with a Location; the job goes on to its end."""
    upstream.hold()
    reply = stack.chat("slow", headers={"Prefer": "wait=1"})
    upstream.release()
    record = stack.ended(reply.json()["id"])

    assert (reply.status_code, reply.headers["Preference-Applied"]) == (202, "wait=1")
    assert record["response"]["content"] == "echo: slow"


def test_a_queued_job_can_be_cancelled(stack, upstream):
    """At once and free: upstream never hears of it."""
    upstream.hold()
    blockers = [stack.submit(f"blocker {n}") for n in range(7)]
    eventually(lambda: upstream.in_flight == 7)
    job_id = stack.submit("never")
    reply = stack.http.post(f"{stack.url}/v1/jobs/{job_id}/cancel", timeout=30)
    upstream.release()
    for blocker in blockers:
        stack.ended(blocker)

    assert reply.json()["state"] == "cancelled"
    assert upstream.calls["never"] == 0


def test_a_call_can_be_cancelled(stack, upstream):
    """The upstream sees its connection closed, and the ledger says the bill is uncertain."""
    upstream.hold()
    job_id = stack.submit("stop me")
    eventually(lambda: upstream.calls["stop me"] == 1)
    reply = stack.http.post(f"{stack.url}/v1/jobs/{job_id}/cancel", timeout=30)
    eventually(lambda: "stop me" in upstream.dropped_at)

    assert stack.ended(job_id)["state"] == "cancelled"
    assert reply.status_code == 200
    assert stack.record(job_id)["attempts"][0]["billed"] == "maybe"


def test_a_deadline_closes_the_call(stack, upstream):
    """504 with the job's id, and the upstream connection is gone."""
    upstream.hold()
    reply = stack.chat("too slow", timeout_s=1)
    eventually(lambda: "too slow" in upstream.dropped_at)
    error = reply.json()["error"]

    assert (reply.status_code, error["code"]) == (504, "deadline_exceeded")
    assert stack.record(error["job_id"])["error"]["code"] == "deadline_exceeded"


def test_a_caller_that_hangs_up_cancels_its_call(stack, upstream):
    """Nobody would read the answer, so nobody pays for the rest of it."""
    upstream.hold()
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "bye"}]})
    with socket.create_connection(("127.0.0.1", stack.port)) as caller:
        head = f"POST /v1/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        caller.sendall((head + body).encode())
        eventually(lambda: upstream.calls["bye"] == 1)
    eventually(lambda: "bye" in upstream.dropped_at)

    eventually(lambda: stack.store.counters().get("calling", 0) == 0)
    assert upstream.dropped >= 1


def test_one_idempotency_key_is_one_upstream_call(stack, upstream):
    """Sixty-four at once join one job; another body is refused."""
    upstream.hold()
    with ThreadPoolExecutor(64) as pool:
        futures = [
            pool.submit(stack.chat, "once", headers={"Idempotency-Key": "k-1"}) for _ in range(64)
        ]
        eventually(lambda: upstream.calls["once"] == 1)
        upstream.release()
        replies = [future.result() for future in futures]
    other = stack.chat("another", headers={"Idempotency-Key": "k-1"})
    again = stack.chat("once", headers={"Idempotency-Key": "k-1"})

    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.json()["id"] for reply in [*replies, again]}) == 1
    assert upstream.calls["once"] == 1
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_plain_celery_client_gets_the_result(stack, upstream, when):
    """AsyncResult(id).get() of a Celery that knows nothing of chatd, begun before or after."""
    client = Celery("plain", broker=stack.redis.url, backend=stack.redis.url, set_as_current=False)
    upstream.hold()
    job_id = stack.submit(f"celery {when}")
    result = AsyncResult(job_id, app=client)
    if when == "after":
        upstream.release()
        stack.ended(job_id)
        found = result.get(timeout=30)
    else:
        with ThreadPoolExecutor(1) as pool:
            getting = pool.submit(result.get, timeout=30)
            channel = f"celery-task-meta-{job_id}"
            eventually(lambda: stack.redis.client.pubsub_numsub(channel)[0][1] == 1)
            upstream.release()
            found = getting.result(60)
    client.close()

    assert found["state"] == "succeeded"
    assert found["response"]["content"] == f"echo: celery {when}"
    assert result.state == "SUCCESS"
    assert result.date_done is not None


def test_a_request_costs_one_round_trip_in_front_and_three_in_the_worker(stack):
    """Counted by Redis: admit, a pop at the most, start, finish, and nothing else per job."""
    stack.chat("warm")

    def calls():
        stats = stack.redis.client.info("commandstats")
        return {name: stats[f"cmdstat_{name}"]["calls"] for name in ("evalsha", "blmpop")}

    before = calls()
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(stack.chat, [f"count {n}" for n in range(300)]))
    after = calls()
    scripts = (after["evalsha"] - before["evalsha"]) / 300
    pops = (after["blmpop"] - before["blmpop"]) / 300

    assert {reply.status_code for reply in replies} == {200}
    # The keeper and the heartbeat run scripts of their own, a few per second.
    assert 3.0 <= scripts < 3.5
    # Wake-ups that wait together come together.
    assert 0 < pops < 1.5


def test_unknown_jobs_are_not_pending(stack):
    """404 for an id that was never given out and for what is no id; 410 for one that is too old."""
    cases = {
        new_job_id(): (404, "job_not_found"),
        "x": (404, "job_not_found"),
        "job_00000000000000000000000000": (410, "result_expired"),
    }
    for job_id, expected in cases.items():
        reply = stack.http.get(f"{stack.url}/v1/jobs/{job_id}", timeout=30)

        assert (reply.status_code, reply.json()["error"]["code"]) == expected
