"""A Redis that is reached through a unix socket, as on a machine that opens no port for it."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from bench.upstream import Upstream
from tests.servers import RedisProcess
from tests.stack import Stack


@pytest.fixture
def upstream():
    upstream = Upstream().start()
    yield upstream
    upstream.stop()


@pytest.fixture
def stack(upstream, tmp_path):
    server = RedisProcess(tmp_path / "redis")
    # A socket's path has at most 107 characters, which pytest's folders may exceed.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "redis.sock"
        server.child.command += ["--unixsocket", str(path), "--requirepass", "open sesame"]
        server.url = f"unix://:open%20sesame@{path}?db=3"
        server.client = redis.Redis.from_url(server.url, decode_responses=True, protocol=2)
        stack = Stack(tmp_path, {"ollama": upstream.url}, redis=server)
        yield stack.start()
        stack.stop()


def test_every_process_gets_there(stack):
    """Front end, worker and keeper; with a password and a database of one's own."""
    with ThreadPoolExecutor(8) as pool:
        answers = [r.json()["content"] for r in pool.map(stack.chat, map(str, range(20)))]
    record = stack.ended(stack.submit("later"))

    assert answers == [f"echo: {number}" for number in range(20)]
    assert record["state"] == "succeeded"
    assert stack.redis.client.connection_pool.connection_kwargs["db"] == 3
    assert stack.redis.client.exists(f"job:{record['id']}")
