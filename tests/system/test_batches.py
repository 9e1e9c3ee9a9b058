"""Batches from OpenAI's own client through chatd's processes, any of which may die meanwhile."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from tests.batches import lines_of, request_line
from tests.stack import Stack
from tests.waiting import eventually

TERMINAL = {"completed", "failed", "expired", "cancelled"}


@pytest.fixture
def stack(upstream, tmp_path):
    tail = '[models]\nlocal_fast = "echo"\n'
    stack = Stack(tmp_path / "stack", {"ollama": upstream.url}, concurrency=16, tail=tail).start()
    yield stack
    upstream.release()
    stack.stop()


@pytest.fixture
def client(stack):
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=5) as client:
        yield client


def submitted(client, text, **fields):
    """A batch of these lines."""
    file = client.files.create(file=("in.jsonl", io.BytesIO(text.encode())), purpose="batch")
    return client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        **fields,
    )


def ended(client, batch, within_s=120):
    """The batch once it is over."""

    def look():
        found = client.batches.retrieve(batch.id)
        return found if found.status in TERMINAL else None

    return eventually(look, within_s=within_s, what=f"{batch.id} ends")


def called(upstream, count):
    """Wait until so many calls have come."""
    eventually(lambda: upstream.calls.total() >= count, what=f"{count} calls")


def results(client, file_id):
    """The lines of a file of results."""
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def test_a_batch_from_upload_to_download(client, stack, upstream):
    """300 requests, each answered once; Redis keeps none of them."""
    batch = ended(client, submitted(client, lines_of(300, "echo"), metadata={"for": "a test"}))
    lines = results(client, batch.output_file_id)

    assert (batch.status, batch.errors, batch.metadata) == ("completed", None, {"for": "a test"})
    assert (batch.request_counts.completed, batch.request_counts.total) == (300, 300)
    assert batch.usage.total_tokens == sum(
        line["response"]["body"]["usage"]["total_tokens"] for line in lines
    )
    assert len({line["custom_id"] for line in lines}) == 300
    answers = {
        line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"]
        for line in lines
    }
    assert answers["r7"] == "echo: this is r7"
    assert upstream.calls.total() == 300
    assert stack.balanced()["retired"] == 300
    assert [found.id for found in client.batches.list(limit=5)] == [batch.id]


@pytest.mark.parametrize("victim", ["api", "keeper", "worker", "redis"])
def test_a_process_may_die_in_the_middle(client, stack, upstream, victim):
    """Every line has one result, and the ledger has every call that went upstream."""
    upstream.delay_s = 0.05
    batch = submitted(client, lines_of(600, "echo"))
    called(upstream, 100)
    if victim == "redis":
        stack.redis.kill()
        stack.redis.start()
    else:
        child = stack.workers["ollama"] if victim == "worker" else getattr(stack, victim)
        child.kill()
        child.start()
        eventually(stack.ready, within_s=60)
    batch = ended(client, batch)
    lines = results(client, batch.output_file_id)

    assert (batch.status, batch.request_counts.completed) == ("completed", 600)
    assert sorted(line["chatd"]["line"] for line in lines) == list(range(1, 601))
    assert upstream.calls.total() <= sum(len(line["chatd"]["attempts"]) for line in lines)
    stack.balanced()


def test_cancelling_stops_the_calls(client, stack, upstream):
    """What is in a call is closed, what was not sent never is, and everything is accounted for."""
    upstream.hold()
    batch = submitted(client, lines_of(3000, "echo"))
    called(upstream, 10)
    client.batches.cancel(batch.id)
    batch = ended(client, batch)

    assert batch.status == "cancelled"
    assert batch.request_counts.failed == batch.request_counts.total == 3000
    assert {line["error"]["code"] for line in results(client, batch.error_file_id)} == {
        "batch_cancelled"
    }
    eventually(lambda: stack.store.counters().get("calling", 0) == 0)
    assert upstream.calls.total() <= 16


BAD_FILES = [
    pytest.param(lines_of(6, "echo") + "{oops\n", 7, "invalid_request", id="no-json"),
    pytest.param(lines_of(2, "echo") * 2, 3, "duplicate_custom_id", id="twice"),
    pytest.param(request_line("a", "kimi/k2"), 1, "provider_not_registered", id="provider"),
    pytest.param("\n", None, "empty_file", id="no-requests"),
]


@pytest.mark.parametrize(("text", "line", "code"), BAD_FILES)
def test_a_bad_file_is_refused_before_anything_is_queued(client, stack, text, line, code):
    """As the client sees it: status failed, the errors with the numbers of their lines."""
    batch = ended(client, submitted(client, text))

    assert batch.status == "failed"
    assert (batch.errors.data[0].line, batch.errors.data[0].code) == (line, code)
    assert stack.store.counters().get("accepted", 0) == 0


def test_two_batches_and_people_get_on(client, stack, upstream):
    """Both batches move together, and a person is not behind them."""
    upstream.delay_s = 0.05
    batches = [submitted(client, lines_of(400, "echo")) for _ in range(2)]
    called(upstream, 50)
    with ThreadPoolExecutor(4) as people:
        chats = [people.submit(stack.chat, f"person {n}") for n in range(20)]
        assert {chat.result().status_code for chat in chats} == {200}
    running = [client.batches.retrieve(batch.id) for batch in batches]

    assert {batch.status for batch in running} <= {"in_progress", "validating"}
    counts = [ended(client, batch).request_counts for batch in batches]
    assert [count.completed for count in counts] == [400, 400]
