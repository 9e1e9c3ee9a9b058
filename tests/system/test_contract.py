"""The HTTP surface held to its own OpenAPI document. With more requests: bench.contract."""

from __future__ import annotations

from api.openapi import OPERATIONS
from bench.contract.explore import explore
from bench.contract.world import filled, running


def test_every_answer_is_in_the_document_and_every_refusal_has_its_reason():
    """No 500, no undeclared status, header or body; what the document allows is not refused."""
    with running() as stack:
        found = explore(stack.url, filled(stack), examples=5, quick=True)

    assert list(found.findings.values()) == []
    # The run had what it claims to be about.
    assert found.statuses.keys() >= {f"{op.method.upper()} {op.path}" for op in OPERATIONS} - {
        "GET /openapi.json"
    }
    assert {status for counts in found.statuses.values() for status in counts} >= {
        200, 202, 206, 400, 404, 405, 412, 416,
    }  # fmt: skip
