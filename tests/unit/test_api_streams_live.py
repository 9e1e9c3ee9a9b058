"""Streams over the real store and its reply channel, on a fake server; a thread is the worker."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import fakeredis
import pytest
from flask.testing import FlaskClient

from api import create_app
from chat.catalogue import Catalogue
from chat.replies import Replies
from chat.settings import ChatdConfig
from chat.store import Grant, JobStore
from chat.types import JSON, Delta
from tests.events import read, say, text_of
from tests.fakes import registered_names
from tests.store_suite import StoreSuite
from tests.waiting import eventually

BODY: JSON = {
    "model": "qwen3:8b",
    "messages": [{"role": "user", "content": "hi"}],
    "stream": True,
}
ANSWER: JSON = {
    "content": "hello",
    "reasoning": None,
    "tool_calls": [],
    "finish_reason": "stop",
    "provider": "ollama",
    "upstream_model": "qwen3:8b",
    "input_tokens": 3,
    "output_tokens": 1,
    "latency_ms": 5,
}


@dataclass
class Chatd:
    """A front end, and what a worker does with the jobs that it takes."""

    client: FlaskClient
    store: JobStore

    def take(self) -> Grant:
        """The one job that waits, once there is one."""
        found: list[str] = []

        def waits() -> bool:
            found[:] = [record.id for record in self.store.listed().records]
            return bool(found)

        eventually(waits, within_s=10, what="a job")
        grant = self.store.start(found[0], worker="w", token="t")
        assert isinstance(grant, Grant)
        return grant

    def tell(self, grant: Grant, number: int, delta: Delta) -> None:
        """One piece, as the script delivers it."""
        redis, wire = self.store.redis, delta.to_wire()
        redis.xadd(f"stream:{grant.job_id}", {"d": json.dumps(wire)}, id=f"1-{number}")
        for channel in str(redis.hget(f"job:{grant.job_id}", "watch") or "").split():
            redis.publish(channel, json.dumps({"events": [[grant.job_id, 1, number, wire]]}))

    def end(self, grant: Grant) -> None:
        """The answer."""
        StoreSuite().finish(self.store, grant, payload=ANSWER)


@pytest.fixture
def chatd() -> Chatd:
    redis = fakeredis.FakeRedis(decode_responses=True)
    store = JobStore(redis, ChatdConfig())
    store.register_settings(["ollama"])
    store.heartbeat("w", "ollama", [])
    app = create_app(
        ChatdConfig(),
        names=registered_names("ollama"),
        store=store,
        replies=Replies(redis, store),
        catalogue=Catalogue(redis),
    )
    return Chatd(app.test_client(), store)


@pytest.fixture
def worker() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Runs something beside the test, and waits for it at the end."""
    threads: list[threading.Thread] = []
    failed: list[BaseException] = []

    def begin(work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - it is raised where the test ends
                failed.append(error)

        threads.append(threading.Thread(target=run))
        threads[-1].start()

    yield begin
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert failed == []


def test_a_piece_is_there_before_the_next_one_is_made(chatd: Chatd, worker: Any) -> None:
    """The worker goes on only when the client has had what there was."""
    had = [threading.Event() for _ in range(3)]

    def work() -> None:
        grant = chatd.take()
        for number, text in enumerate(("he", "l", "lo"), 1):
            chatd.tell(grant, number, say(text))
            assert had[number - 1].wait(10)
        chatd.end(grant)

    worker(work)
    response = chatd.client.post("/v1/chat", json=BODY)
    raw = b""
    for piece in response.response:
        raw += piece  # type: ignore[operator]
        for event in had[: raw.count(b"event: delta")]:
            event.set()
    response.close()
    told = read(raw)

    assert [one.id for one in told] == ["1-1", "1-2", "1-3", "end-0"]
    assert text_of(told) == "hello"
    assert told[-1].json["content"] == "hello"


def test_who_broke_off_goes_on_by_the_job_s_id(chatd: Chatd, worker: Any) -> None:
    """Behind what it has had, while others read on, also after the end."""
    gone = threading.Event()

    def work() -> None:
        grant = chatd.take()
        chatd.tell(grant, 1, say("he"))
        assert gone.wait(10)
        chatd.tell(grant, 2, say("ll"))
        chatd.end(grant)

    worker(work)
    response = chatd.client.post("/v1/chat", json=BODY, headers={"Idempotency-Key": "k"})
    first = next(iter(response.response))
    response.close()
    gone.set()
    job_id = response.headers["X-Chatd-Job-Id"]
    (begun,) = read(first)  # type: ignore[arg-type]
    for _ in range(2):
        again = chatd.client.get(
            f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": begun.id or ""}
        )
        told = read(again.data)
        again.close()

        assert [one.id for one in told] == ["1-2", "1-2.1", "end-0"]
        assert text_of([begun, *told]) == "hello"
    assert "watch" not in chatd.store.redis.hgetall(f"job:{job_id}")
