"""What every part of the store suite works with: jobs, a store, and books that must balance."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
import redis

from chat.config import ChatdConfig
from chat.jobs import Ending, JobState, NewJob, new_job_id, queue_name
from chat.store import Finished, Grant, Held, JobStore
from chat.types import JSON, ChatRequest, Lane, Message, Role
from tests.store_books import balance

__all__ = [
    "BATCH",
    "DAY_MS",
    "QUEUE",
    "StoreBase",
    "a_job",
    "balance",
    "ms_of",
    "new_life",
    "now_ms",
    "same",
]

QUEUE = "chat.ollama"
BATCH = "chat.ollama.batch"
DAY_MS = 86_400_000


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


def same(one: Grant, other: Grant) -> bool:
    """Whether two grants differ in nothing but how much time is left."""
    records = [json.loads(grant.record) for grant in (one, other)]
    alike = replace(one, remaining_ms=other.remaining_ms, record=other.record)
    return records[0] == records[1] and alike == other


def now_ms(client: redis.Redis) -> int:
    """The time as the scripts know it."""
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def ms_of(text: str) -> int:
    """An RFC 3339 time as ms since the epoch."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def new_life(client: redis.Redis) -> None:
    """Let the server be started anew: without scripts, and later than its last life began."""
    began = client.get("chatd:life")
    while began is not None and now_ms(client) <= int(str(began)):
        pass
    client.script_flush()
    client.delete("chatd:run")


class StoreBase:
    """Every test leaves the books balanced.

    Time cannot be set on a server, so a test that needs some to pass moves what is stored.
    ``pipelined`` is the store's own: whether scripts go the way of a front end's and a worker's.
    """

    pipelined = False

    @pytest.fixture
    def config(self) -> ChatdConfig:
        return ChatdConfig()

    @pytest.fixture
    def store(self, client, config):
        providers = ["ollama", "openrouter"]
        store = JobStore(client, config, pipelined=self.pipelined)
        store.register_settings(providers)
        text = '{"id":"@JOB@","tag":"@TAG@"}'
        queues = [queue_name(provider, lane) for provider in providers for lane in Lane]
        store.register_envelopes(dict.fromkeys(queues, text))
        store.life()  # Redis has the scripts from here on.
        yield store
        balance(client)

    # -- what is configured

    def settings(self, client, provider="ollama", **changes: Any) -> None:
        """Let other settings of a provider hold from now on."""
        settings = json.loads(client.hget(f"settings:{provider}", "provider"))
        client.hset(f"settings:{provider}", "provider", json.dumps({**settings, **changes}))

    def permits(self, client, permits: int) -> None:
        """Let Ollama have so many permits from now on."""
        self.settings(client, permits=permits)

    def limit(self, client, match="*", *, provider="ollama", **numbers: Any) -> None:
        """Let a budget have these numbers and no others; nothing is learned unless they say so."""
        limit = json.dumps({"learn": False, **numbers})
        client.hset(f"settings:{provider}", f"limit:{match}", limit)

    # -- time

    def close(self, client, seconds: float, why="rate_limited", budget="ollama:*") -> int:
        """Close a budget until then; returns when that is (ms)."""
        until = now_ms(client) + int(seconds * 1000)
        client.hset(f"budget:{budget}", mapping={"closed_until": until, "why": why})
        return until

    def reopen(self, client, budget="ollama:*") -> None:
        """Let the cool-down of a budget be over."""
        client.hset(f"budget:{budget}", "closed_until", 1)

    def age(self, client, job: NewJob, seconds: float) -> None:
        """Let a job have been admitted so long ago."""
        client.hset(f"job:{job.id}", "created", now_ms(client) - int(seconds * 1000))

    # -- jobs

    def admitted(self, store: JobStore, **changes: Any) -> NewJob:
        """A job of the interactive lane that was let in."""
        job = a_job(**changes)
        store.admit(job)
        return job

    def batch(self, store: JobStore, count: int, **changes: Any) -> list[NewJob]:
        """Jobs of the batch lane that were let in, in this order."""
        return [self.admitted(store, lane=Lane.BATCH, **changes) for _ in range(count)]

    def list_of(self, client, queue=QUEUE) -> list[str]:
        """The jobs whose wake-ups lie in a queue's list, in the order in which they are fetched."""
        return [json.loads(text)["id"] for text in reversed(client.lrange(queue, 0, -1))]

    def waits_for(self, store: JobStore, job: NewJob) -> str | None:
        """Why a job is not being called."""
        waiting = store.record(job.id).waiting
        return None if waiting is None else waiting["reason"]

    def everything(self, client) -> JSON:
        """All that is stored, without the audit stream, which tells of every call."""
        found = {}
        for key in client.keys("*"):
            if key == "audit":
                continue
            kind = client.type(key)
            if kind == "hash":
                found[key] = client.hgetall(key)
            elif kind == "zset":
                found[key] = client.zrange(key, 0, -1, withscores=True)
            elif kind == "list":
                found[key] = client.lrange(key, 0, -1)
            elif kind == "stream":
                found[key] = tuple(client.xrange(key))
            else:
                found[key] = client.get(key)
        return found

    # -- calls

    def start(self, store: JobStore, job_id: str, token: str = "t1") -> Grant:
        grant = store.start(job_id, worker="ollama-1@here", token=token)
        assert isinstance(grant, Grant), grant
        return grant

    def fetch(self, store: JobStore, job: NewJob) -> None:
        """Take the wake-ups of a job out of its list, as a worker does before it starts one."""
        queue = queue_name(job.provider, job.lane)
        for text in store.redis.lrange(queue, 0, -1):
            if json.loads(text)["id"] == job.id:
                store.redis.lrem(queue, 1, str(text))

    def called(self, store: JobStore, *jobs: NewJob) -> list[Grant]:
        """Fetch and start these jobs; the token of each is its own id."""
        for job in jobs:
            self.fetch(store, job)
        return [self.start(store, job.id, job.id) for job in jobs]

    def held(self, store: JobStore, job: NewJob, **options: Any) -> tuple[str, str]:
        """Fetch a job; what it hears instead of a grant, and why."""
        self.fetch(store, job)
        held = store.start(job.id, worker="w", token="t9", **options)
        assert isinstance(held, Held), held
        return held.kind, held.why

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
            provider=json.loads(grant.record)["provider"],
            worker="ollama-1@here",
            state="succeeded",
            payload={"content": "Paris – “ok”"},
            outcome="succeeded",
            upstream_status=200,
            billed="yes",
            signal="accepted",
        )
        return replace(ending, **changes)

    def refusal(self, grant: Grant, code="rate_limited", **changes: Any) -> Ending:
        """The end of a call that a rate limit refused, unless ``changes`` say otherwise."""
        ending = self.ending(
            grant,
            state="failed",
            payload={"code": code, "message": "not now"},
            outcome=code,
            upstream_status=429,
            billed="no",
            signal="refused",
            counts_as="refused",
        )
        return replace(ending, **changes)

    def again(self, grant: Grant, after_s: float = 0, why="rate_limited", **changes: Any) -> Ending:
        """The end of a call that is to be tried again after so many seconds."""
        return self.refusal(grant, again_after_s=after_s, again_why=why, **changes)

    def finish(self, store, grant, state=JobState.SUCCEEDED, payload=None, outcome="succeeded"):
        ending = self.ending(grant, state=state.value, outcome=outcome)
        finished = store.finish(replace(ending, payload=payload or ending.payload))
        return finished.what, finished.detail

    def said(self, finished: Finished) -> tuple[str, str]:
        """What an ending led to, without the room."""
        return finished.what, finished.detail

    def reclaim(self, store: JobStore, provider: str = "ollama") -> list[str]:
        return [store.reclaim(provider, call).became for call in store.calls(provider)]
