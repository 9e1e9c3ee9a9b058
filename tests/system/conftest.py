"""A real Redis for each test, and chatd's processes on it."""

from __future__ import annotations

import pytest

from bench.upstream import Upstream
from tests.servers import RedisProcess


@pytest.fixture
def redis_server(tmp_path):
    """A server of its own, empty, with an append-only file."""
    server = RedisProcess(tmp_path / "redis").start()
    yield server
    server.resume()
    server.stop()


@pytest.fixture
def upstream():
    """A model server of its own, which answers at once."""
    upstream = Upstream().start()
    yield upstream
    upstream.release()
    upstream.stop()
