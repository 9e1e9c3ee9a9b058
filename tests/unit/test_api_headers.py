"""Headers: how long a caller waits, which call it is, which request."""

from __future__ import annotations

import pytest
from werkzeug.datastructures import Headers

from api.headers import Preference, idempotency_key, request_id
from chat.errors import InvalidRequest


@pytest.mark.parametrize(
    ("prefer", "wait_s", "applied"),
    [
        pytest.param([], None, None, id="none"),
        pytest.param(["wait=10"], 10, "wait=10", id="wait"),
        pytest.param(["wait = 10"], 10, "wait=10", id="spaces around the sign"),
        pytest.param(['WAIT="10"'], 10, "wait=10", id="upper case and quoted"),
        pytest.param(["wait=007"], 7, "wait=7", id="leading zeros"),
        pytest.param(["wait=0"], 0, "wait=0", id="wait zero"),
        pytest.param(["respond-async"], 0, "respond-async", id="async"),
        pytest.param(["Respond-Async; x=1"], 0, "respond-async", id="with a parameter"),
        pytest.param(["respond-async, wait=5"], 5, "wait=5", id="async after a wait"),
        pytest.param(["wait=5", "respond-async"], 5, "wait=5", id="in two headers"),
        pytest.param(["wait=5, wait=9"], 5, "wait=5", id="the first counts"),
        pytest.param(['foo="a, wait=3", wait=4'], 4, "wait=4", id="a comma in quotes"),
        pytest.param(["wait"], None, None, id="wait without a value"),
        pytest.param(["wait=-1"], None, None, id="negative"),
        pytest.param(["wait=1.5"], None, None, id="fraction"),
        pytest.param(["wait=soon"], None, None, id="word"),
        pytest.param(["wait=" + "9" * 30], None, None, id="absurd"),
        pytest.param(["respond-async=no"], None, None, id="async with a value"),
        pytest.param(["return=minimal, , ;="], None, None, id="others and rubbish"),
    ],
)
def test_a_preference_is_read_as_the_rfc_says(
    prefer: list[str], wait_s: int | None, applied: str | None
) -> None:
    """RFC 7240: what is malformed or unknown is ignored, the first of a kind counts."""
    headers = Headers([("Prefer", value) for value in prefer])

    assert Preference.from_headers(headers) == Preference(wait_s, applied)


@pytest.mark.parametrize("key", ["k", "!~", "x" * 255], ids=["short", "edges", "longest"])
def test_visible_ascii_makes_an_idempotency_key(key: str) -> None:
    """1 to 255 characters."""
    assert idempotency_key(Headers({"Idempotency-Key": key})) == key


@pytest.mark.parametrize(
    "key",
    ["", "a b", "x" * 256, "schlüssel", "a\x7f"],
    ids=["empty", "space", "too long", "not ASCII", "delete"],
)
def test_any_other_idempotency_key_is_refused_without_showing_it(key: str) -> None:
    """The message has its length only: it may be a secret of the caller's."""
    with pytest.raises(InvalidRequest) as caught:
        idempotency_key(Headers({"Idempotency-Key": key}))

    assert caught.value.param == "Idempotency-Key"
    assert f"of {len(key)} characters" in caught.value.message
    assert not key or key not in caught.value.message


def test_no_idempotency_key_is_none() -> None:
    """Most calls have none."""
    assert idempotency_key(Headers()) is None


def test_a_sane_request_id_is_kept() -> None:
    """A caller finds its own id again."""
    assert request_id(Headers({"X-Request-Id": "Az09._-"})) == "Az09._-"


@pytest.mark.parametrize(
    "given", [None, "", "a b", "x" * 129, "a\tb"], ids=["none", "empty", "space", "long", "tab"]
)
def test_any_other_request_id_is_replaced(given: str | None) -> None:
    """What could break a log line does not get into one; each new id is different."""
    headers = Headers() if given is None else Headers({"X-Request-Id": given})
    ids = {request_id(headers), request_id(headers)}

    assert len(ids) == 2
    assert all(new.startswith("req_") for new in ids)
