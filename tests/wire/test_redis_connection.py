"""What becomes of calls to a Redis that has fallen silent, on real connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis

from chat.connection import KEEPALIVE, connect, redis_errors
from chat.errors import QueueUnavailable


class Redis:
    """Says OK to whatever comes, or PONG, until it is ``silent``."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._server.getsockname()[1]}/0"
        self.silent = False
        self.accepted: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:  # It was closed.
                return
            self.accepted.append(connection)
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError):  # It was closed.
            while command := connection.recv(65536):  # One at a time: each waits for its answer.
                if not self.silent:
                    connection.sendall(b"+PONG\r\n" if b"PING" in command else b"+OK\r\n")

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)
        for connection in self.accepted:
            connection.close()


@pytest.fixture
def server() -> Iterator[Redis]:
    """A server that can fall silent."""
    server = Redis()
    yield server
    server.close()


def test_a_silent_redis_is_tried_as_often_as_was_said(server: Redis) -> None:
    """A try that has to connect is one try: connecting is not tried again and again within it."""
    connected: list[bool] = []

    class Connection(redis.Connection):
        def _connect(self) -> Any:
            connected.append(not server.silent)
            if server.silent:
                # As if the packets that open a connection were swallowed as well.
                raise TimeoutError
            return super()._connect()

    client = connect(server.url, timeout_s=0.2, retries=2)
    client.connection_pool.connection_class = Connection
    client.ping()
    server.silent = True
    with pytest.raises(QueueUnavailable), redis_errors():
        client.ping()

    # Once on the connection that stood, twice on one that could not be made.
    assert connected == [True, False, False]


@pytest.mark.skipif(not KEEPALIVE, reason="this system has none of the options")
def test_a_connection_to_redis_asks_whether_the_other_side_is_still_there(server: Redis) -> None:
    """Within seconds: a subscription only listens, and would wait for hours."""
    pool = connect(server.url).connection_pool
    connection: Any = pool.get_connection()
    sock: socket.socket = connection._sock
    found = {name: sock.getsockopt(socket.IPPROTO_TCP, name) for name in KEEPALIVE}
    pool.disconnect()

    assert found == KEEPALIVE
