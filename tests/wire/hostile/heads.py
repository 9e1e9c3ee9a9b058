"""Status lines and headers that are wrong, answers before the answer, and redirects."""

from __future__ import annotations

from collections.abc import Callable

from tests.upstream import Answer, End
from tests.wire.hostile.case import (
    ANSWER,
    CHUNKED,
    CUT,
    HEAD,
    MIB,
    PROTOCOL,
    Case,
    case,
    of_length,
)

__all__ = ["HEADS", "REDIRECTS"]


def _status(line: bytes) -> Callable[[bytes, str], Answer]:
    def answer(good: bytes, _: str) -> Answer:
        length = b"content-length: %d\r\n\r\n" % len(good)
        return Answer.raw(line + b"\r\n" + length + good, End.CLOSE)

    return answer


def _headed(lines: bytes) -> Callable[[bytes, str], Answer]:
    return lambda good, _: Answer.raw(of_length(good, lines), End.CLOSE)


def _before(interim: bytes) -> Callable[[bytes, str], Answer]:
    return lambda good, _: Answer.raw(interim + of_length(good))


def _with_status(status: int) -> Callable[[bytes, str], Answer]:
    return lambda good, _: Answer.of(good, status)


def _redirect(status: int, location: str) -> Case:
    answer = Answer.of(b"moved", status, {"location": location})
    return case(f"{status} to {location[:40]}", answer, PROTOCOL)


HEADS = [
    case(
        "100,000 headers",
        Answer.raw(HEAD + b"x-y: z\r\n" * 100_000 + b"\r\n{}", End.CLOSE),
        PROTOCOL,
    ),
    case(
        "a header of 10 MB",
        Answer.raw(HEAD + b"x: " + b"y" * 10 * MIB + b"\r\n\r\n{}", End.CLOSE),
        PROTOCOL,
    ),
    case("headers without end", Answer.raw_endless(HEAD, b"x: y\r\n" * 999), PROTOCOL),
    case("a header without end", Answer.raw_endless(HEAD + b"x: ", b"y" * 65536), PROTOCOL),
    case(
        "folded headers without end",
        Answer.raw_endless(HEAD + b"x: y\r\n", b" y\r\n" * 999),
        PROTOCOL,
    ),
    case(
        "90 headers of 60,000 bytes",
        _headed(b"".join(b"x-%d: %b\r\n" % (n, b"y" * 60_000) for n in range(90))),
        ANSWER,
    ),
    case(
        "90 cookies",
        _headed(
            b"".join(b"set-cookie: c%d=%b; domain=.\r\n" % (n, b"y" * 9999) for n in range(90))
        ),
        ANSWER,
    ),
    case("a status line without end", Answer.raw_endless(b"HTTP/1.1 200 ", b"y" * 65536), PROTOCOL),
    *(
        case(f"status line {line[:30]!r}", _status(line), *ends)
        for line, ends in (
            (b"HTTP/1.1 abc OK", (PROTOCOL,)),
            (b"HTTP/1.1 -200 OK", (PROTOCOL,)),
            (b"HTTP/1.1 1000 OK", (PROTOCOL,)),
            (b"HTTP/1.1 099 OK", (PROTOCOL,)),
            (b"HTTP/1.1 999 OK", (PROTOCOL,)),
            (b"HTTP/1.1 600 OK", (PROTOCOL,)),
            (b"HTTP/1.1 200", (ANSWER,)),
            (b"HTTP/1.1", (PROTOCOL,)),
            (b"HTTP/1.0 200 OK", (ANSWER,)),
            (b"HTTP/0.9 200 OK", (ANSWER, PROTOCOL)),
            (b"HTTP/2 200", (PROTOCOL,)),
            (b"HTTP/9.9 200 OK", (PROTOCOL,)),
            (b"ICY 200 OK", (PROTOCOL,)),
            (b"HTTP/1.1 200 " + b"\xff\x00\x1b[2J", (ANSWER,)),
            (b"\r\n\r\nHTTP/1.1 200 OK", (PROTOCOL, CUT)),
        )
    ),
    case("HTTP/0.9", lambda good, _: Answer.raw(good, End.CLOSE), PROTOCOL),
    case(
        "the key for a status line",
        lambda _, said: Answer.raw(f"{said}\r\n\r\n".encode(), End.CLOSE),
        PROTOCOL,
    ),
    case(
        "the key for a header",
        lambda _, said: Answer.raw(HEAD + f"{said}\r\n: {said}\r\n\r\n{said}".encode(), End.CLOSE),
        PROTOCOL,
    ),
    case(
        "the key for a chunk size",
        lambda _, said: Answer.raw(CHUNKED + f"{said}\r\n".encode(), End.CLOSE),
        PROTOCOL,
    ),
    case(
        "the key for an encoding",
        lambda good, said: Answer.of(good, headers={"content-encoding": f"gzip, {said}"}),
        PROTOCOL,
        ANSWER,
    ),
    case("random bytes", Answer.raw(bytes(range(128, 256)) * 9999, End.CLOSE), PROTOCOL),
    case("endless random bytes", Answer.raw_endless(b"", bytes(range(128, 256)) * 999), PROTOCOL),
    case(
        "TLS where there should be none",
        Answer.raw(b"\x15\x03\x01\x00\x02\x02\x46", End.CLOSE),
        PROTOCOL,
    ),
    case("HTTP/2 frames", Answer.raw(b"\x00\x00\x12\x04" + b"\0" * 23, End.CLOSE), PROTOCOL),
    *(
        case(f"header {line[:20]!r}", _headed(line + b"\r\n"), ANSWER, PROTOCOL)
        for line in (
            b"no colon",
            b": no name",
            b"x\x00y: z",
            b"x: \x00\x1b[2J",
            b" folded: x",
            b"x y: z",
            b"\xff\xfe: \xff",
            b"x:\ry",
            b"x: a\nb: c",
        )
    ),
    case("100 first", _before(b"HTTP/1.1 100 Continue\r\n\r\n"), ANSWER),
    case("103 first", _before(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"), ANSWER),
    case(
        "102 and 199 first",
        _before(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 Odd\r\n\r\n"),
        ANSWER,
    ),
    case("101", _before(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"), PROTOCOL),
    case(
        "100 without end", Answer.raw_endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 999), PROTOCOL
    ),
    case(
        "103 without end",
        Answer.raw_endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 999),
        PROTOCOL,
    ),
    case(
        "100 with headers without end",
        Answer.raw_endless(b"HTTP/1.1 100 Continue\r\n", b"x: y\r\n" * 999),
        PROTOCOL,
    ),
    *(
        case(f"{status} with an answer in it", _with_status(status), *ends)
        for status, ends in (
            (201, (ANSWER,)),
            (206, (ANSWER,)),
            (226, (ANSWER,)),
            (204, (PROTOCOL,)),
            (205, (ANSWER, PROTOCOL)),
            (300, (PROTOCOL,)),
            (304, (PROTOCOL,)),
            (305, (PROTOCOL,)),
        )
    ),
    case(
        "endless redirect",
        Answer.endless(b" " * 65536, 302, {"location": "http://127.0.0.1:1/"}),
        PROTOCOL,
    ),
    case(
        "Refresh",
        lambda good, _: Answer.of(
            good,
            headers={
                "refresh": "0; url=http://127.0.0.1:1/",
                "content-location": "http://127.0.0.1:1/",
                "alt-svc": 'h2="127.0.0.1:1"',
            },
        ),
        ANSWER,
    ),
]

REDIRECTS = [
    *(
        _redirect(status, location)
        for status in (301, 302, 303, 307, 308)
        for location in (
            "http://elsewhere.example/v1",
            "//elsewhere.example/v1",
            "/same/host",
            "file:///etc/passwd",
            "http://169.254.169.254/latest/meta-data/",
            "http://[fe80::1]/",
        )
    ),
    *(
        _redirect(302, location)
        for location in (
            "",
            "http://[",
            "http://127.0.0.1:1/",
            "gopher://x",
            "x" * 60_000,
            "http://a:b@127.0.0.1:1/",
            "http://127.0.0.1:99999999/",
        )
    ),
    case(
        "redirect with the key in it",
        lambda _, said: Answer.of(said.encode(), 302, {"location": f"http://127.0.0.1:1/{said}"}),
        PROTOCOL,
    ),
]
