"""Answers that are compressed unasked: badly, or to be much larger than they come."""

from __future__ import annotations

import functools
import gzip
import zlib
from collections.abc import Callable

from tests.upstream import Answer
from tests.wire.hostile.case import ANSWER, AUTH, HEAD, LATE, MIB, PROTOCOL, case, chunk

__all__ = ["PACKED"]


@functools.cache
def _bomb(times: int = 1) -> bytes:
    """128 MiB of spaces, through gzip once or more often."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    piece = b" " * MIB
    packed = b"".join(packer.compress(piece) for _ in range(128)) + packer.flush()
    for _ in range(times - 1):
        packed = gzip.compress(packed)
    return packed


@functools.cache
def _deflate_bomb() -> bytes:
    packer = zlib.compressobj(9)
    piece = b" " * MIB
    return b"".join(packer.compress(piece) for _ in range(128)) + packer.flush()


def _packed(coding: str, body: Callable[[bytes], bytes]) -> Callable[[bytes, str], Answer]:
    return lambda good, _: Answer.of(body(good), headers={"content-encoding": coding})


def _chunked_bomb(_good: bytes, _said: str) -> Answer:
    packed = _bomb()
    head = HEAD + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
    return Answer.raw(head + chunk(packed))


PACKED = [
    case("gzip bomb", _packed("gzip", lambda _: _bomb()), PROTOCOL),
    case("gzip bomb in chunks", _chunked_bomb, PROTOCOL),
    case("gzip bomb, twice", _packed("gzip, gzip", lambda _: _bomb(2)), PROTOCOL),
    case(
        "gzip bomb, five times",
        _packed("gzip, gzip, gzip, gzip, gzip", lambda _: _bomb(5)),
        PROTOCOL,
    ),
    case(
        "gzip bomb, fifty times", _packed(", ".join(["gzip"] * 50), lambda _: _bomb(50)), PROTOCOL
    ),
    case("deflate bomb", _packed("deflate", lambda _: _deflate_bomb()), PROTOCOL),
    case(
        "gzip bomb in an error",
        lambda _good, _said: Answer.of(_bomb(), 401, {"content-encoding": "gzip"}),
        AUTH,
    ),
    *(
        case(
            f"{coding} that is none",
            Answer.of(b"\x1b" * 9999, headers={"content-encoding": coding}),
            PROTOCOL,
        )
        for coding in ("br", "zstd", "gzip", "deflate", "compress", "rot13", "gzip, br")
    ),
    case("br declared, plain sent", _packed("br", lambda good: good), ANSWER, PROTOCOL),
    case("gzip declared, plain sent", _packed("gzip", lambda good: good), PROTOCOL),
    case("gzip sent, nothing declared", _packed("identity", gzip.compress), PROTOCOL),
    case("gzip cut", _packed("gzip", lambda good: gzip.compress(good)[:-12]), PROTOCOL),
    case(
        "gzip with a wrong sum",
        _packed("gzip", lambda good: gzip.compress(good)[:-8] + b"\0" * 8),
        PROTOCOL,
    ),
    case(
        "gzip and garbage behind",
        _packed("gzip", lambda good: gzip.compress(good) + b"\xff" * 99),
        ANSWER,
        PROTOCOL,
    ),
    case(
        "gzip in two members",
        _packed("gzip", lambda good: gzip.compress(good[:9]) + gzip.compress(good[9:])),
        ANSWER,
    ),
    case(
        "empty gzip members",
        _packed("gzip", lambda _: gzip.compress(b"") * 200_000),
        PROTOCOL,
        LATE,
        within_s=10,
    ),
]
