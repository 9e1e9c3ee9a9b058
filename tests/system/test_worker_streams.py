"""A worker whose upstream answers piece by piece: real processes, a real Redis, and their ends."""

from __future__ import annotations

import json
import signal

import pytest

from chat.jobs import NewJob, new_job_id
from chat.types import JSON, ChatRequest, Lane, Message, Role
from tests.dictated import BUSY, CUT, END, Dictated
from tests.servers import await_written
from tests.stack import Stack
from tests.waiting import eventually


@pytest.fixture
def upstream():
    upstream = Dictated()
    yield upstream
    upstream.stop()


@pytest.fixture
def stack(upstream, tmp_path):
    stack = Stack(tmp_path, {"ollama": upstream.url})
    yield stack.start()
    for question in list(upstream.words):
        upstream.say(question, END)
    stack.stop()


def ask(stack, question, lane=Lane.BATCH, reply_to=None):
    """Admit a job whose answer is wanted piece by piece; its id."""
    request = ChatRequest("echo", (Message(Role.USER, question),), stream=True)
    job = NewJob(new_job_id(), request, "ollama", "echo", lane, 120_000, reply_to=reply_to)
    stack.store.admit(job)
    return job.id


def text(stack, job_id):
    """What has come of an answer."""
    return "".join(delta.text for _, delta in stack.store.events(job_id))


def until(stack, job_id, expected):
    """Wait until so much of an answer has come."""
    eventually(lambda: text(stack, job_id) == expected, what=f"{expected} has come")


def test_each_piece_is_there_as_soon_as_it_is_said(stack, upstream):
    """In its order, kept and told; the end comes after the last of them."""
    listener = stack.redis.client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe("chatd:reply:test")
    job_id = ask(stack, "q", reply_to="chatd:reply:test")
    for said in ("Pa", "Par", "Paris – “ok”"):
        upstream.say("q", said.removeprefix(text(stack, job_id)))
        until(stack, job_id, said)
        assert stack.store.record(job_id).state == "calling"
    upstream.say("q", END)
    record = stack.ended(job_id)
    heard: list[JSON] = []
    while not heard or "result" not in heard[-1]:
        message = eventually(lambda: listener.get_message(timeout=1), what="a message")
        heard.append(json.loads(message["data"]))
    listener.close()
    numbers = [event[2] for told in heard[:-1] for event in told["events"]]

    assert record["response"]["content"] == "Paris – “ok”"
    assert record["response"]["output_tokens"] == 3
    assert numbers == list(range(1, len(numbers) + 1))
    assert [event_id for event_id, _ in stack.store.events(job_id)] == [f"1-{n}" for n in numbers]


def test_many_streams_at_once_are_all_whole(stack, upstream):
    """Eight calls share one sender."""
    words = [f"{n} " for n in range(60)]
    jobs = {f"q{n}": ask(stack, f"q{n}", lane=Lane.INTERACTIVE) for n in range(8)}
    for word in words:
        for question in jobs:
            upstream.say(question, word)
    for question in jobs:
        upstream.say(question, END)
    answers = [stack.ended(job_id)["response"]["content"] for job_id in jobs.values()]

    assert answers == ["".join(words)] * 8
    assert [text(stack, job_id) for job_id in jobs.values()] == answers
    stack.balanced()


def test_a_call_is_repeated_only_before_its_first_piece(stack, upstream):
    """An overloaded upstream is asked again; one that breaks off is not."""
    upstream.say("busy", BUSY, "Paris", END)
    first = stack.ended(ask(stack, "busy"))
    job_id = ask(stack, "cut")
    upstream.say("cut", "Par")
    until(stack, job_id, "Par")
    upstream.say("cut", CUT)
    second = stack.ended(job_id)

    assert first["response"]["content"] == "Paris"
    assert [a["outcome"] for a in first["attempts"]] == ["upstream_unavailable", "succeeded"]
    assert (second["state"], len(second["attempts"])) == ("failed", 1)
    assert second["error"]["partial"]["content"] == "Par"
    assert upstream.calls == ["busy", "busy", "cut"]
    stack.balanced()


def test_a_killed_worker_in_mid_stream(stack, upstream):
    """Nobody is given another beginning; who has had none yet gets an answer."""
    begun, silent = ask(stack, "begun"), ask(stack, "silent")
    upstream.say("begun", "Par", "is")
    until(stack, begun, "Paris")
    eventually(lambda: len(upstream.calls) == 2, what="both are called")
    stack.workers["ollama"].kill()
    # The call that was cut off takes this one, and finds out that nobody is there.
    upstream.say("silent", CUT, "Paris", END)
    stack.workers["ollama"].start()
    first, second = stack.ended(begun), stack.ended(silent)

    assert (first["state"], first["error"]["code"]) == ("failed", "outcome_unknown")
    assert first["error"]["partial"]["content"] == "Paris"
    assert first["error"]["billed"] == "maybe"
    assert second["response"]["content"] == "Paris"
    assert sorted(upstream.calls) == ["begun", "silent", "silent"]
    stack.balanced()


def test_a_stream_that_is_cancelled_is_closed(stack, upstream):
    """The upstream stops, and the record has what had come."""
    job_id = ask(stack, "q")
    upstream.say("q", "Par")
    until(stack, job_id, "Par")
    stack.store.cancel(job_id)
    record = stack.ended(job_id)

    def hung_up():
        upstream.say("q", "more")
        return upstream.left == ["q"]

    eventually(hung_up, what="the upstream finds its caller gone")
    assert (record["state"], record["error"]["partial"]["content"]) == ("cancelled", "Par")
    assert text(stack, job_id) == "Par"


def test_a_restart_of_redis_in_mid_stream(stack, upstream):
    """What is said meanwhile gathers; nothing is there twice or missing."""
    job_id = ask(stack, "q")
    upstream.say("q", "Par")
    until(stack, job_id, "Par")
    await_written(stack.redis.client)
    stack.redis.kill()
    upstream.say("q", "i", "s")
    eventually(lambda: "wait for Redis" in stack.workers["ollama"].output(), what="it is noticed")
    stack.redis.start()
    until(stack, job_id, "Paris")
    upstream.say("q", "!", END)

    assert stack.ended(job_id)["response"]["content"] == "Paris!"
    assert text(stack, job_id) == "Paris!"
    assert upstream.calls == ["q"]


def test_a_worker_that_is_told_to_stop_ends_its_streams(stack, upstream):
    """As it ends all its calls."""
    job_id = ask(stack, "q")
    upstream.say("q", "Par")
    until(stack, job_id, "Par")
    worker = stack.workers["ollama"]
    worker.send(signal.SIGTERM)
    eventually(lambda: "told to stop" in worker.output(), what="it has heard")
    upstream.say("q", "is")
    until(stack, job_id, "Paris")
    upstream.say("q", END)

    assert worker.wait(60) == 0
    assert stack.record(job_id)["response"]["content"] == "Paris"
