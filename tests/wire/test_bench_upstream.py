"""The scripted upstream of the benches does to a call what it is told to."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
import requests

from bench.upstream import Conduct, Upstream
from tests.waiting import eventually


@pytest.fixture
def upstream():
    upstream = Upstream().start()
    yield upstream
    upstream.stop()


def ask(upstream, question, timeout=10.0):
    body: Any = {"model": "echo", "messages": [{"role": "user", "content": question}]}
    with (
        requests.Session() as http,
        closing(http.post(f"{upstream.url}/api/chat", json=body, timeout=timeout)) as reply,
    ):
        return reply.json()["message"]["content"]


def test_each_question_has_its_own_conduct(upstream):
    upstream.conduct = lambda question: Conduct(0.0, "reset" if question == "b" else "answer")

    assert ask(upstream, "a") == "echo: a"
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        ask(upstream, "b")
    assert ask(upstream, "c") == "echo: c"
    assert [seen.became for seen in upstream.log] == ["answered", "reset", "answered"]
    eventually(lambda: upstream.answered == 2, what="both answers are counted")


def test_a_silent_upstream_waits_for_its_caller_to_hang_up(upstream):
    upstream.conduct = lambda _: Conduct(0.0, "silence")

    with pytest.raises(requests.ReadTimeout):
        ask(upstream, "a", timeout=0.2)
    eventually(lambda: upstream.log[0].became)
    assert (upstream.log[0].became, upstream.dropped) == ("dropped", 1)
