"""Results for other programs: ``chat.evaluations.exports``."""

from __future__ import annotations

import csv
import io
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from chat.evaluations.exports import junit, rows_to_csv

HOSTILE = "</failure> ]]> & \" ' < \x00 \x0b \ud800 \u202e \U0001f600"


def a_row(**changes: Any) -> dict[str, Any]:
    return {
        "sample": "q1",
        "model": "a",
        "repeat": 1,
        "status": "answered",
        "cached": False,
        "messages": [{"role": "user", "content": "What?"}],
        "expected": {"n": 1},
        "answer": "one",
        "finish_reason": "stop",
        "error": None,
        "scores": {"right": {"status": "scored", "score": 1.0, "reason": None, "code": None}},
        "input_tokens": 1,
        "output_tokens": 2,
        "cost_usd": None,
        "queue_ms": 3,
        "latency_ms": 1500,
        "job_id": "job_1",
        **changes,
    }


def scored(value: float | None, status: str = "scored", code: str | None = None) -> dict[str, Any]:
    return {"right": {"status": status, "score": value, "reason": HOSTILE, "code": code}}


def cases(*rows: dict[str, Any]) -> list[ET.Element]:
    """The test cases that JUnit's XML has, read back."""
    names = dict.fromkeys(row["model"] for row in rows)
    models = [{"name": name, "scores": [{"scorer": "right"}]} for name in names]
    out = io.StringIO()
    junit({"evaluation": {"name": HOSTILE}, "models": models}, rows, out)
    return list(ET.fromstring(out.getvalue()).iter("testcase"))  # noqa: S314 - as above


class TestJUnit:
    """One case for each row and scorer."""

    @pytest.mark.parametrize(
        ("row", "tag", "message"),
        [
            (a_row(scores=scored(1.0)), None, None),
            (a_row(scores=scored(0.5)), "failure", "scored 0.5"),
            (a_row(scores=scored(None, "unparsable")), "skipped", "unparsable"),
            (a_row(scores=scored(None, "errored", "upstream_auth")), "error", "upstream_auth"),
            (a_row(scores={}, error={"code": "c", "message": HOSTILE}), "error", "c"),
        ],
        ids=["right", "wrong", "unparsable", "no verdict", "no answer"],
    )
    def test_outcomes(self, row, tag, message):
        """An error is no failure."""
        (case,) = cases(row)
        assert [child.tag for child in case] == ([] if tag is None else [tag])
        assert tag is None or case[0].get("message") == message

    def test_any_text_is_xml(self):
        (case,) = cases(a_row(sample=HOSTILE, model=HOSTILE, answer=HOSTILE, scores=scored(0.0)))
        assert "\U0001f600" in str(case[0].text)

    def test_repeats_have_names_of_their_own(self):
        found = cases(a_row(), a_row(repeat=2), a_row(model="b"))
        assert [(case.get("classname"), case.get("name")) for case in found] == [
            ("a", "q1: right"),
            ("a", "q1 #2: right"),
            ("b", "q1: right"),
        ]
        assert found[0].get("time") == "1.500"


class TestCsv:
    """One line for each row."""

    def written(self, *rows: dict[str, Any]) -> list[dict[str, str]]:
        out = io.StringIO(newline="")
        rows_to_csv(rows, ["right"], out)
        assert out.getvalue().encode()
        return list(csv.DictReader(io.StringIO(out.getvalue(), newline="")))

    def test_it_is_read_back(self):
        text = 'a "b",\nc'
        first, second = self.written(
            a_row(answer=text), a_row(error={"code": "c", "message": "m"}, scores={}, answer=None)
        )
        assert (first["answer"], first["expected"], first["score: right"]) == (
            text,
            '{"n": 1}',
            "1.0",
        )
        assert (second["error"], second["score: right"], second["answer"]) == ("c", "", "")

    @pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t"])
    def test_no_answer_is_a_formula(self, start):
        (row,) = self.written(a_row(answer=f"{start}cmd|' /C calc'!A0"))
        assert row["answer"].startswith("'")

    def test_any_text_is_utf_8(self):
        (row,) = self.written(a_row(answer=HOSTILE))
        assert "\U0001f600" in row["answer"]
