"""What people ask stays in their job's record, and leaves it with the job's end."""

from __future__ import annotations

import base64
import http.client
import json

import pytest

from bench.upstream import Upstream
from tests.leaks import files_below, leaks, redis_contents
from tests.stack import Stack
from tests.waiting import eventually

PROMPT = "my diagnosis is acute chatditis, tell nobody"
CALLERS_KEY = "idempotency-key-that-may-be-somebodys-password"
SECRETS = {"the prompt": PROMPT, "the caller's Idempotency-Key": CALLERS_KEY}


def discreet(_path, body):
    """An answer, or Ollama's words for a model it does not have, without the question in it."""
    if body["model"] == "echo":
        return 200, {
            "model": "echo",
            "message": {"role": "assistant", "content": "I will not repeat that."},
            "done": True,
            "done_reason": "stop",
        }
    return 404, {"error": f"model '{body['model']}' not found"}


@pytest.fixture(scope="module")
def upstream():
    upstream = Upstream(reply=discreet).start()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def stack(upstream, tmp_path_factory):
    stack = Stack(
        tmp_path_factory.mktemp("prompts"),
        {"ollama": upstream.url},
        settings='log_level = "debug"\non_lost_call_batch = "fail"',
    )
    yield stack.start()
    upstream.release()
    stack.stop()


@pytest.fixture(autouse=True)
def fresh(upstream):
    yield
    upstream.calls.clear()
    upstream.release()


def in_redis(stack):
    return leaks(SECRETS, redis_contents(stack.redis.url))


def in_files(stack):
    """Logs and ``data_dir``; Redis' own files are its record."""
    found = dict(files_below(stack.folder))
    outside = {name: text for name, text in found.items() if not name.startswith("file redis/")}

    assert {"file api.log", "file worker-ollama.log", "file keeper.log"} <= set(outside)
    return leaks(SECRETS, outside.items())


def ask(stack, model="echo", **headers):
    """A call whose caller waits; its job's id."""
    reply = stack.chat(PROMPT, model, headers=headers).json()
    return reply["error"]["job_id"] if "error" in reply else reply["id"]


def test_a_queued_prompt_is_in_its_request_and_in_no_message(stack, upstream):
    """The wake-up that Celery carries, the audit and the logs know a job by its id alone."""
    upstream.hold()
    running = [stack.submit("something else") for _ in range(7)]
    eventually(lambda: upstream.in_flight == 7)
    # The worker may still take one when its permits are used up, and have it parked.
    asked = []

    def in_the_queue():
        asked.append(stack.submit(PROMPT))
        return stack.redis.client.lrange("chat.ollama.batch", 0, -1)

    (message,) = eventually(in_the_queue)
    found = {leak.split(" (")[0] for leak in in_redis(stack)}
    written = in_files(stack)
    upstream.release()
    for each in (*running, *asked):
        stack.ended(each)
    arguments, keywords, _ = json.loads(base64.b64decode(json.loads(message)["body"]))

    # Found in the request: so the search would have found it elsewhere.
    assert found == {
        f"the prompt in redis {kind} request:{job_id}"
        for kind in ("string", "dump")
        for job_id in asked
    }
    assert written == []
    assert json.loads(message)["headers"]["id"] == asked[-1]
    assert (arguments, keywords) == ([], {})


def answered(stack, _upstream):
    return ask(stack)


def refused_upstream(stack, _upstream):
    return ask(stack, "unknown/model")


def with_a_key(stack, _upstream):
    return ask(stack, **{"Idempotency-Key": CALLERS_KEY})


def answered_as_a_job(stack, _upstream):
    return stack.submit(PROMPT)


def cancelled_in_its_call(stack, upstream):
    upstream.hold()
    job_id = stack.submit(PROMPT)
    eventually(lambda: upstream.calls[PROMPT] == 1)
    stack.store.cancel(job_id)
    return job_id


def overdue_in_its_call(stack, upstream):
    upstream.hold()
    return stack.submit(PROMPT, timeout_s=0.5)


def lost_with_its_worker(stack, upstream):
    upstream.hold()
    job_id = stack.submit(PROMPT)
    eventually(lambda: upstream.calls[PROMPT] == 1)
    stack.workers["ollama"].kill()
    stack.workers["ollama"].start()
    return job_id


def _without_a_worker(stack, act):
    stack.workers["ollama"].stop()
    try:
        return act()
    finally:
        stack.workers["ollama"].start()


def cancelled_in_the_queue(stack, _upstream):
    def act():
        job_id = stack.submit(PROMPT)
        stack.store.cancel(job_id)
        return job_id

    return _without_a_worker(stack, act)


def expired_in_the_queue(stack, _upstream):
    def act():
        job_id = stack.submit(PROMPT, timeout_s=0.1)
        stack.ended(job_id)
        return job_id

    return _without_a_worker(stack, act)


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (answered, "succeeded"),
        (answered_as_a_job, "succeeded"),
        (with_a_key, "succeeded"),
        (refused_upstream, "upstream_not_found"),
        (cancelled_in_its_call, "job_cancelled"),
        (overdue_in_its_call, "deadline_exceeded"),
        (lost_with_its_worker, "outcome_unknown"),
        (cancelled_in_the_queue, "job_cancelled"),
        (expired_in_the_queue, "deadline_exceeded"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_prompt_goes_with_the_end_of_its_job(stack, upstream, end, how):
    """However it ends: the record keeps everything but the question."""
    record = stack.ended(end(stack, upstream))

    assert (record["error"] or {"code": record["state"]})["code"] == how
    assert in_redis(stack) == []
    assert in_files(stack) == []


def test_a_caller_who_hangs_up_takes_the_prompt_along(stack, upstream):
    """Nobody waits for the answer; the job is cancelled and its request dropped."""
    upstream.hold()
    before = stack.store.counters().get("cancelled", 0)
    body = {"model": "echo", "messages": [{"role": "user", "content": PROMPT}]}
    caller = http.client.HTTPConnection("127.0.0.1", stack.port)
    caller.request("POST", "/v1/chat", json.dumps(body))
    eventually(lambda: upstream.calls[PROMPT] == 1)
    caller.close()
    eventually(lambda: stack.store.counters().get("cancelled", 0) == before + 1)

    assert in_redis(stack) == []
    assert in_files(stack) == []
