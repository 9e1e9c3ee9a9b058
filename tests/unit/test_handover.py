"""What a process gets from whoever started it."""

from __future__ import annotations

import os

from chat.handover import LISTEN_FD, READY_FD, listening_socket, say_ready


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
