"""What schemathesis may find refused although the document allows it: no more than is said."""

from __future__ import annotations

import pytest

from bench.contract.rules import RULES, rule_for

NAME = 'model is "{}", but must be a string of 1 to 256 characters; correct it'


@pytest.mark.parametrize(
    ("code", "param", "message"),
    [
        pytest.param("invalid_request", "model", NAME.format("echo"), id="printable"),
        pytest.param("invalid_request", "metadata", NAME.format("\\x07"), id="another field"),
        pytest.param("invalid_request", "max_tokens", "max_tokens is 3, but must be", id="3"),
        pytest.param("invalid_request", "", "the body is not JSON", id="body"),
        pytest.param("internal_error", "", "chatd met an unexpected error", id="500"),
        pytest.param("queue_full", "", "a cap is reached", id="full"),
    ],
)
def test_a_refusal_that_no_rule_is_for_is_a_finding(code: str, param: str, message: str) -> None:
    """A rule is for its own code, its own fields and its own words."""
    assert rule_for(code, param, message) is None


def test_a_refusal_by_a_rule_is_told_with_the_reason() -> None:
    """Here a character that one version of Unicode calls unprintable."""
    rule = rule_for("invalid_request", "model", NAME.format(r"a\U000f0000"))

    assert rule is not None
    assert "Unicode" in rule.why


def test_each_reason_is_there_once() -> None:
    """They are counted by it."""
    assert len({rule.why for rule in RULES}) == len(RULES)
