"""The forms of address that the configuration takes: ``host:port``, HTTP base URLs, Redis URLs."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import parse_qsl, urlsplit

__all__ = [
    "TLS_FILES",
    "host_and_port",
    "http_url_fault",
    "is_address",
    "is_loopback",
    "redis_url_fault",
]

_HIGHEST_PORT = 65535
_PORT = re.compile(r"[0-9]{1,5}")
_DATABASE = re.compile(r"[0-9]{1,9}")

#: Parameters of a rediss:// URL that name a PEM file: who signs, and who chatd is.
TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
#: What is so in any case; others that write URLs need it to be said.
_TLS_ALWAYS = {"ssl_cert_reqs": "required", "ssl_check_hostname": "true"}


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
    return _parameters_fault(parts.scheme, dict(parse_qsl(parts.query, keep_blank_values=True)))


def _parameters_fault(scheme: str, given: dict[str, str]) -> str | None:
    """The same of what stands behind the question mark. A password may have got there: no values.

    Each library behind chatd reads other parameters from a URL, so that only those are let through
    of which it is known what all of them do.
    """
    if _DATABASE.fullmatch(given.pop("db", "0")) is None:
        return "has a database (db) that is not a number"
    for name in ("username", "password"):
        given.pop(name, None)
    if scheme == "rediss":
        return _tls_fault(given)
    if given.keys() & {*TLS_FILES, *_TLS_ALWAYS}:
        return f"has parameters of TLS, which begin with ssl_, and begins with {scheme}://"
    return "has a parameter other than db, username and password" if given else None


def _tls_fault(given: dict[str, str]) -> str | None:
    for name, value in _TLS_ALWAYS.items():
        if given.pop(name, value).lower() != value:
            return (
                f"has {name} set to something other than {value}, so that anybody on the way could "
                "pose as Redis; name the CA that signed its certificate with ssl_ca_certs=FILE, "
                "and a host that is in the certificate"
            )
    if not given.keys() <= set(TLS_FILES):
        return f"has a parameter other than db, username, password, {', '.join(TLS_FILES)}"
    if not all(given.values()):
        return "has a parameter of TLS without the name of a file"
    if ("ssl_certfile" in given) != ("ssl_keyfile" in given):
        return "has only one of ssl_certfile and ssl_keyfile, which belong together"
    return None
