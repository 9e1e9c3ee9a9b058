"""Lengths and chunks that are wrong."""

from __future__ import annotations

from collections.abc import Callable

from tests.upstream import Answer, End
from tests.wire.hostile.case import ANSWER, CHUNKED, CUT, HEAD, LATE, MIB, PROTOCOL, case, chunk

__all__ = ["FRAMING"]


def _lengths(value: str, *more: str) -> Callable[[bytes, str], Answer]:
    """A good body under these Content-Lengths; the connection closes after it."""
    lines = "".join(f"content-length: {each}\r\n" for each in (value, *more)).encode()
    return lambda good, _: Answer.raw(HEAD + lines + b"\r\n" + good, End.CLOSE)


def _chunk_size(size: str, rest: bytes = b"x" * MIB) -> Answer:
    """A chunk with this for its size, and then much more than that."""
    return Answer.raw_endless(CHUNKED + size.encode() + b"\r\n", rest)


def _transfer(coding: str) -> Callable[[bytes, str], Answer]:
    """One good chunk under this Transfer-Encoding."""

    def answer(good: bytes, _: str) -> Answer:
        head = HEAD + f"transfer-encoding: {coding}\r\n\r\n".encode()
        return Answer.raw(head + chunk(good), End.CLOSE)

    return answer


FRAMING = [
    *(
        case(f"chunk of {size or 'no'} bytes", _chunk_size(size), PROTOCOL)
        for size in (
            "-1",
            "-5",
            "-0",
            "",
            "0x",
            "1e3",
            "ffffffffffffffff",
            "f" * 60000,
            "9" * 70000,
            "٣",
            "\x00",
        )
    ),
    case(
        "chunk extensions without end", Answer.raw_endless(CHUNKED + b"5;", b"x" * 65536), PROTOCOL
    ),
    case("chunk size without end", Answer.raw_endless(CHUNKED, b"0" * 65536), PROTOCOL),
    case("a trailer without end", Answer.raw_endless(CHUNKED + b"0\r\n", b"x" * 65536), PROTOCOL),
    case(
        "trailers without end",
        Answer.raw_endless(CHUNKED + b"0\r\n", b"x: y\r\n" * 9999),
        PROTOCOL,
        LATE,
        within_s=2,
    ),
    case("chunks of nothing but CRLF", Answer.raw_endless(CHUNKED, b"\r\n" * 9999), PROTOCOL),
    case("chunk cut", Answer.raw(CHUNKED + b"10\r\nx", End.CLOSE), CUT),
    case(
        "length and chunks",
        lambda good, _: Answer.raw(
            HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(good),
            End.CLOSE,
        ),
        ANSWER,
        PROTOCOL,
    ),
    *(
        case(f"Transfer-Encoding: {coding}", _transfer(coding), ANSWER, PROTOCOL)
        for coding in (
            "gzip, chunked",
            "chunked, chunked",
            "identity",
            "CHUNKED",
            "xchunked",
            "\x0bchunked",
        )
    ),
    *(
        case(
            f"Content-Length: {value[:20]}, {len(value)} long",
            _lengths(value),
            PROTOCOL,
            CUT,
            ANSWER,
        )
        for value in ("-1", "abc", "1e3", "0x10", "9" * 30, "9" * 5000, "٣", "5_0", "", "+9")
    ),
    case(
        "length too short",
        lambda good, _: Answer.raw(HEAD + b"content-length: 9\r\n\r\n" + good),
        PROTOCOL,
    ),
    case(
        "length too long, closed",
        lambda good, _: Answer.raw(HEAD + b"content-length: 9999\r\n\r\n" + good, End.CLOSE),
        CUT,
    ),
    case(
        "length too long, silent",
        lambda good, _: Answer.raw(HEAD + b"content-length: 9999\r\n\r\n" + good),
        LATE,
        within_s=0.5,
    ),
    case(
        "two equal lengths",
        lambda good, _: Answer.raw(
            HEAD + b"content-length: %d\r\n" % len(good) * 2 + b"\r\n" + good
        ),
        ANSWER,
        PROTOCOL,
    ),
    case("a list of lengths", _lengths("5, 6"), PROTOCOL),
]
