"""What systemd does with sockets: it waits at one for a word, and hands over another."""

from __future__ import annotations

import socket

import pytest

from chat.errors import ConfigError
from chat.handover import NOTIFY_SOCKET, check_address, say_ready


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


@pytest.mark.parametrize(
    ("family", "host", "bind"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "127.0.0.1", "localhost"),
        (socket.AF_INET6, "::1", "[0:0::1]"),
    ],
    ids=["IPv4", "name", "IPv6"],
)
def test_a_socket_at_the_address_of_the_configuration_is_taken(family, host, bind):
    """And stays open."""
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        port = listener.getsockname()[1]
        check_address(listener.fileno(), f"{bind}:{port}")

        assert listener.getsockname()[1] == port


@pytest.mark.parametrize("bind", ["127.0.0.1", "localhost", "[::1]"])
def test_a_socket_that_is_open_elsewhere_is_refused(bind):
    """Of 0.0.0.0 nobody has checked whether it may be open to all."""
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))  # noqa: S104 - it does not listen
        port = listener.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"open at 0\.0\.0\.0 port {port}, .* write the same"
        ):
            check_address(listener.fileno(), f"{bind}:{port}")


def test_neither_another_port_nor_a_path_is_taken(tmp_path):
    """The configuration has no form for a path."""
    with socket.socket() as listener, socket.socket(socket.AF_UNIX) as local:
        listener.bind(("127.0.0.1", 0))
        local.bind(f"{tmp_path}/chatd")
        with pytest.raises(ConfigError, match=r"open at 127.0.0.1 port .* bind is \"127.0.0.1:1\""):
            check_address(listener.fileno(), "127.0.0.1:1")
        with pytest.raises(ConfigError, match=r"open at \".*/chatd\""):
            check_address(local.fileno(), "127.0.0.1:1")
