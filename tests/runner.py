"""A worker's runner with everything around it: a fake server, a provider that does as told."""

from __future__ import annotations

import threading

import fakeredis
import redis

from chat.config import ChatdConfig
from chat.registry import Registry
from chat.store import JobStore
from chat.types import ChatResponse, FinishReason
from tests.store_suite import a_job
from workers.calls import Calls
from workers.orphans import Orphans
from workers.runner import Runner

__all__ = ["Bench", "FlakyRedis", "Scripted"]


class Scripted:
    """A provider that does what ``act`` says."""

    name = "ollama"

    def __init__(self):
        self.requests = []
        self.act = lambda **_: ChatResponse("Paris", FinishReason.STOP, output_tokens=1)

    def chat(self, request, *, deadline, cancelled, deltas=None):
        self.requests.append(request)
        return self.act(deadline=deadline, cancelled=cancelled, deltas=deltas)


class FlakyRedis(fakeredis.FakeRedis):
    """Fails the next ``failures`` commands, after doing them when ``after`` is set."""

    failures = 0
    after = False

    def execute_command(self, *args, **options):
        if self.failures and args[0] == "EVALSHA":
            self.failures -= 1
            if self.after:
                super().execute_command(*args, **options)
            message = "gone"
            raise redis.ConnectionError(message)
        return super().execute_command(*args, **options)


class Bench:
    """A runner with everything around it."""

    def __init__(self, folder):
        self.client = FlakyRedis(decode_responses=True)
        self.store = JobStore(self.client, ChatdConfig())
        self.store.register_settings(["ollama"])
        self.provider = Scripted()
        self.stopping = threading.Event()
        self.orphans = Orphans(folder)
        self.calls = Calls(self.store, "ollama-1@here", "ollama")
        self.runner = Runner(
            store=self.store,
            registry=Registry({"ollama": self.provider}, {}),
            calls=self.calls,
            orphans=self.orphans,
            provider="ollama",
            worker="ollama-1@here",
            config=ChatdConfig(),
            stopping=self.stopping,
        )
        # One script of each kind is loaded now, so that failures hit EVALSHA and nothing else.
        self.run_one()

    def run_one(self, **changes):
        job = a_job(**changes)
        self.store.admit(job)
        self.runner.run(job.id)
        return self.store.record(job.id)
