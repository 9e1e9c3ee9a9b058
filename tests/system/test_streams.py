"""Streams through all of chatd: first pieces, hang-ups, going on, and the end of a front end."""

from __future__ import annotations

import signal
from contextlib import closing

import pytest

from tests.dictated import END, Dictated
from tests.events import come, text_of
from tests.stack import Stack
from tests.waiting import eventually

WORDS = [f"word{n} " for n in range(12)]
WHOLE = "".join(WORDS)


@pytest.fixture(scope="module")
def upstream():
    upstream = Dictated()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def stack(upstream, tmp_path_factory):
    stack = Stack(
        tmp_path_factory.mktemp("streams"), {"ollama": upstream.url}, settings="drain_s = 1"
    )
    yield stack.start()
    for question in list(upstream.words):
        upstream.say(question, END)
    stack.stop()


def ask(stack, question, path="chat", key=None, had=None, **fields):
    """A stream that has begun, or is about to."""
    headers = {"Idempotency-Key": key, "Last-Event-ID": had}
    return stack.http.post(
        f"{stack.url}/v1/{path}",
        json={
            "model": "echo",
            "messages": [{"role": "user", "content": question}],
            "stream": True,
            **fields,
        },
        headers={name: value for name, value in headers.items() if value is not None},
        timeout=60,
        stream=True,
    )


def follow(stack, job_id, had=None):
    """The same, by the job's id."""
    return stack.http.get(
        f"{stack.url}/v1/jobs/{job_id}/events",
        headers={} if had is None else {"Last-Event-ID": had},
        timeout=60,
        stream=True,
    )


def pieces(reply):
    """The events, comments left out."""
    return (one for one in come(reply.iter_content(None)) if one.event != "comment")


def test_each_piece_is_there_before_the_next_is_said(stack, upstream):
    """The upstream says a word when the one before has arrived."""
    upstream.say("word by word", WORDS[0])
    with closing(ask(stack, "word by word")) as reply:
        told, following = [], iter([*WORDS[1:], END])
        for one in pieces(reply):
            told.append(one)
            if one.event == "delta":
                upstream.say("word by word", next(following))

    assert [one.json.get("content") for one in told] == [*WORDS, WHOLE]
    assert [one.id for one in told] == [*(f"1-{n}" for n in range(1, 13)), "end-0"]
    assert stack.record(reply.headers["X-Chatd-Job-Id"])["attempts"][0]["billed"] == "yes"


def test_chunks_of_openai_s_format(stack, upstream):
    """With the usage that the upstream told at its end."""
    upstream.say("in chunks", "Hel", "lo", END)
    options = {"include_usage": True}
    with closing(ask(stack, "in chunks", "chat/completions", stream_options=options)) as reply:
        *chunks, done = pieces(reply)
    content = [
        choice["delta"].get("content", "") for one in chunks for choice in one.json["choices"]
    ]

    assert ("".join(content), done.data) == ("Hello", "[DONE]")
    assert chunks[-1].json["usage"]["total_tokens"] == 10


def test_who_hangs_up_is_hung_up_on(stack, upstream):
    """The upstream's connection is closed, and the record has what had come."""
    upstream.say("hung up", "Hel")
    reply = ask(stack, "hung up")
    first = next(pieces(reply))
    reply.close()
    ended = stack.ended(reply.headers["X-Chatd-Job-Id"])

    def left():
        upstream.say("hung up", "lo")
        return "hung up" in upstream.left

    eventually(left, within_s=10, what="the upstream sees it")
    assert first.json == {"content": "Hel"}
    assert (ended["state"], ended["error"]["partial"]["content"]) == ("cancelled", "Hel")


@pytest.mark.parametrize("by_key", [True, False], ids=["by key", "by id"])
def test_who_breaks_off_again_and_again_has_the_whole_text(stack, upstream, by_key):
    """One event from each connection, while it is said and after the end."""
    question = f"broken-off-{by_key}"
    upstream.say(question, *WORDS[:6])
    with closing(ask(stack, question, key=question)) as reply:
        told = [next(pieces(reply))]
    job_id = reply.headers["X-Chatd-Job-Id"]
    while told[-1].event != "answer":
        had = told[-1].id
        if text_of(told) == "".join(WORDS[:6]):
            upstream.say(question, *WORDS[6:], END)
        again = (
            ask(stack, question, key=question, had=had) if by_key else follow(stack, job_id, had)
        )
        with closing(again) as reply:
            told.append(next(pieces(reply)))

    assert text_of(told) == WHOLE == told[-1].json["content"]
    assert upstream.calls.count(question) == 1


def test_a_stream_goes_on_at_the_next_front_end(stack, upstream):
    """The one that ends says so after drain_s; the job did not notice."""
    upstream.say("drained", *WORDS[:3])
    with closing(ask(stack, "drained")) as reply:
        events = pieces(reply)
        told = [next(events)]
        stack.api.send(signal.SIGTERM)
        told += events
    code = stack.api.wait(30)
    stack.api.start()
    eventually(stack.ready)
    error = told.pop()
    upstream.say("drained", *WORDS[3:], END)
    with closing(follow(stack, error.json["error"]["job_id"], told[-1].id)) as again:
        told += pieces(again)

    assert (error.event, error.json["error"]["code"], code) == ("error", "draining", 0)
    assert text_of(told) == WHOLE
    assert upstream.calls.count("drained") == 1


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_stream_outlives_a_redis_that_is_away(stack, upstream, end):
    """What was said meanwhile comes when it is back; the call went on, whatever it forgot."""
    question = f"redis away by {end}"
    upstream.say(question, *WORDS[:3])
    with closing(ask(stack, question)) as reply:
        events = pieces(reply)
        told = [next(events)]
        getattr(stack.redis, end)()
        upstream.say(question, *WORDS[3:], END)
        stack.redis.start()
        told += events

    assert (text_of(told), told[-1].event) == (WHOLE, "answer")
    assert len({one.id for one in told}) == len(told)
    assert upstream.calls.count(question) == 1
