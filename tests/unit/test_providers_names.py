"""Looking up hosts: once for all who connect at the same time, failures included."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chat.providers import names
from chat.providers.names import addresses


class Server:
    """The name server: answers with how often it was asked, or fails; may be slow."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.fault: Exception | None = None
        self.answers = threading.Event()
        self.answers.set()
        self.now = 100.0

    def getaddrinfo(self, host: str, port: int, **options: Any) -> list[Any]:
        """As the socket module has it."""
        self.asked.append((host, port, options))
        assert self.answers.wait(10)
        if self.fault is not None:
            raise self.fault
        return [len(self.asked)]

    def monotonic(self) -> float:
        """The clock."""
        return self.now


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """In the place of the real one, with nothing known yet."""
    server = Server()
    monkeypatch.setattr("chat.providers.names.socket.getaddrinfo", server.getaddrinfo)
    monkeypatch.setattr("chat.providers.names.time.monotonic", server.monotonic)
    monkeypatch.setattr(names, "_names", {})
    return server


def _together(count: int, server: Server) -> list[Any]:
    """What so many callers hear who ask while the server takes its time."""
    server.answers.clear()
    with ThreadPoolExecutor(count) as pool:
        asking = [pool.submit(addresses, "host", 80) for _ in range(count)]
        server.answers.set()
        return [future.exception(10) or future.result(10) for future in asking]


def test_all_who_connect_at_once_share_one_look_up(server: Server) -> None:
    """It asks for what connections are made of."""
    assert _together(20, server) == [[1]] * 20
    assert server.asked == [("host", 80, {"type": socket.SOCK_STREAM})]


def test_they_share_its_failure_too(server: Server) -> None:
    """Each raises an error of its own: else a thousand would wait for as many time-outs."""
    server.fault = socket.gaierror(socket.EAI_AGAIN, "not now")
    heard = _together(20, server)

    assert {(type(error), error.args) for error in heard} == {
        (socket.gaierror, (socket.EAI_AGAIN, "not now"))
    }
    assert len({id(error) for error in heard}) == 20
    assert len(server.asked) == 1


def test_after_a_second_one_asks_again(server: Server) -> None:
    """Hosts move, and name servers come back."""
    server.fault = socket.gaierror(socket.EAI_AGAIN, "not now")
    with pytest.raises(socket.gaierror):
        addresses("host", 80)
    server.fault = None
    server.now += 0.9
    with pytest.raises(socket.gaierror):
        addresses("host", 80)
    server.now += 0.2

    assert addresses("host", 80) == [2]


@pytest.mark.usefixtures("server")
def test_hosts_and_ports_are_told_apart() -> None:
    """Addresses have the port in them."""
    found = [addresses(host, port) for host, port in (("a", 1), ("a", 2), ("b", 1), ("a", 1))]

    assert found == [[1], [2], [3], [1]]


def test_what_is_no_name_is_not_found(server: Server) -> None:
    """The codec of host names refuses some before anybody is asked."""
    server.fault = UnicodeError("label too long")
    with pytest.raises(socket.gaierror, match="label too long"):
        addresses("x" * 70, 80)
