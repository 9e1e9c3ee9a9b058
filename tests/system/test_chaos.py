"""Parts die under load, and every accepted job ends once. The rest of the faults: bench.chaos."""

from __future__ import annotations

import pytest

from bench.chaos.trial import run
from bench.scenes.scene import Report

#: One of each sort: every process, all of them, the connections, and what Redis had acknowledged.
FAULTS = [
    "worker-kill",
    "front-end-kill",
    "redis-kill",
    "connections-cut",
    "power-loss",
    "everything-kill",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_is_killed_every_job_ends_once(fault):
    """No rule of the account is broken; the report in the test's output names what is."""
    report = Report()
    trial = run(fault, 1, report, quick=True)

    assert report.broken == []
    # The run had what it claims to be about.
    assert trial.account.accepted > 200
    assert trial.acct["accepted"] > 200
