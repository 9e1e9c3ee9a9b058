"""Bodies that are no text, no JSON, or JSON that Python alone reads, and odd figures in them."""

from __future__ import annotations

from collections.abc import Callable

from tests.upstream import Answer
from tests.wire.hostile.case import ANSWER, AUTH, MIB, PROTOCOL, case

__all__ = ["NUMBERS", "TEXTS"]


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


TEXTS = [
    case("Latin-1", _text("latin-1"), PROTOCOL),
    case("UTF-16", _text("utf-16"), PROTOCOL),
    case("UTF-16 without BOM", _text("utf-16-le"), PROTOCOL),
    case("UTF-32", _text("utf-32"), PROTOCOL),
    case("UTF-8 that says it is UTF-16", _text("utf-8", "utf-16"), ANSWER),
    case("UTF-8 that says it is no such thing", _text("utf-8", "x-none\\"), ANSWER),
    case("UTF-8 with BOM", _text("utf-8-sig"), ANSWER),
    case("two BOMs", _text("utf-8-sig", before=b"\xef\xbb\xbf"), PROTOCOL),
    case("Latin-1 that says it is UTF-8", _text("latin-1", "utf-8"), PROTOCOL),
    case("surrogates in UTF-8", _in_json(b"Paris", b"\xed\xa0\xbd"), PROTOCOL),
    case("overlong UTF-8", _in_json(b"Paris", b"\xc0\xaf"), PROTOCOL),
    case("half a surrogate pair", _in_json(b"Paris", b"\\ud83d"), ANSWER),
    case("the halves the wrong way round", _in_json(b"Paris", b"\\ude00\\ud83d"), ANSWER),
    case("escaped NUL", _in_json(b"Paris", b"\\u0000"), ANSWER),
    case("NUL", _in_json(b"Paris", b"\x00"), PROTOCOL),
    case("control characters", _in_json(b"Paris", b"\x1b[2J\x07"), PROTOCOL),
    case("escaped control characters", _in_json(b"Paris", b"\\u001b[2J\\u0007"), ANSWER),
    case("NUL in front", lambda good, _: Answer.of(b"\0" + good), PROTOCOL),
    case("more behind the end", lambda good, _: Answer.of(good + b"{}"), PROTOCOL),
    case("nothing but NUL", Answer.of(b"\0" * MIB), PROTOCOL),
    case(
        "a page",
        lambda _, said: Answer.of(
            f"<title>{said}</title>{said}".encode(), headers={"content-type": "text/html"}
        ),
        PROTOCOL,
    ),
    case("titles without end", Answer.of(b"<title" * 200_000, 401), AUTH),
    case("garbage", Answer.of(bytes(range(256)) * 999), PROTOCOL),
    case("events", Answer.of(b"data: {}\n\ndata: [DONE]\n\n"), PROTOCOL),
    *(
        case(f"{shown} somewhere", _members(b'"extra": ' + value), *ends)
        for shown, value, ends in (
            ("NaN", b"NaN", (PROTOCOL,)),
            ("Infinity", b"Infinity", (PROTOCOL,)),
            ("-Infinity", b"-Infinity", (PROTOCOL,)),
            ("1e999", b"1e999", (ANSWER,)),
            ("10**400", b"1" + b"0" * 400, (ANSWER,)),
            ("10**5000", b"1" + b"0" * 5000, (PROTOCOL,)),
            ("a million digits", b"0." + b"1" * MIB, (ANSWER,)),
            ("100,000 lists", b"[" * 100_000 + b"]" * 100_000, (PROTOCOL,)),
            ("900 lists", b"[" * 900 + b"]" * 900, (ANSWER,)),
            ("a comma too many", b"[1,]", (PROTOCOL,)),
            ("a comment", b"1 /* ? */", (PROTOCOL,)),
        )
    ),
    *(
        case(f"twice {name}", _members(b'"%b": 5' % name.encode()), PROTOCOL, ANSWER)
        for name in ("message", "choices", "response", "done", "usage", "__proto__", "__class__")
    ),
]


NUMBERS = [
    case(f"{field} {shown}", _members(member), ANSWER)
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
        ("a long text", b'"' + b"9" * MIB + b'"'),
    )
    for member in (form % ((value,) * 3),)
]
