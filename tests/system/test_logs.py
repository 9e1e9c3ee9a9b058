"""What all processes write while things go well, go wrong, and end: JSON, and nothing else."""

from __future__ import annotations

import json
import signal

import pytest

from tests.stack import Stack
from tests.waiting import eventually


@pytest.fixture
def start(tmp_path, upstream):
    """Starts chatd with more lines of [chatd]."""
    stacks = []

    def start(settings):
        stack = Stack(tmp_path, {"ollama": upstream.url}, settings=settings)
        stacks.append(stack)
        return stack.start()

    yield start
    for stack in stacks:
        stack.stop()


def logs(stack):
    """What each process has written, standard output included."""
    children = {"api": stack.api, "keeper": stack.keeper, "worker": stack.workers["ollama"]}
    return {name: child.output().splitlines() for name, child in children.items()}


def test_every_line_is_json_and_a_call_is_found_by_its_id(start):
    """At debug, where every library has its say; through an outage, a kill and a stop."""
    stack = start('log_level = "debug"\ntimeout_s = 30')
    answer = stack.chat("hello", headers={"X-Request-Id": "trace-1"}).json()
    stack.chat("hello", "nobody/knows-it")
    stack.redis.kill()
    refused = stack.chat("hello", headers={"X-Request-Id": "trace-2"}).json()
    stack.redis.start()
    eventually(stack.ready, within_s=60)
    afterwards = stack.chat("hello")
    for child in (stack.api, *stack.workers.values(), stack.keeper):
        child.send(signal.SIGINT if child is stack.workers["ollama"] else signal.SIGTERM)
        child.wait(60)
    events = {name: list(map(json.loads, lines)) for name, lines in logs(stack).items()}
    requests = {
        event["request_id"]: event
        for event in events["api"]
        if event["logger"] == "api.request_log"
    }

    assert refused["error"]["code"] == "redis_unavailable"
    assert afterwards.status_code == 200, afterwards.text
    assert requests["trace-1"]["job_id"] == answer["id"]
    assert (requests["trace-2"]["status"], requests["trace-2"]["code"]) == (
        503,
        "redis_unavailable",
    )
    for name, process in (("api", "api"), ("keeper", "keeper"), ("worker", "worker ollama")):
        assert {event["process"] for event in events[name]} == {process}
        assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, events[name]))
    assert "gunicorn.error" in {event["logger"] for event in events["api"]}
    assert any(event["logger"].startswith("celery") for event in events["worker"])


def test_as_text_a_line_begins_with_its_time(start):
    """For whoever reads it as it comes."""
    stack = start('log_format = "text"')
    job_id = stack.chat("hello", headers={"X-Request-Id": "trace-1"}).json()["id"]
    lines = [line for written in logs(stack).values() for line in written]

    assert all(line.startswith("20") for line in lines)
    assert any(
        "INFO api: POST /v1/chat: 200 in" in line
        and line.endswith(f"[request_id=trace-1 job_id={job_id}]")
        for line in lines
    )
