"""A provider's list reaches `GET /v1/models`, and a price the record, through every process."""

from __future__ import annotations

import pytest

from bench.upstream import Upstream
from tests.stack import Stack
from tests.waiting import eventually

PRICES = """
[[chatd.prices]]
match = "ollama/echo*"
input_per_million_usd = 1
output_per_million_usd = 2
[models]
fast = "echo:latest"
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    upstream = Upstream().start()
    folder = tmp_path_factory.mktemp("models")
    settings = "models_refresh_s = 1"
    stack = Stack(folder, {"ollama": upstream.url}, settings=settings, tail=PRICES)
    try:
        yield stack.start()
    finally:
        stack.stop()
        upstream.stop()


def names(stack):
    """What is listed, by the front end."""
    return [entry["id"] for entry in stack.http.get(f"{stack.url}/v1/models").json()["data"]]


def test_what_the_worker_was_told_is_listed(stack):
    """The worker asks when it starts; the front end never does."""
    eventually(lambda: len(names(stack)) > 1, what="the worker's first look")
    one = stack.http.get(f"{stack.url}/v1/models/ollama/echo")

    assert names(stack) == ["fast", "echo:latest"]
    assert one.json()["owned_by"] == "ollama"


def test_a_list_that_redis_has_lost_comes_back(stack):
    """With the next look."""
    eventually(lambda: len(names(stack)) > 1, what="a list")
    stack.redis.client.delete("models:ollama")
    eventually(lambda: len(names(stack)) > 1, what="the next look")

    assert names(stack) == ["fast", "echo:latest"]


def test_the_answer_and_the_record_have_the_same_cost(stack):
    """Seven tokens in and three out, as the upstream counts them."""
    answer = stack.chat("How much?", "fast").json()

    assert answer["cost_usd"] == 0.000013
    assert stack.record(answer["id"])["response"]["cost_usd"] == 0.000013
