"""What every part of the store suite works with: jobs, a store, and books that must balance."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import redis

from chat.config import ChatdConfig
from chat.jobs import Ending, JobState, NewJob, new_job_id, queue_name
from chat.store import Grant, Held, JobStore
from chat.types import ChatRequest, Lane, Message, Role

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
    lanes_and_permits(client)


def lanes_and_permits(client: redis.Redis) -> None:
    """What is counted by lane, by budget and by permit is what the records say."""
    records = [client.hgetall(key) for key in client.scan_iter("job:*")]
    for lane in client.scan_iter("lane:*"):
        mine = [record for record in records if record["queue"] == lane.removeprefix("lane:")]
        counted = client.hgetall(lane)
        assert int(counted.get("jobs", 0)) == sum(
            record["state"] in ("queued", "waiting") for record in mine
        )
        assert int(counted.get("bytes", 0)) == sum(int(record["bytes"]) for record in mine)
    for key in client.scan_iter("budget:*"):
        budget = key.removeprefix("budget:")
        for lane in Lane:
            mine = [r for r in records if (r["budget"], r["lane"]) == (budget, lane)]
            queued = sum(record["state"] == "queued" for record in mine)
            parked = client.zcard(f"parked:{budget}:{lane}")
            due = sum(
                client.zscore("due", job.removeprefix("job:")) is not None
                for job in client.scan_iter("job:*")
                if client.hmget(job, "budget", "lane") == [budget, lane]
            )
            assert int(client.hget(key, lane) or 0) == queued
            assert parked + due == sum(record["state"] == "waiting" for record in mine)
    for key in client.scan_iter("calls:*"):
        provider = key.removeprefix("calls:")
        in_use = {str(n): int(v) for n, v in client.hgetall(f"in_use:{provider}").items()}
        held = [str(call).split(" ", 1) for call in client.hvals(key)]
        assert set(client.hkeys(key)) == set(client.zrange(f"leases:{provider}", 0, -1))
        for lane in Lane:
            assert in_use.get(lane, 0) == sum(mine == lane for mine, _ in held)
        for name, value in in_use.items():
            if name.startswith("budget "):
                assert value == sum(budget == name.removeprefix("budget ") for _, budget in held)


class StoreBase:
    """Every test leaves the books balanced."""

    @pytest.fixture
    def config(self) -> ChatdConfig:
        return ChatdConfig()

    @pytest.fixture
    def store(self, client, config):
        store = JobStore(client, config)
        store.register_settings(["ollama"])
        text = '{"id":"@JOB@","tag":"@TAG@"}'
        store.register_envelopes({queue_name("ollama", lane): text for lane in Lane})
        yield store
        balance(client)

    def permits(self, client, permits: int) -> None:
        """Let Ollama have so many permits from now on."""
        settings = json.loads(client.hget("settings:ollama", "provider"))
        client.hset("settings:ollama", "provider", json.dumps({**settings, "permits": permits}))

    def start(self, store: JobStore, job_id: str, token: str = "t1") -> Grant:
        grant = store.start(job_id, worker="ollama-1@here", token=token)
        assert isinstance(grant, Grant), grant
        return grant

    def refused(self, store: JobStore, job_id: str, token: str = "t9", **options: Any) -> str:
        """Why a job does not start."""
        held = store.start(job_id, worker="w", token=token, **options)
        assert isinstance(held, Held), held
        return held.why

    def ending(self, grant: Grant, **changes: Any) -> Ending:
        """The end of a call that went well, unless ``changes`` say otherwise."""
        ending = Ending(
            job_id=grant.job_id,
            token=grant.token,
            record=grant.record,
            provider="ollama",
            worker="ollama-1@here",
            state="succeeded",
            payload={"content": "Paris – “ok”"},
            outcome="succeeded",
            upstream_status=200,
            billed="yes",
            signal="accepted",
        )
        return replace(ending, **changes)

    def finish(self, store, grant, state=JobState.SUCCEEDED, payload=None, outcome="succeeded"):
        ending = self.ending(grant, state=state.value, outcome=outcome)
        finished = store.finish(replace(ending, payload=payload or ending.payload))
        return finished.what, finished.detail

    def reclaim(self, store: JobStore) -> list[str]:
        return [store.reclaim("ollama", call).became for call in store.calls("ollama")]
