"""Answers that are too large, in bytes or in values, and answers that do not end."""

from __future__ import annotations

import functools

from tests.upstream import Answer
from tests.wire.hostile.case import ANSWER, AUTH, CHUNKED, HEAD, LATE, MIB, PROTOCOL, case

__all__ = ["SIZES"]


@functools.cache
def _keys() -> bytes:
    return b"{" + b",".join(b'"%x":0' % number for number in range(2_500_000)) + b"}"


SIZES = [
    case(
        "100 MB with a length",
        Answer.raw(HEAD + b'content-length: 104857600\r\n\r\n{"a": "', *[b"x" * MIB] * 100),
        PROTOCOL,
    ),
    case("100 MB in chunks", Answer.chunked([b'{"a": "', *[b"x" * MIB] * 100, b'"}']), PROTOCOL),
    case("endless, in chunks", Answer.endless(b" " * 65536), PROTOCOL),
    case("endless, in small chunks", Answer.endless(b" "), PROTOCOL, LATE, within_s=2),
    case(
        "endless, until the connection closes",
        Answer.raw_endless(HEAD + b"\r\n", b" " * 65536),
        PROTOCOL,
    ),
    case(
        "endless, behind a length",
        Answer.raw_endless(HEAD + b"content-length: 99999999999999999999\r\n\r\n", b" " * 65536),
        PROTOCOL,
    ),
    case(
        "a byte at a time",
        Answer.raw_endless(HEAD + b"\r\n", b" ", slowly=True),
        LATE,
        within_s=0.5,
    ),
    case(
        "a chunk at a time",
        Answer.raw_endless(CHUNKED, b"1\r\n \r\n", slowly=True),
        LATE,
        within_s=0.5,
    ),
    case(
        "a byte of the head at a time",
        Answer.raw_endless(HEAD + b"x: ", b"y", slowly=True),
        LATE,
        within_s=0.5,
    ),
    case(
        "a header at a time",
        Answer.raw_endless(HEAD, b"x: y\r\n", slowly=True),
        LATE,
        PROTOCOL,
        within_s=0.5,
    ),
    case(
        "full, and valid",
        lambda good, _: Answer.of(good.replace(b"Paris", b"x" * (31 * MIB), 1)),
        ANSWER,
    ),
    case(
        "full of wide characters",
        lambda good, _: Answer.of(good.replace(b"Paris", "😀".encode() + b"x" * (31 * MIB), 1)),
        ANSWER,
    ),
    case(
        "full of escapes",
        lambda good, _: Answer.of(good.replace(b"Paris", b"\\u00e9" * (5 * MIB), 1)),
        ANSWER,
    ),
    case(
        "full of lists",
        lambda _good, _said: Answer.of(b'{"a": [' + b"[]," * (10 * MIB) + b"[]]}"),
        PROTOCOL,
    ),
    case(
        "full of objects",
        lambda _good, _said: Answer.of(b'{"a": [' + b"{}," * (10 * MIB) + b"{}]}"),
        PROTOCOL,
    ),
    case(
        "full of numbers",
        lambda _good, _said: Answer.of(b'{"a": [' + b"0.5," * (7 * MIB) + b"0]}"),
        PROTOCOL,
    ),
    case("full of keys", lambda _good, _said: Answer.of(_keys()), PROTOCOL),
    case(
        "full of keys in an error",
        lambda _good, _said: Answer.of(b'{"error": {"metadata": ' + _keys() + b"}}", 401),
        AUTH,
        PROTOCOL,
    ),
]
