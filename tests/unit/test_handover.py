"""What a process gets from whoever started it."""

from __future__ import annotations

import os

import pytest

from chat.errors import ConfigError
from chat.handover import (
    LISTEN_FD,
    NOTIFY_SOCKET,
    READY_FD,
    listening_socket,
    say_ready,
    who_waits,
)


def test_a_process_says_once_that_it_is_ready() -> None:
    """And closes the pipe, so that its parent may tell a start from an end."""
    reading, writing = os.pipe()
    environ = {READY_FD: str(writing)}
    say_ready(environ)
    say_ready(environ)
    told = os.read(reading, 10), os.read(reading, 10)
    os.close(reading)

    assert told == (b"\n", b"")
    assert environ == {}


def test_one_that_nobody_waits_for_says_nothing() -> None:
    """It was started by hand."""
    say_ready({})


def test_one_that_is_heard_by_nobody_goes_on() -> None:
    """A process of the front end that is started again by its own master."""
    reading, writing = os.pipe()
    os.close(reading)
    say_ready({READY_FD: str(writing)})


def test_the_socket_is_taken_over_by_its_number() -> None:
    """Without one the front end opens its own; the variable says nothing to further children."""
    environ = {LISTEN_FD: "7"}

    assert (listening_socket(environ), listening_socket(environ), environ) == (7, None, {})


def test_a_socket_of_systemd_is_the_third_descriptor() -> None:
    """For the process that it was meant for."""
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}

    assert (listening_socket(environ), listening_socket(environ), environ) == (3, None, {})


@pytest.mark.parametrize("pid", ["1", ""], ids=["another", "nobody"])
def test_a_socket_that_was_meant_for_another_process_is_not_taken(pid: str) -> None:
    """A unit leaves these variables to all that it starts, and not the descriptor."""
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": pid}

    assert (listening_socket(environ), environ) == (None, {})


def test_several_sockets_are_refused() -> None:
    """Only one address was checked."""
    with pytest.raises(ConfigError, match=r"hands over 2 sockets, .* write one ListenStream="):
        listening_socket({"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid())})


def test_those_who_wait_are_out_of_sight_of_others() -> None:
    """gunicorn would answer systemd before anybody accepts."""
    environ = {READY_FD: "7", NOTIFY_SOCKET: "/run/notify", "HOME": "/root"}

    assert who_waits(environ) == {READY_FD: "7", NOTIFY_SOCKET: "/run/notify"}
    assert environ == {"HOME": "/root"}
    assert who_waits(environ) == {}
