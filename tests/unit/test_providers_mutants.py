"""Every example answer of every provider with every part of it gone wrong, one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from chat.errors import UpstreamError
from chat.types import ChatResponse
from tests.wire.canned import CannedUpstream
from tests.wire.providers import (
    answer_files,
    call,
    error_files,
    load,
    plain_request,
    provider_at,
    stream_api,
    stream_files,
    stream_of,
)
from tests.wire.streams import Pieces, records_of

_A_YEAR_S = 366 * 86400

#: Numbers that JSON may have and ``json.dumps`` does not write, by what stands for them.
_ODD = {f"<{text}>": text for text in ("1e999", "-1e999", f"1{'0' * 400}", "-0", "1E-400")}
_WRONG: list[Any] = [
    *(None, True, False, -1, 1.5, 2**63, 1e308),
    *("", "text", "\ud83d", "\0", "9" * 999),
    *([], [[]], [1], [None], {}, {"a": 1}, {"error": {}}),
    *_ODD,
]


def _written(value: Any) -> bytes:
    text = json.dumps(value)
    for mark, number in _ODD.items():
        text = text.replace(json.dumps(mark), number)
    return text.encode()


def _mutants(value: Any) -> list[Any]:
    """``value`` with one part after the other replaced by something of every other type."""
    found = list(_WRONG)
    if isinstance(value, dict):
        for key, part in value.items():
            found += [{**value, key: mutant} for mutant in _mutants(part)]
            found.append({other: rest for other, rest in value.items() if other != key})
    if isinstance(value, list):
        for index, part in enumerate(value):
            found += [[*value[:index], mutant, *value[index + 1 :]] for mutant in _mutants(part)]
    return found


@pytest.mark.parametrize("file", [*answer_files(), *error_files()])
def test_a_part_of_a_wrong_type_never_raises_anything_else(file: str) -> None:
    """The call answers, or it is an UpstreamError; either can be written as JSON."""
    name = file.partition("/")[0]
    payload = load(file)
    upstream = CannedUpstream(name, status=payload["status"])
    provider = provider_at(name, lambda _: upstream)
    outcomes: list[ChatResponse | UpstreamError] = []
    for mutant in _mutants(payload.get("body")):
        upstream.pieces = [_written(mutant)]
        try:
            outcomes.append(call(provider, plain_request(name)))
        except UpstreamError as error:
            outcomes.append(error)
    upstream.close()

    assert any(isinstance(outcome, UpstreamError) for outcome in outcomes)
    for outcome in outcomes:
        _check(outcome)


@pytest.mark.parametrize("file", stream_files())
def test_a_part_of_a_record_of_a_wrong_type_never_raises_anything_else(file: str) -> None:
    """Nor do pieces ever say anything but how the answer begins."""
    name = file.partition("/")[0]
    upstream = CannedUpstream(name)
    provider = provider_at(name, lambda _: upstream, api=stream_api(file))
    outcomes: list[ChatResponse | UpstreamError] = []
    for stream in _mutant_streams(stream_of(file)):
        upstream.pieces = [stream]
        pieces = Pieces()
        try:
            outcomes.append(call(provider, plain_request(name), deltas=pieces))
        except UpstreamError as error:
            outcomes.append(error)
        else:
            assert pieces.together.rest_of(outcomes[-1].to_wire()) == []
        _written_strictly(pieces.together.to_wire())
    upstream.close()

    assert any(isinstance(outcome, UpstreamError) for outcome in outcomes)
    for outcome in outcomes:
        _check(outcome)


def _mutant_streams(body: bytes) -> Iterator[bytes]:
    """A stream with one part of one record after the other replaced."""
    records = records_of(body)
    for number, record in enumerate(records):
        begin, _, rest = record.partition(b"{")
        if not rest or begin not in (b"", b"data: "):
            continue
        text = rest.rstrip()
        end = rest[len(text) :]
        for mutant in _mutants(json.loads(b"{" + text)):
            wrong = begin + _written(mutant) + end
            yield b"".join([*records[:number], wrong, *records[number + 1 :]])


def _check(outcome: ChatResponse | UpstreamError) -> None:
    wire = outcome.to_wire()
    _written_strictly(wire)
    assert 0 <= wire.get("retry_after_s", 0) <= _A_YEAR_S


def _written_strictly(wire: object) -> None:
    json.dumps(wire, allow_nan=False, ensure_ascii=False).encode("utf-8")
