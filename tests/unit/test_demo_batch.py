"""The demo's batch: the file it submits, and what it takes for an answer to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from chat.batches.lines import ENDPOINTS, parse_line
from deploy.demo.batch import Answer, answers, lines
from deploy.demo.processes import DemoError


def result(line: dict[str, Any], text: str | None = "A thing.", tokens: int = 3) -> dict[str, Any]:
    """What a batch writes for an answered line, as far as the demo reads it."""
    if line["url"] == "/v1/chat":
        body: dict[str, Any] = {"content": text}
    else:
        body = {"choices": [{"message": {"content": text}}]}
    return {
        "custom_id": line["custom_id"],
        "response": {"status_code": 200, "body": body},
        "chatd": {"input_tokens": 9, "output_tokens": tokens},
    }


def test_every_line_is_one_that_chatd_takes() -> None:
    """Twenty of them, for both endpoints and with ids of their own."""
    read = [
        parse_line(number, json.dumps(line).encode(), max_timeout_s=60)
        for number, line in enumerate(lines("local_fast"), 1)
    ]

    assert len(read) == 20
    assert {line.url for line in read} == set(ENDPOINTS)
    assert len({line.custom_id for line in read}) == 20
    assert {line.call.request.model for line in read} == {"local_fast"}


def test_the_answers_of_both_endpoints_are_read_in_any_order() -> None:
    """A line break in an answer does not break the line it is printed on."""
    asked = lines("m")
    told = [json.dumps(result(line, f"To\n{line['custom_id']}.")) for line in reversed(asked)]

    assert answers(told) == {
        line["custom_id"]: Answer(f"To {line['custom_id']}.", 9, 3) for line in asked
    }


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        pytest.param(lambda told, _: told.pop(4), "no answer to q5$", id="one is missing"),
        pytest.param(lambda told, _: told.append(told[4]), "second answer to q5", id="one twice"),
        pytest.param(
            lambda told, asked: told.__setitem__(4, result(asked[4], text=None)),
            "without text",
            id="no text",
        ),
        pytest.param(
            lambda told, asked: told.__setitem__(5, result(asked[5], text=" \n")),
            "without text",
            id="only spaces",
        ),
        pytest.param(
            lambda told, asked: told.__setitem__(5, result(asked[5], tokens=0)),
            "without token counts",
            id="no tokens",
        ),
    ],
)
def test_whatever_is_less_than_all_answers_fails_the_demo(
    spoil: Callable[[list[Any], list[Any]], object], fault: str
) -> None:
    """It shows that a batch works: one that half works must not look like it."""
    asked = lines("m")
    told = [result(line) for line in asked]
    spoil(told, asked)

    with pytest.raises(DemoError, match=fault):
        answers(map(json.dumps, told))
