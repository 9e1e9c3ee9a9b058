"""The store's scripts on a real server: the suite that also runs on the fake one."""

from __future__ import annotations

import pytest

from tests.servers import RedisProcess
from tests.store_suite import StoreSuite, a_job


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
    """The suite on the server `chatd up` would start."""

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
