"""The store's scripts on a real server: the suite that also runs on the fake one."""

from __future__ import annotations

import pytest

from chat.errors import QueueUnavailable
from tests.servers import RedisProcess
from tests.store_model import explore
from tests.store_streamed import numbered, text
from tests.store_suite import StoreSuite, a_job
from workers.keeper import Keeper


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = RedisProcess(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
def client(server):
    server.client.flushdb()
    return server.client


class TestStore(StoreSuite):
    """The suite on the server `chatd up` would start, by way of the pipeline."""

    pipelined = True

    def test_finish_gets_through_when_redis_is_full(self, store, client):
        """Its first write frees memory; an answer that was paid for is not refused."""
        job = a_job()
        store.admit(job)
        grant = self.start(store, job.id)
        try:
            client.config_set("maxmemory", 1)
            done = self.finish(store, grant)
        finally:
            client.config_set("maxmemory", 0)

        assert done == ("done", "succeeded")
        assert store.record(job.id).state == "succeeded"

    def test_a_full_redis_takes_no_pieces_and_the_answer(self, store, client):
        """They come with it: none was promised, and none is half there."""
        grants = [self.start(store, self.admitted(store).id) for _ in range(2)]
        store.deliver(numbered(grants[0], text("a")))
        before = self.everything(client)
        pieces = [*numbered(grants[0], text("b"), 2), *numbered(grants[1], text("a"))]
        try:
            client.config_set("maxmemory", 1)
            with pytest.raises(QueueUnavailable):
                store.deliver(pieces)
            during = self.everything(client)
            done = [self.finish(store, grant) for grant in grants]
        finally:
            client.config_set("maxmemory", 0)

        assert during == before
        assert done == [("done", "succeeded")] * 2

    def test_a_full_redis_can_free_itself(self, store, client):
        """Cancelling, expiring, giving up, renewing and removing go on; admitting does not."""
        queued, due, lost, running = a_job(), a_job(timeout_ms=0), a_job(), a_job()
        for job in (queued, due, lost, running):
            store.admit(job)
        self.start(store, lost.id, "lost")
        self.start(store, running.id, "running")
        keeper = Keeper(store, ["ollama"])
        try:
            client.config_set("maxmemory", 1)
            beat = store.heartbeat("ollama-1@here", "ollama", [(running.id, "running")])
            cancelled = store.cancel(queued.id)
            became = [
                store.reclaim("ollama", call).became
                for call in store.calls("ollama")
                if call.token == "lost"
            ]
            keeper.tick()
            with pytest.raises(QueueUnavailable):
                store.admit(a_job())
        finally:
            client.config_set("maxmemory", 0)

        assert (beat, cancelled, became) == ([], "cancelled", ["failed"])
        assert store.record(due.id).state == "expired"
        assert store.record(running.id).state == "calling"

    def test_a_full_redis_takes_back_what_it_forgot(self, store, client):
        """A restart finds it as full as it was; calls go on all the same."""
        job = a_job()
        then = self.everything(client)
        store.admit(job)
        grant = self.start(store, job.id)
        self.back_to(client, then)
        client.delete("chatd:life")
        try:
            client.config_set("maxmemory", 1)
            life = store.life()
            became = store.reassert(grant, worker="ollama-1@here", provider="ollama")
            done = self.finish(store, grant)
        finally:
            client.config_set("maxmemory", 0)

        assert life.isdigit()
        assert (became, done) == ("recreated", ("done", "succeeded"))

    def test_processes_that_find_a_restart_together_note_one(self, store, client):
        """Workers that were heard after the first of them are heard."""
        first = store.life()
        client.script_flush()

        assert store.life() == first


def test_the_books_balance_whatever_happens(client):
    """Any order of what front ends, workers, the keeper and time may do."""
    explore(client, examples=30, steps=40)
