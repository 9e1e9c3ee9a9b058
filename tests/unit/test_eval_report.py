"""The report as a file: ``chat.evaluations.report``. A browser opens it in the system tests."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode

import pytest

from tests.reports import HOSTILE, a_report


@pytest.fixture
def made(tmp_path):
    def make(samples=8, **limits):
        path = tmp_path / "report.html"
        summary, rows = a_report(path, samples, **limits)
        return path.read_text("utf-8"), summary, rows

    return make


def data(page: str, name: str):
    found = re.search(
        rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL
    )
    assert found is not None
    return json.loads(found[1])


def test_the_page_has_the_whole_run(made):
    page, summary, rows = made()
    assert data(page, "summary") == summary
    shown = data(page, "rows")
    assert [row["answer"] for row in shown] == [row["answer"] for row in rows]
    assert [shown[row["asked"]]["messages"] for row in shown] == [row["messages"] for row in rows]
    assert sum("messages" in row for row in shown) == 8  # All models were asked the same.


def test_no_answer_becomes_markup(made):
    page, _, rows = made()
    assert any(HOSTILE in (row["answer"] or "") for row in rows)
    assert "<img" not in page
    assert page.count("</script>") == 3
    assert page.count("<script") == 3
    assert "<b>" not in page.split("<body>")[0]


def test_the_policy_lets_the_own_script_run_and_nothing_else(made):
    page, _, _ = made()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    (style,) = re.findall("<style>(.*?)</style>", page, re.DOTALL)
    (script,) = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    for name, text in (("style-src", style), ("script-src", script)):
        digest = b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    # A style attribute or an inline handler in the page would be refused by this policy.
    assert not re.search(r"<[a-z][^>]* (style|on[a-z]+)=", page.replace(script, ""))


def test_nothing_is_fetched(made):
    page, _, _ = made()
    assert set(re.findall(r"https?://[^\s\"'`)]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(link|iframe|object|embed)|@import|url\(", page)


def test_long_texts_are_cut_and_say_so(made):
    page, _, rows = made(longest_text=40)
    shown = data(page, "rows")
    (long,) = (row for row in rows if row["sample"] == "q4" and row["model"] == "llama3.2:3b")
    (cut,) = (row for row in shown if row["sample"] == "q4" and row["model"] == "llama3.2:3b")
    assert cut["answer"].startswith(long["answer"][:40])
    assert f"[… {len(long['answer']) - 40} more characters in results.jsonl]" in cut["answer"]


def test_a_page_too_large_leaves_out_what_is_without_fault(made):
    page, _, rows = made(samples=40, most_bytes=10_000)
    shown = data(page, "rows")
    left_out = [row for row in shown if row.get("left_out")]
    assert 0 < len(left_out) < len(rows)
    for row in left_out:
        assert {score["score"] for score in row["scores"].values()} == {1.0}
        assert row["answer"] is None
    faults = [row for row in rows if any(score["score"] == 0 for score in row["scores"].values())]
    kept = {(row["sample"], row["model"]) for row in shown if row["answer"] is not None}
    assert all((row["sample"], row["model"]) in kept for row in faults)
