"""What an upstream can do to a call: framing, bodies, texts and headers, each with how it ends."""

from __future__ import annotations

import functools
import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from tests.upstream import Answer, End

__all__ = ["CASES", "Case"]

ANSWER, PROTOCOL, CUT, LATE = "", "upstream_protocol", "upstream_unavailable", "upstream_timeout"
AUTH, LIMITED = "upstream_auth", "rate_limited"

_MIB = 1024 * 1024
_HEAD = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _HEAD + b"transfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Case:
    """One way to answer.

    ``answer`` is given a good body, and a sentence with the request's Authorization header in it.
    ``ends`` has the codes that a call may end with; an empty one is an answer.
    """

    id: str
    answer: Callable[[bytes, str], Answer]
    ends: frozenset[str]
    within_s: float = 60.0


def _case(
    id_: str, answer: Callable[[bytes, str], Answer] | Answer, *ends: str, within_s: float = 60.0
) -> Case:
    make = (lambda _good, _said: answer) if isinstance(answer, Answer) else answer
    return Case(id_, make, frozenset(ends), within_s)


def _bytes(*, headers: bytes = b"", status: bytes = b"200 OK") -> Callable[[bytes], bytes]:
    """A head with a fitting Content-Length before a body."""

    def with_head(body: bytes) -> bytes:
        length = b"content-length: %d\r\n" % len(body)
        return b"HTTP/1.1 " + status + b"\r\n" + length + headers + b"\r\n" + body

    return with_head


def _lengths(value: str, *more: str) -> Callable[[bytes, str], Answer]:
    """A good body under these Content-Lengths; the connection closes after it."""
    lines = "".join(f"content-length: {each}\r\n" for each in (value, *more)).encode()
    return lambda good, _: Answer.raw(_HEAD + lines + b"\r\n" + good, End.CLOSE)


def _chunk_size(size: str, rest: bytes = b"x" * _MIB) -> Answer:
    """A chunk with this for its size, and then much more than that."""
    return Answer.raw_endless(_CHUNKED + size.encode() + b"\r\n", rest)


def _transfer(coding: str) -> Callable[[bytes, str], Answer]:
    """One good chunk under this Transfer-Encoding."""

    def answer(good: bytes, _: str) -> Answer:
        head = _HEAD + f"transfer-encoding: {coding}\r\n\r\n".encode()
        return Answer.raw(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(good), good), End.CLOSE)

    return answer


@functools.cache
def _bomb(times: int = 1) -> bytes:
    """128 MiB of spaces, through gzip once or more often."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    piece = b" " * _MIB
    packed = b"".join(packer.compress(piece) for _ in range(128)) + packer.flush()
    for _ in range(times - 1):
        packed = gzip.compress(packed)
    return packed


@functools.cache
def _deflate_bomb() -> bytes:
    packer = zlib.compressobj(9)
    piece = b" " * _MIB
    return b"".join(packer.compress(piece) for _ in range(128)) + packer.flush()


def _packed(coding: str, body: Callable[[bytes], bytes]) -> Callable[[bytes, str], Answer]:
    return lambda good, _: Answer.of(body(good), headers={"content-encoding": coding})


def _chunked_bomb(_good: bytes, _said: str) -> Answer:
    packed = _bomb()
    head = _HEAD + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
    return Answer.raw(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(packed), packed))


def _text(encoding: str, declared: str = "", before: bytes = b"") -> Callable[[bytes, str], Answer]:
    """A good answer in another encoding, which its Content-Type may declare."""

    def answer(good: bytes, _: str) -> Answer:
        text = good.decode("utf-8").replace("Paris", "Orléans")
        kind = f"application/json; charset={declared or encoding}"
        return Answer.of(before + text.encode(encoding), headers={"content-type": kind})

    return answer


def _in_json(old: bytes, new: bytes) -> Callable[[bytes, str], Answer]:
    """A good answer in which one thing stands for another."""

    def answer(good: bytes, _: str) -> Answer:
        assert old in good, old
        return Answer.of(good.replace(old, new))

    return answer


def _members(more: bytes) -> Callable[[bytes, str], Answer]:
    """A good answer with more members before its end."""
    return lambda good, _: Answer.of(good.rstrip()[:-1] + b", " + more + b"}")


def _status(line: bytes) -> Callable[[bytes, str], Answer]:
    def answer(good: bytes, _: str) -> Answer:
        length = b"content-length: %d\r\n\r\n" % len(good)
        return Answer.raw(line + b"\r\n" + length + good, End.CLOSE)

    return answer


def _headed(lines: bytes) -> Callable[[bytes, str], Answer]:
    return lambda good, _: Answer.raw(_bytes(headers=lines)(good), End.CLOSE)


def _before(interim: bytes) -> Callable[[bytes, str], Answer]:
    return lambda good, _: Answer.raw(interim + _bytes()(good))


def _redirect(status: int, location: str) -> Case:
    answer = Answer.of(b"moved", status, {"location": location})
    return _case(f"{status} to {location[:40]}", answer, PROTOCOL)


def _retry_after(value: str) -> Case:
    answer = Answer.json({"error": "busy"}, 429, {"retry-after": value})
    return _case(f"Retry-After {value[:30]}", answer, LIMITED)


def _refused(body: Callable[[str], bytes]) -> Callable[[bytes, str], Answer]:
    return lambda _good, said: Answer.of(body(said), 401)


def _json_error(said: str) -> dict[str, object]:
    return {"error": {"message": said, "type": said, "code": said, "param": said}}


_SIZES = [
    _case("100 MB with a length", Answer.raw(_HEAD + b"content-length: 104857600\r\n\r\n{\"a\": \"", *[b"x" * _MIB] * 100), PROTOCOL),
    _case("100 MB in chunks", Answer.chunked([b'{"a": "', *[b"x" * _MIB] * 100, b'"}']), PROTOCOL),
    _case("endless, in chunks", Answer.endless(b" " * 65536), PROTOCOL),
    _case("endless, in small chunks", Answer.endless(b" "), PROTOCOL, LATE, within_s=2),
    _case("endless, until the connection closes", Answer.raw_endless(_HEAD + b"\r\n", b" " * 65536), PROTOCOL),
    _case("endless, behind a length", Answer.raw_endless(_HEAD + b"content-length: 99999999999999999999\r\n\r\n", b" " * 65536), PROTOCOL),
    _case("a byte at a time", Answer.raw_endless(_HEAD + b"\r\n", b" ", slowly=True), LATE, within_s=0.5),
    _case("a chunk at a time", Answer.raw_endless(_CHUNKED, b"1\r\n \r\n", slowly=True), LATE, within_s=0.5),
    _case("a byte of the head at a time", Answer.raw_endless(_HEAD + b"x: ", b"y", slowly=True), LATE, within_s=0.5),
    _case("a header at a time", Answer.raw_endless(_HEAD, b"x: y\r\n", slowly=True), LATE, PROTOCOL, within_s=0.5),
    _case("full, and valid", lambda good, _: Answer.of(good.replace(b"Paris", b"x" * (31 * _MIB), 1)), ANSWER),
    _case("full of wide characters", lambda good, _: Answer.of(good.replace(b"Paris", "😀".encode() + b"x" * (31 * _MIB), 1)), ANSWER),
    _case("full of escapes", lambda good, _: Answer.of(good.replace(b"Paris", b"\\u00e9" * (5 * _MIB), 1)), ANSWER),
    _case("full of lists", lambda _good, _said: Answer.of(b'{"a": [' + b"[]," * (10 * _MIB) + b"[]]}"), PROTOCOL),
    _case("full of objects", lambda _good, _said: Answer.of(b'{"a": [' + b"{}," * (10 * _MIB) + b"{}]}"), PROTOCOL),
    _case("full of numbers", lambda _good, _said: Answer.of(b'{"a": [' + b"0.5," * (7 * _MIB) + b"0]}"), PROTOCOL),
    _case("full of keys", lambda _good, _said: Answer.of(_keys()), PROTOCOL),
    _case("full of keys in an error", lambda _good, _said: Answer.of(b'{"error": {"metadata": ' + _keys() + b"}}", 401), AUTH, PROTOCOL),
]


@functools.cache
def _keys() -> bytes:
    return b"{" + b",".join(b'"%x":0' % number for number in range(2_500_000)) + b"}"


_FRAMING = [
    *(
        _case(f"chunk of {size or 'no'} bytes", _chunk_size(size), PROTOCOL)
        for size in ("-1", "-5", "-0", "", "0x", "1e3", "ffffffffffffffff", "f" * 60000, "9" * 70000, "٣", "\x00")
    ),
    _case("chunk extensions without end", Answer.raw_endless(_CHUNKED + b"5;", b"x" * 65536), PROTOCOL),
    _case("chunk size without end", Answer.raw_endless(_CHUNKED, b"0" * 65536), PROTOCOL),
    _case("a trailer without end", Answer.raw_endless(_CHUNKED + b"0\r\n", b"x" * 65536), PROTOCOL),
    _case("trailers without end", Answer.raw_endless(_CHUNKED + b"0\r\n", b"x: y\r\n" * 9999), PROTOCOL, LATE, within_s=2),
    _case("chunks of nothing but CRLF", Answer.raw_endless(_CHUNKED, b"\r\n" * 9999), PROTOCOL),
    _case("chunk cut", Answer.raw(_CHUNKED + b"10\r\nx", End.CLOSE), CUT),
    _case("length and chunks", lambda good, _: Answer.raw(_HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n0\r\n\r\n" % (len(good), good), End.CLOSE), ANSWER, PROTOCOL),
    *(_case(f"Transfer-Encoding: {coding}", _transfer(coding), ANSWER, PROTOCOL) for coding in ("gzip, chunked", "chunked, chunked", "identity", "CHUNKED", "xchunked", "\x0bchunked")),
    *(_case(f"Content-Length: {value[:20]}", _lengths(value), PROTOCOL, CUT, ANSWER) for value in ("-1", "abc", "1e3", "0x10", "9" * 30, "9" * 5000, "٣", "5_0", "", "+9")),
    _case("length too short", lambda good, _: Answer.raw(_HEAD + b"content-length: 9\r\n\r\n" + good), PROTOCOL),
    _case("length too long, closed", lambda good, _: Answer.raw(_HEAD + b"content-length: 9999\r\n\r\n" + good, End.CLOSE), CUT),
    _case("length too long, silent", lambda good, _: Answer.raw(_HEAD + b"content-length: 9999\r\n\r\n" + good), LATE, within_s=0.5),
    _case("two equal lengths", lambda good, _: Answer.raw(_HEAD + b"content-length: %d\r\n" % len(good) * 2 + b"\r\n" + good), ANSWER, PROTOCOL),
    _case("a list of lengths", _lengths("5, 6"), PROTOCOL),
]

_PACKED = [
    _case("gzip bomb", _packed("gzip", lambda _: _bomb()), PROTOCOL),
    _case("gzip bomb in chunks", _chunked_bomb, PROTOCOL),
    _case("gzip bomb, twice", _packed("gzip, gzip", lambda _: _bomb(2)), PROTOCOL),
    _case("gzip bomb, five times", _packed("gzip, gzip, gzip, gzip, gzip", lambda _: _bomb(5)), PROTOCOL),
    _case("gzip bomb, fifty times", _packed(", ".join(["gzip"] * 50), lambda _: _bomb(50)), PROTOCOL),
    _case("deflate bomb", _packed("deflate", lambda _: _deflate_bomb()), PROTOCOL),
    _case("gzip bomb in an error", lambda _good, _said: Answer.of(_bomb(), 401, {"content-encoding": "gzip"}), AUTH),
    *(_case(f"{coding} that is none", Answer.of(b"\x1b" * 9999, headers={"content-encoding": coding}), PROTOCOL) for coding in ("br", "zstd", "gzip", "deflate", "compress", "rot13", "gzip, br")),
    _case("br declared, plain sent", _packed("br", lambda good: good), ANSWER, PROTOCOL),
    _case("gzip declared, plain sent", _packed("gzip", lambda good: good), PROTOCOL),
    _case("gzip sent, nothing declared", _packed("identity", gzip.compress), PROTOCOL),
    _case("gzip cut", _packed("gzip", lambda good: gzip.compress(good)[:-12]), PROTOCOL),
    _case("gzip with a wrong sum", _packed("gzip", lambda good: gzip.compress(good)[:-8] + b"\0" * 8), PROTOCOL),
    _case("gzip and garbage behind", _packed("gzip", lambda good: gzip.compress(good) + b"\xff" * 99), ANSWER, PROTOCOL),
    _case("gzip in two members", _packed("gzip", lambda good: gzip.compress(good[:9]) + gzip.compress(good[9:])), ANSWER),
    _case("empty gzip members", _packed("gzip", lambda _: gzip.compress(b"") * 200_000), PROTOCOL, LATE, within_s=10),
]

_TEXTS = [
    _case("Latin-1", _text("latin-1"), PROTOCOL),
    _case("UTF-16", _text("utf-16"), PROTOCOL),
    _case("UTF-16 without BOM", _text("utf-16-le"), PROTOCOL),
    _case("UTF-32", _text("utf-32"), PROTOCOL),
    _case("UTF-8 that says it is UTF-16", _text("utf-8", "utf-16"), ANSWER),
    _case("UTF-8 that says it is no such thing", _text("utf-8", "x-none\\"), ANSWER),
    _case("UTF-8 with BOM", _text("utf-8-sig"), ANSWER),
    _case("two BOMs", _text("utf-8-sig", before=b"\xef\xbb\xbf"), PROTOCOL),
    _case("Latin-1 that says it is UTF-8", _text("latin-1", "utf-8"), PROTOCOL),
    _case("surrogates in UTF-8", _in_json(b"Paris", b"\xed\xa0\xbd"), PROTOCOL),
    _case("overlong UTF-8", _in_json(b"Paris", b"\xc0\xaf"), PROTOCOL),
    _case("half a surrogate pair", _in_json(b"Paris", b"\\ud83d"), ANSWER),
    _case("the halves the wrong way round", _in_json(b"Paris", b"\\ude00\\ud83d"), ANSWER),
    _case("escaped NUL", _in_json(b"Paris", b"\\u0000"), ANSWER),
    _case("NUL", _in_json(b"Paris", b"\x00"), PROTOCOL),
    _case("control characters", _in_json(b"Paris", b"\x1b[2J\x07"), PROTOCOL),
    _case("escaped control characters", _in_json(b"Paris", b"\\u001b[2J\\u0007"), ANSWER),
    _case("NUL in front", lambda good, _: Answer.of(b"\0" + good), PROTOCOL),
    _case("more behind the end", lambda good, _: Answer.of(good + b"{}"), PROTOCOL),
    _case("nothing but NUL", Answer.of(b"\0" * _MIB), PROTOCOL),
    _case("a page", lambda _, said: Answer.of(f"<title>{said}</title>{said}".encode(), headers={"content-type": "text/html"}), PROTOCOL),
    _case("titles without end", Answer.of(b"<title" * 200_000, 401), AUTH),
    _case("garbage", Answer.of(bytes(range(256)) * 999), PROTOCOL),
    _case("events", Answer.of(b"data: {}\n\ndata: [DONE]\n\n"), PROTOCOL),
    *(
        _case(f"{shown} somewhere", _members(b'"extra": ' + value), *ends)
        for shown, value, ends in (
            ("NaN", b"NaN", (PROTOCOL,)),
            ("Infinity", b"Infinity", (PROTOCOL,)),
            ("-Infinity", b"-Infinity", (PROTOCOL,)),
            ("1e999", b"1e999", (ANSWER,)),
            ("10**400", b"1" + b"0" * 400, (ANSWER,)),
            ("10**5000", b"1" + b"0" * 5000, (PROTOCOL,)),
            ("a million digits", b"0." + b"1" * _MIB, (ANSWER,)),
            ("100,000 lists", b"[" * 100_000 + b"]" * 100_000, (PROTOCOL,)),
            ("900 lists", b"[" * 900 + b"]" * 900, (ANSWER,)),
            ("a comma too many", b"[1,]", (PROTOCOL,)),
            ("a comment", b"1 /* ? */", (PROTOCOL,)),
        )
    ),
    *(
        _case(f"twice {name}", _members(b'"%b": 5' % name.encode()), PROTOCOL, ANSWER)
        for name in ("message", "choices", "response", "done", "usage", "__proto__", "__class__")
    ),
]

_NUMBERS = [
    _case(f"{field} {shown}", _members(member), ANSWER)
    for field, form in (
        ("usage", b'"usage": {"prompt_tokens": %b, "completion_tokens": %b, "cost": %b}'),
        ("cost", b'"cost": %b, "total_duration": %b, "created": %b'),
        ("counts", b'"prompt_eval_count": %b, "eval_count": %b, "eval_duration": %b'),
    )
    for shown, value in (
        ("1e308", b"1e308"),
        ("1e999", b"1e999"),
        ("10**400", b"1" + b"0" * 400),
        ("-1", b"-1"),
        ("-0.0", b"-0.0"),
        ("0.5", b"0.5"),
        ("true", b"true"),
        ('"Infinity"', b'"Infinity"'),
        ('"1e400"', b'"1e400"'),
        ('"5_0"', b'"5_0"'),
        ("a long text", b'"' + b"9" * _MIB + b'"'),
    )
    for member in (form % ((value,) * 3),)
]

_HEADS = [
    _case("100,000 headers", Answer.raw(_HEAD + b"x-y: z\r\n" * 100_000 + b"\r\n{}", End.CLOSE), PROTOCOL),
    _case("a header of 10 MB", Answer.raw(_HEAD + b"x: " + b"y" * 10 * _MIB + b"\r\n\r\n{}", End.CLOSE), PROTOCOL),
    _case("headers without end", Answer.raw_endless(_HEAD, b"x: y\r\n" * 999), PROTOCOL),
    _case("a header without end", Answer.raw_endless(_HEAD + b"x: ", b"y" * 65536), PROTOCOL),
    _case("folded headers without end", Answer.raw_endless(_HEAD + b"x: y\r\n", b" y\r\n" * 999), PROTOCOL),
    _case("90 headers of 60,000 bytes", _headed(b"".join(b"x-%d: %b\r\n" % (n, b"y" * 60_000) for n in range(90))), ANSWER),
    _case("90 cookies", _headed(b"".join(b"set-cookie: c%d=%b; domain=.\r\n" % (n, b"y" * 9999) for n in range(90))), ANSWER),
    _case("a status line without end", Answer.raw_endless(b"HTTP/1.1 200 ", b"y" * 65536), PROTOCOL),
    *(
        _case(f"status line {line[:30]!r}", _status(line), *ends)
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
    _case("HTTP/0.9", lambda good, _: Answer.raw(good, End.CLOSE), PROTOCOL),
    _case("the key for a status line", lambda _, said: Answer.raw(f"{said}\r\n\r\n".encode(), End.CLOSE), PROTOCOL),
    _case("the key for a header", lambda _, said: Answer.raw(_HEAD + f"{said}\r\n: {said}\r\n\r\n{said}".encode(), End.CLOSE), PROTOCOL),
    _case("the key for a chunk size", lambda _, said: Answer.raw(_CHUNKED + f"{said}\r\n".encode(), End.CLOSE), PROTOCOL),
    _case("the key for an encoding", lambda good, said: Answer.of(good, headers={"content-encoding": f"gzip, {said}"}), PROTOCOL, ANSWER),
    _case("random bytes", Answer.raw(bytes(range(128, 256)) * 9999, End.CLOSE), PROTOCOL),
    _case("endless random bytes", Answer.raw_endless(b"", bytes(range(128, 256)) * 999), PROTOCOL),
    _case("TLS where there should be none", Answer.raw(b"\x15\x03\x01\x00\x02\x02\x46", End.CLOSE), PROTOCOL),
    _case("HTTP/2 frames", Answer.raw(b"\x00\x00\x12\x04" + b"\0" * 23, End.CLOSE), PROTOCOL),
    *(
        _case(f"header {line[:20]!r}", _headed(line + b"\r\n"), ANSWER, PROTOCOL)
        for line in (b"no colon", b": no name", b"x\x00y: z", b"x: \x00\x1b[2J", b" folded: x", b"x y: z", b"\xff\xfe: \xff", b"x:\ry", b"x: a\nb: c")
    ),
    _case("100 first", _before(b"HTTP/1.1 100 Continue\r\n\r\n"), ANSWER),
    _case("103 first", _before(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"), ANSWER),
    _case("102 and 199 first", _before(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 Odd\r\n\r\n"), ANSWER),
    _case("101", _before(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"), PROTOCOL),
    _case("100 without end", Answer.raw_endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 999), PROTOCOL),
    _case("103 without end", Answer.raw_endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 999), PROTOCOL),
    _case("100 with headers without end", Answer.raw_endless(b"HTTP/1.1 100 Continue\r\n", b"x: y\r\n" * 999), PROTOCOL),
    *(
        _case(f"{status} with an answer in it", lambda good, _, status=status: Answer.of(good, status), *ends)
        for status, ends in ((201, (ANSWER,)), (206, (ANSWER,)), (226, (ANSWER,)), (204, (PROTOCOL,)), (205, (ANSWER, PROTOCOL)), (300, (PROTOCOL,)), (304, (PROTOCOL,)), (305, (PROTOCOL,)))
    ),
]

_REDIRECTS = [
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
        for location in ("", "http://[", "http://127.0.0.1:1/", "gopher://x", "x" * 60_000, "http://a:b@127.0.0.1:1/", "http://127.0.0.1:99999999/")
    ),
    _case("redirect with the key in it", lambda _, said: Answer.of(said.encode(), 302, {"location": f"http://127.0.0.1:1/{said}"}), PROTOCOL),
    _case("endless redirect", Answer.endless(b" " * 65536, 302, {"location": "http://127.0.0.1:1/"}), PROTOCOL),
    _case("Refresh", lambda good, _: Answer.of(good, headers={"refresh": "0; url=http://127.0.0.1:1/", "content-location": "http://127.0.0.1:1/", "alt-svc": 'h2="127.0.0.1:1"'}), ANSWER),
]

_ERRORS = [
    _case("50 MB of error", Answer.raw(b"HTTP/1.1 401 No\r\ncontent-length: 52428800\r\n\r\n", *[b"x" * _MIB] * 50), AUTH),
    _case("an error without end", Answer.endless(b"x" * 65536, 401), AUTH),
    _case("a slow error without end", Answer.raw_endless(b"HTTP/1.1 401 No\r\n\r\n", b"x", slowly=True), AUTH, LATE, within_s=0.5),
    _case("an error with the key", _refused(lambda said: json.dumps(_json_error(said)).encode()), AUTH),
    _case("an error with the key many times", _refused(lambda said: json.dumps(_json_error(said * 9999)).encode()), AUTH),
    _case("an error with the key at the cut", _refused(lambda said: b"x" * 270 + said.encode()), AUTH),
    _case("an error with half of the key", _refused(lambda said: said[:-20].encode()), AUTH),
    _case("an error with the end of the key", _refused(lambda said: said[-20:].encode()), AUTH),
    _case("an error with the key in pieces", _refused(lambda said: "\0".join(said).encode()), AUTH),
    _case("an error with the key in HTML", _refused(lambda said: f"<title>{said}</title>".encode()), AUTH),
    _case("an error with the key as JSON in text", _refused(lambda said: json.dumps({"error": {"message": "m", "metadata": {"raw": json.dumps(_json_error(said))[:-1], "provider_name": said}}}).encode()), AUTH),
    _case("an error inside a 200 with the key", lambda _, said: Answer.json(_json_error(said)), "upstream_unavailable"),
    _case("an error of lists", Answer.json({"error": [[[]]]}, 401), AUTH),
    _case("an error of a number", Answer.of(b'{"error": ' + b"9" * 4000 + b"}", 401), AUTH),
    _case("an error in 100,000 lists", Answer.of(b'{"error": ' + b"[" * 100_000, 401), AUTH),
    _case("an answer with the key", lambda good, said: Answer.of(good.replace(b"Paris", said.encode())), ANSWER),
    *map(_retry_after, ("1e30", "-1", "1e308", "inf", "nan", "soon", "²", "1_000", "0x10", "9" * 60_000, "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 -2359", "Mon, 01 Jan 0001 00:00:00 +2359", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "Mon, 32 Foo 2026 25:61:61 +9999999999", "1 1 1 1 1", ",", "1s" * 9999, "1" * 400 + "s")),
    *(
        _case(f"{name} {value[:20]}", Answer.json({"error": "busy"}, 429, {name: value}), LIMITED)
        for name in ("retry-after-ms", "x-ratelimit-reset", "x-ratelimit-reset-requests", "x-ratelimit-remaining-requests")
        for value in ("1e30", "-1", "nan", "9" * 400, "9" * 9000, "1s" * 9999 + "x", "1s " * 9999 + "x", "253402300800000")
    ),
]

CASES = [*_SIZES, *_FRAMING, *_PACKED, *_TEXTS, *_NUMBERS, *_HEADS, *_REDIRECTS, *_ERRORS]
