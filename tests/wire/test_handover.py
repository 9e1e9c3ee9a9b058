"""A process that says it is ready to systemd, which waits for that on a socket."""

from __future__ import annotations

import socket

import pytest

from chat.handover import NOTIFY_SOCKET, say_ready


@pytest.mark.parametrize("first", ["@", "/"])
def test_systemd_is_told_over_its_socket(tmp_path, first):
    """Once, by a file's name or by one of the kernel's."""
    path = f"{tmp_path}/notify"
    environ = {NOTIFY_SOCKET: path if first == "/" else f"@{path}"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path if first == "/" else f"\0{path}")
        systemd.settimeout(0)
        say_ready(environ)
        told = systemd.recv(100)
        say_ready(environ)

        assert (told, environ) == (b"READY=1", {})
        with pytest.raises(BlockingIOError):
            systemd.recv(100)


def test_a_socket_that_nobody_has_any_more_does_no_harm(tmp_path):
    """A shell of a service leaves the variable to all that it starts."""
    say_ready({NOTIFY_SOCKET: f"{tmp_path}/gone"})
