"""docs/hosts.md shows what bench.hosts prints: every fault has its row, and none lost a job."""

from __future__ import annotations

import re

from bench.hosts import FAULTS
from tests.pages import indented, page

PAGE = page("docs/hosts.md")


def test_the_table_has_every_fault_and_none_lost_a_job() -> None:
    """In the order in which they are made."""
    head, *rows = indented(PAGE, "fault ").splitlines()
    lost = head.index("lost") + len("lost")

    assert [re.split(r"  +", row.strip())[0] for row in rows] == list(FAULTS)
    assert {row[:lost].split()[-1] for row in rows} == {"0"}
