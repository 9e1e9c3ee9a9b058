"""What every part of the store suite works with: jobs, a store, and books that must balance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import redis

from chat.config import ChatdConfig
from chat.jobs import JobState, NewJob, new_job_id, queue_name
from chat.store import Grant, JobStore
from chat.types import Billed, ChatRequest, Lane, Message, Role

STATES = ("queued", "waiting", "calling", "succeeded", "failed", "cancelled", "expired")
QUEUE = "chat.ollama"


def a_job(**changes: Any) -> NewJob:
    """A job of local Ollama's interactive lane that has a minute."""
    job = NewJob(
        id=new_job_id(),
        request=ChatRequest("qwen3:8b", (Message(Role.USER, "Capital of France? – “Paris”"),)),
        provider="ollama",
        upstream_model="qwen3:8b",
        lane=Lane.INTERACTIVE,
        timeout_ms=60_000,
    )
    return replace(job, **changes)


def balance(client: redis.Redis) -> None:
    """accepted = the sum over the states + retired, and each count is the true one."""
    acct = {name: int(value) for name, value in client.hgetall("acct").items()}
    live = [client.hget(key, "state") for key in client.scan_iter("job:*")]
    counted = {state: acct.get(state, 0) for state in STATES}

    assert acct.get("accepted", 0) == sum(counted.values()) + acct.get("retired", 0)
    assert counted == {state: live.count(state) for state in STATES}
    assert min(acct.values(), default=0) >= 0


class StoreBase:
    """Every test leaves the books balanced."""

    @pytest.fixture
    def config(self) -> ChatdConfig:
        return ChatdConfig()

    @pytest.fixture
    def store(self, client, config):
        store = JobStore(client, config)
        text = '{"id":"@JOB@","tag":"@TAG@"}'
        store.register_envelopes({queue_name("ollama", lane): text for lane in Lane})
        yield store
        balance(client)

    def start(self, store: JobStore, job_id: str, token: str = "t1", permits: int = 4) -> Grant:
        grant = store.start(job_id, worker="ollama-1@here", token=token, permits=permits)
        assert isinstance(grant, Grant), grant
        return grant

    def finish(self, store, grant, state=JobState.SUCCEEDED, payload=None, outcome="succeeded"):
        return store.finish(
            grant,
            provider="ollama",
            worker="ollama-1@here",
            state=state,
            payload=payload or {"content": "Paris – “ok”"},
            outcome=outcome,
            upstream_status=200,
            billed=Billed.YES,
        )

    def reclaim(self, store: JobStore) -> list[str]:
        return [store.reclaim("ollama", call).became for call in store.calls("ollama")]
