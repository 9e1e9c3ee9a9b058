"""Error answers that are too large, repeat the key, or tell odd times."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.upstream import Answer
from tests.wire.hostile.case import ANSWER, AUTH, LATE, LIMITED, MIB, Case, case

__all__ = ["ERRORS"]


def _retry_after(value: str) -> Case:
    answer = Answer.json({"error": "busy"}, 429, {"retry-after": value})
    return case(f"Retry-After {value[:30]}", answer, LIMITED)


def _refused(body: Callable[[str], bytes]) -> Callable[[bytes, str], Answer]:
    return lambda _good, said: Answer.of(body(said), 401)


def _json_error(said: str) -> dict[str, object]:
    return {"error": {"message": said, "type": said, "code": said, "param": said}}


ERRORS = [
    case(
        "50 MB of error",
        Answer.raw(b"HTTP/1.1 401 No\r\ncontent-length: 52428800\r\n\r\n", *[b"x" * MIB] * 50),
        AUTH,
    ),
    case("an error without end", Answer.endless(b"x" * 65536, 401), AUTH),
    case(
        "a slow error without end",
        Answer.raw_endless(b"HTTP/1.1 401 No\r\n\r\n", b"x", slowly=True),
        AUTH,
        LATE,
        within_s=0.5,
    ),
    case(
        "an error with the key", _refused(lambda said: json.dumps(_json_error(said)).encode()), AUTH
    ),
    case(
        "an error with the key many times",
        _refused(lambda said: json.dumps(_json_error(said * 9999)).encode()),
        AUTH,
    ),
    case(
        "an error with the key at the cut", _refused(lambda said: b"x" * 270 + said.encode()), AUTH
    ),
    case("an error with half of the key", _refused(lambda said: said[:-20].encode()), AUTH),
    case("an error with the end of the key", _refused(lambda said: said[-20:].encode()), AUTH),
    case("an error with the key in pieces", _refused(lambda said: "\0".join(said).encode()), AUTH),
    case(
        "an error with the key in HTML",
        _refused(lambda said: f"<title>{said}</title>".encode()),
        AUTH,
    ),
    case(
        "an error with the key as JSON in text",
        _refused(
            lambda said: json.dumps(
                {
                    "error": {
                        "message": "m",
                        "metadata": {
                            "raw": json.dumps(_json_error(said))[:-1],
                            "provider_name": said,
                        },
                    }
                }
            ).encode()
        ),
        AUTH,
    ),
    case(
        "an error inside a 200 with the key",
        lambda _, said: Answer.json(_json_error(said)),
        "upstream_unavailable",
    ),
    case("an error of lists", Answer.json({"error": [[[]]]}, 401), AUTH),
    case("an error of a number", Answer.of(b'{"error": ' + b"9" * 4000 + b"}", 401), AUTH),
    case("an error in 100,000 lists", Answer.of(b'{"error": ' + b"[" * 100_000, 401), AUTH),
    case(
        "an answer with the key",
        lambda good, said: Answer.of(good.replace(b"Paris", said.encode())),
        ANSWER,
    ),
    *map(
        _retry_after,
        (
            "1e30",
            "-1",
            "1e308",
            "inf",
            "nan",
            "soon",
            "²",
            "1_000",
            "0x10",
            "9" * 60_000,
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "Fri, 31 Dec 9999 23:59:59 -2359",
            "Mon, 01 Jan 0001 00:00:00 +2359",
            "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
            "Mon, 32 Foo 2026 25:61:61 +9999999999",
            "1 1 1 1 1",
            ",",
            "1s" * 9999,
            "1" * 400 + "s",
        ),
    ),
    *(
        case(f"{name} {value[:20]}", Answer.json({"error": "busy"}, 429, {name: value}), LIMITED)
        for name in (
            "retry-after-ms",
            "x-ratelimit-reset",
            "x-ratelimit-reset-requests",
            "x-ratelimit-remaining-requests",
        )
        for value in (
            "1e30",
            "-1",
            "nan",
            "9" * 400,
            "9" * 9000,
            "1s" * 9999 + "x",
            "1s " * 9999 + "x",
            "253402300800000",
        )
    ),
]
