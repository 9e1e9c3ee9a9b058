"""Request bodies: strict JSON, with every fault named by its place."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import InvalidRequest
from chat.formats.strict_json import MAX_DEPTH, MAX_VALUES, _count, parse_object, place, shown

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("aä\n"), inner, max_size=3),
    max_leaves=10,
)


def _nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@given(st.dictionaries(st.text("abc"), _VALUES, max_size=4), st.booleans())
def test_every_json_object_is_read_as_it_is(value: dict[str, object], escaped: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    """Whatever Python writes as JSON comes back, escaped or not."""
    assert parse_object(json.dumps(value, ensure_ascii=escaped).encode()) == value


@pytest.mark.parametrize(
    ("raw", "param", "said"),
    [
        pytest.param(b"", None, "the body is empty", id="empty"),
        pytest.param(b" \n", None, "the body is empty", id="blank"),
        pytest.param(b"[1]", None, "the body is a list of 1", id="list"),
        pytest.param(b'"x"', None, 'the body is "x"', id="string"),
        pytest.param(b"null", None, "the body is null", id="null"),
        pytest.param(b'{"a":1', None, "at line 1, column 7", id="cut off"),
        pytest.param(b'{\n"a":1,}', None, "at line 2, column", id="trailing comma"),
        pytest.param(b"{'a':1}", None, "double quotes", id="single quotes"),
        pytest.param(b"{} {}", None, "Extra data", id="two objects"),
        pytest.param(b'{"a":"\x01"}', None, "control character at line 1", id="control character"),
        pytest.param(b'{"a":"\xff"}', None, "byte 0xff at offset 6", id="not UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", None, "byte order mark", id="byte order mark"),
        pytest.param('{"a":1}'.encode("utf-16"), None, "not UTF-8", id="UTF-16"),
        pytest.param(b'{"a":1,"a":1}', "a", "stands twice", id="key twice"),
        pytest.param(b'{"a":[{"b":1,"c":2,"b":3}]}', "a[0].b", "twice", id="key twice inside"),
        pytest.param(b'{"a":NaN}', "a", "NaN is not JSON", id="NaN"),
        pytest.param(b'{"a":{"b c":-Infinity}}', 'a["b c"]', "-Infinity", id="infinity"),
        pytest.param(b'{"a":[0,1e999]}', "a[1]", "1e999 is too large", id="too large for a double"),
        pytest.param(b'{"a":' + b"1" * 5000 + b"}", None, "thousands of digits", id="digits"),
        pytest.param(b'{"a":"\\ud800"}', "a", "half of a surrogate pair", id="lone surrogate"),
        pytest.param(b'{"\\udc00":1}', None, "the key", id="lone surrogate in a key"),
        pytest.param(_nested(MAX_DEPTH + 1), ".".join("a" * 10), "at most 64", id="too deep"),
        pytest.param(b"[" * 90_000, None, "nested too deeply", id="deeper than Python goes"),
        pytest.param(b"[" * 100_000, None, "more than 100000 values", id="deeper still"),
        pytest.param(b'{"a":[' + b"0, " * MAX_VALUES + b"0]}", None, "values", id="many numbers"),
        pytest.param(b'{"a":' + b"[[]," * MAX_VALUES, None, "values", id="many lists"),
        pytest.param(b'{"a' + b',"' * 10**6, None, "values", id="many quotes"),
    ],
)
def test_what_cannot_be_passed_on_is_named_by_its_place(
    raw: bytes, param: str | None, said: str
) -> None:
    """Line and column for what is not JSON, a path for what is."""
    with pytest.raises(InvalidRequest) as caught:
        parse_object(raw)

    assert caught.value.param == param
    assert said in caught.value.message


def test_both_halves_of_a_surrogate_pair_are_a_character() -> None:
    """An escaped emoji is text like any other."""
    assert parse_object(b'{"a":"\\ud83d\\ude00"}') == {"a": "😀"}


def test_the_deepest_allowed_body_is_read() -> None:
    """The limit itself is allowed."""
    assert json.dumps(parse_object(_nested(MAX_DEPTH))).encode().replace(b" ", b"") == _nested(
        MAX_DEPTH
    )


@pytest.mark.parametrize(
    "text",
    ["[0]," * MAX_VALUES, '",' * MAX_VALUES, "\\{" * MAX_VALUES],
    ids=["lists", "quotes", "backslashes"],
)
def test_what_stands_in_a_string_is_one_value(text: str) -> None:
    """However much it looks like JSON."""
    assert parse_object(json.dumps({"a": text}).encode()) == {"a": text}


def test_as_many_values_as_there_may_be_are_read() -> None:
    """The limit itself is allowed, with as many empty ones as can be and white space anywhere."""
    inner = ", ".join(["[ ]", "{ }", "0", '"[,"'] * (MAX_VALUES // 4))
    allowed, more = inner.removesuffix(', "[,"').removesuffix(", 0"), inner.removesuffix(', "[,"')

    assert len(parse_object(f'{{"a": [{allowed}]}}'.encode())["a"]) == MAX_VALUES - 2
    with pytest.raises(InvalidRequest, match="more than 100000 values"):
        parse_object(f'{{"a": [{more}]}}'.encode())


@given(st.dictionaries(st.text(), _VALUES, max_size=4), st.integers(0, 3))
def test_values_are_counted_as_they_are_made(value: dict[str, object], indent: int) -> None:
    """Strings, numbers and constants as well as objects and lists; keys are none."""

    def count(value: object) -> int:
        below = list(value.values()) if isinstance(value, dict) else value
        return 1 + (sum(map(count, below)) if isinstance(below, list) else 0)

    assert _count(json.dumps(value, indent=indent)) == count(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param("x" * 61, f'"{"x" * 60}…"', id="long text is cut"),
        pytest.param("a\n\x1b\u202eb", r'"a\n\x1b\u202eb"', id="nothing unprintable"),
        pytest.param("日本", '"日本"', id="letters stay"),
        pytest.param([1, 2], "a list of 2", id="list"),
        pytest.param({}, "an empty object", id="empty object"),
        pytest.param({"a": 1}, "an object with 1 fields", id="object"),
        pytest.param(True, "true", id="as JSON has it"),
        pytest.param(10**100, "1" + "0" * 59 + "…", id="long number is cut"),
    ],
)
def test_a_value_is_shown_short_and_printable(value: object, text: str) -> None:
    """A message is one line, whatever the value holds."""
    assert shown(value) == text


def test_a_path_reads_as_a_person_would_write_it() -> None:
    """Dots for names, brackets for positions and for what is no name."""
    assert place(["messages", 1, "a b", "role"]) == 'messages[1]["a b"].role'
