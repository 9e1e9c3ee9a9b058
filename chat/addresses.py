"""The forms of address that the configuration takes: ``host:port``, HTTP base URLs, Redis URLs."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

__all__ = ["host_and_port", "http_url_fault", "is_address", "is_loopback", "redis_url_fault"]

_HIGHEST_PORT = 65535
_PORT = re.compile(r"[0-9]{1,5}")


def host_and_port(bind: str) -> tuple[str, int]:
    """``("127.0.0.1", 3220)`` from ``127.0.0.1:3220``; brackets come off an IPv6 address.

    Raises ``ValueError`` with the rule that was broken.
    """
    host, colon, digits = bind.rpartition(":")
    if not colon or _PORT.fullmatch(digits) is None or not 1 <= int(digits) <= _HIGHEST_PORT:
        msg = "does not end in a colon and a port from 1 to 65535"
        raise ValueError(msg)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        msg = "has an IPv6 address without brackets"
        raise ValueError(msg)
    if not host or host != host.strip() or "/" in host:
        msg = "has no host before the port"
        raise ValueError(msg)
    return host, int(digits)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``. A name other than localhost is not trusted."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_address(host: str) -> bool:
    """Whether ``host`` is an IP address, and not a name that somebody else decides on."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def http_url_fault(url: str) -> str | None:
    """What keeps ``url`` from being an HTTP base URL, or None."""
    try:
        parts = urlsplit(url)
        port_is_zero = parts.port == 0
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("http", "https"):
        return "does not begin with http:// or https://"
    if parts.username is not None or parts.password is not None:
        return "has a user name or password in it"
    if not parts.hostname or port_is_zero or any(char <= " " or char == "\x7f" for char in url):
        return "has no usable host"
    if "?" in url or "#" in url:
        return "has a query or a fragment, to which no path can be added"
    return None


def redis_url_fault(url: str) -> str | None:
    """What keeps ``url`` from being the URL of one Redis database, or None."""
    try:
        parts = urlsplit(url)
        port_is_zero = parts.port == 0
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("redis", "rediss", "unix"):
        return "does not begin with redis://, rediss:// or unix://"
    if parts.scheme == "unix" and not parts.path:
        return "has no path to a socket"
    if parts.scheme != "unix" and (not parts.hostname or port_is_zero):
        return "has no usable host"
    return None
