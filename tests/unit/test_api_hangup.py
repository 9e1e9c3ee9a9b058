"""The hang-up monitor: sees a caller go, takes no byte, touches nothing it does not watch."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import gevent.socket
import pytest

from api.hangup import HangupMonitor, client_socket, is_closed


@pytest.fixture(params=["plain", "gevent"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end and the caller's; gevent's sockets are those of the production server."""
    make = socket.socketpair if request.param == "plain" else gevent.socket.socketpair
    ours, theirs = make()
    with ours, theirs:
        yield ours, theirs


def _monitor() -> HangupMonitor:
    """A monitor without its thread: it looks when ``sweep`` is called."""
    return HangupMonitor(spawn=lambda _: None)


def test_an_open_connection_is_not_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    """Silence is not an end, and looking does not wait for one."""
    assert not is_closed(pair[0])


def test_bytes_that_wait_are_left_where_they_are(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """A pipelined request is still whole after the look."""
    ours, theirs = pair
    theirs.sendall(b"GET /")

    assert not is_closed(ours)
    assert ours.recv(100) == b"GET /"


def test_a_closed_connection_is_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    """The other side's close is an end of file."""
    pair[1].close()

    assert is_closed(pair[0])


def test_half_closing_counts_as_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    """It cannot be told from a close."""
    pair[1].shutdown(socket.SHUT_WR)

    assert is_closed(pair[0])


def test_looking_leaves_the_connection_usable(pair: tuple[socket.socket, socket.socket]) -> None:
    """The descriptor is borrowed and given back open, in the mode it was in."""
    ours, theirs = pair
    timeout = ours.gettimeout()
    is_closed(ours)
    ours.sendall(b"answer")

    assert theirs.recv(100) == b"answer"
    assert ours.gettimeout() == timeout


def test_a_reset_counts_as_closed() -> None:
    """A caller that was killed may send a reset instead of an end of file."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
        with ours:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            theirs.close()

            assert is_closed(ours)


def test_a_socket_closed_on_our_side_is_closed() -> None:
    """It has no descriptor any more; that is not an error."""
    ours, theirs = socket.socketpair()
    ours.close()
    theirs.close()

    assert is_closed(ours)


def test_a_caller_is_gone_at_the_second_look() -> None:
    """One look may meet a connection in the middle of something; two do not err."""
    monitor = _monitor()
    woken: list[int] = []
    ours, theirs = socket.socketpair()
    with ours, monitor.watch(ours, lambda: woken.append(1)) as watch:
        theirs.close()
        monitor.sweep()
        after_one = (watch.gone, list(woken))
        monitor.sweep()
        after_two = (watch.gone, list(woken))
        monitor.sweep()

    assert after_one == (False, [])
    assert after_two == (True, [1])
    assert woken == [1]


def test_a_caller_who_stays_is_never_woken() -> None:
    """However often one looks."""
    monitor = _monitor()
    woken: list[int] = []
    ours, theirs = socket.socketpair()
    with ours, theirs, monitor.watch(ours, lambda: woken.append(1)) as watch:
        for _ in range(5):
            monitor.sweep()

    assert (watch.gone, woken) == (False, [])


def test_a_connection_is_left_alone_once_its_wait_is_over() -> None:
    """Its descriptor may belong to another connection by then."""
    monitor = _monitor()
    woken: list[int] = []
    ours, theirs = socket.socketpair()
    with monitor.watch(ours, lambda: woken.append(1)):
        theirs.close()
        monitor.sweep()
    ours.close()
    for _ in range(3):
        monitor.sweep()

    assert woken == []


def test_bytes_of_a_caller_who_stays_are_no_hang_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipelined request; nor are they even a reason to look."""
    monitor = _monitor()
    woken: list[int] = []
    looked: list[socket.socket] = []
    monkeypatch.setattr("api.hangup.is_closed", looked.append)
    ours, theirs = socket.socketpair()
    with ours, theirs, monitor.watch(ours, lambda: woken.append(1)) as watch:
        theirs.sendall(b"GET /")
        for _ in range(5):
            monitor.sweep()

    assert (watch.gone, woken, looked) == (False, [], [])


def test_bytes_before_a_close_are_read_first() -> None:
    """As with any connection: the caller's last request may still be answered."""
    monitor = _monitor()
    woken: list[int] = []
    ours, theirs = socket.socketpair()
    with ours, monitor.watch(ours, lambda: woken.append(1)) as watch:
        theirs.sendall(b"GET /")
        theirs.close()
        for _ in range(5):
            monitor.sweep()

    assert (watch.gone, woken) == (False, [])


def test_a_socket_closed_on_our_side_is_a_hang_up() -> None:
    """Whether it is closed before the wait or in the middle of it."""
    monitor = _monitor()
    woken: list[str] = []
    ours, theirs = socket.socketpair()
    with theirs, monitor.watch(ours, lambda: woken.append("during")) as watch:
        ours.close()
        monitor.sweep()
        monitor.sweep()
        with monitor.watch(ours, lambda: woken.append("before")) as late:
            pass

    assert (watch.gone, late.gone, woken) == (True, True, ["during", "before"])


def test_the_monitor_looks_by_itself() -> None:
    """One thread for all; it wakes who waits for a caller that has gone."""
    monitor, woken = HangupMonitor(interval_s=0.001), threading.Event()
    ours, theirs = socket.socketpair()
    with ours, monitor.watch(ours, woken.set) as watch:
        theirs.close()

        assert woken.wait(10)
        assert watch.gone


def test_the_servers_socket_is_found_in_the_environment() -> None:
    """gunicorn's, werkzeug's, or none at all."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert client_socket({"gunicorn.socket": ours}) is ours
        assert client_socket({"werkzeug.socket": theirs}) is theirs
        assert client_socket({}) is None
