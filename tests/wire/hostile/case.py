"""One way in which an upstream can treat a call, and how the call may end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.upstream import Answer

__all__ = [
    "ANSWER",
    "AUTH",
    "CHUNKED",
    "CUT",
    "HEAD",
    "LATE",
    "LIMITED",
    "MIB",
    "PROTOCOL",
    "UNAVAILABLE",
    "Case",
    "case",
    "chunk",
    "of_length",
]

ANSWER = ""
PROTOCOL = "upstream_protocol"
CUT = UNAVAILABLE = "upstream_unavailable"
LATE = "upstream_timeout"
AUTH = "upstream_auth"
LIMITED = "rate_limited"

MIB = 1024 * 1024
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Case:
    """One way to answer.

    ``answer`` is given a good body, and a sentence with the request's Authorization header in it.
    ``ends`` has the codes that a call may end with; an empty one is an answer.
    """

    id: str
    answer: Callable[[bytes, str], Answer]
    ends: frozenset[str]
    within_s: float


def case(
    id_: str, answer: Callable[[bytes, str], Answer] | Answer, *ends: str, within_s: float = 60.0
) -> Case:
    """A case; ``answer`` may be one answer, whatever was asked."""
    make = (lambda _good, _said: answer) if isinstance(answer, Answer) else answer
    return Case(id_, make, frozenset(ends), within_s)


def of_length(body: bytes, headers: bytes = b"") -> bytes:
    """A whole answer with a fitting length."""
    return HEAD + b"content-length: %d\r\n" % len(body) + headers + b"\r\n" + body


def chunk(body: bytes) -> bytes:
    """``body`` as the only chunk there is."""
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
