"""Reading fields of an answer: right types pass, wrong ones are told with their path."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chat.errors import UpstreamProtocolError
from chat.providers.fields import Fields, parse_json


def fields(**values: object) -> Fields:
    """An answer of kimi."""
    return Fields("kimi", 200, dict(values))


@pytest.mark.parametrize(
    "text",
    ["", " ", "{", "NaN", "[Infinity]", "-Infinity", "{'a': 1}", "[" * 100_000, "9" * 5000, "1 2"],
    ids=lambda text: text[:12] or "empty",
)
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    """Also what Python's own reader would take, and what would exhaust its stack."""
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


READERS: dict[str, Callable[[Fields], object]] = {
    "text": lambda f: f.text("x"),
    "flag": lambda f: f.flag("x"),
    "count": lambda f: f.count("x"),
    "amount": lambda f: f.amount("x"),
    "object_text": lambda f: f.object_text("x"),
}


@pytest.mark.parametrize("reader", READERS)
def test_missing_and_null_are_the_same(reader: str) -> None:
    """Both are None, and neither is contained."""
    assert READERS[reader](fields()) is None
    assert READERS[reader](fields(x=None)) is None
    assert "x" not in fields(x=None)
    assert fields().child("x").values == {}
    assert fields(x=None).children("x") == []


@pytest.mark.parametrize(
    ("reader", "value", "read"),
    [
        ("text", "abc", "abc"),
        ("text", "a\ud83db", "a?b"),
        ("text", "\U0001f600", "\U0001f600"),
        ("flag", True, True),
        ("count", 0, 0),
        ("count", 10**9, 10**9),
        ("count", 14.0, 14),
        ("amount", 0, 0.0),
        ("amount", 0.5, 0.5),
        ("amount", "0.00002100", 2.1e-05),
        ("object_text", {"a": 1}, '{"a": 1}'),
        ("object_text", '{"a": 1}', '{"a": 1}'),
    ],
)
def test_a_right_value_is_read(reader: str, value: object, read: object) -> None:
    """As its own type, or as a close one that occurs."""
    found = READERS[reader](fields(x=value))

    assert found == read
    assert type(found) is type(read)


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        ("text", 1),
        ("text", ["a"]),
        ("flag", 1),
        ("flag", "true"),
        ("object_text", [1]),
        ("object_text", {"a": [float("inf")]}),
    ],
)
def test_a_wrong_value_is_told(reader: str, value: object) -> None:
    """With provider, path and status."""
    with pytest.raises(
        UpstreamProtocolError, match=r"kimi cannot be used: x is .* instead of"
    ) as e:
        READERS[reader](fields(x=value))

    assert e.value.provider == "kimi"
    assert e.value.upstream_status == 200


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        ("count", True),
        ("count", "14"),
        ("count", 14.5),
        ("count", -1),
        ("count", 10**9 + 1),
        ("count", 2**53),
        ("count", 1e308),
        ("count", float("inf")),
        ("amount", True),
        ("amount", "much"),
        ("amount", "nan"),
        ("amount", "inf"),
        ("amount", -0.5),
        ("amount", 10**400),
        ("amount", 1e308),
        ("amount", "1000000.01"),
        ("amount", [1]),
    ],
)
def test_what_is_no_figure_is_none(reader: str, value: object) -> None:
    """Nobody loses an answer that was paid for because its statistics are odd."""
    assert READERS[reader](fields(x=value)) is None


def test_a_path_leads_through_objects_and_lists() -> None:
    """The innermost name stands at its end."""
    answer = fields(choices=[{"message": {"content": 1}}])

    with pytest.raises(UpstreamProtocolError, match=r"choices\[0\]\.message\.content is a number"):
        answer.children("choices")[0].child("message").text("content")


@pytest.mark.parametrize("value", ["x", 1, True, {"a": 1}])
def test_a_list_of_objects_is_demanded(value: object) -> None:
    """Neither something else nor something else inside passes."""
    with pytest.raises(UpstreamProtocolError, match="instead of a list"):
        fields(x=value).children("x")
    with pytest.raises(UpstreamProtocolError, match=r"x\[1\] is .* instead of an object"):
        fields(x=[{}, [value]]).children("x")


def test_an_object_that_is_nested_too_deeply_is_told() -> None:
    """It could be read and still not be written again."""
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"a": deep}

    with pytest.raises(UpstreamProtocolError, match="usual depth"):
        fields(x=deep).object_text("x")
