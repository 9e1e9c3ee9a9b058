"""The load generator of the speed tables against servers that do not do what they should."""

from __future__ import annotations

import pytest
import requests

from bench.speed.generator import Load, run
from bench.speed.upstream import UpstreamProcess
from bench.upstream import Conduct, Upstream
from cli.redis_server import free_port


@pytest.fixture
def quick_upstream(tmp_path):
    upstream = UpstreamProcess(tmp_path, free_port(), 0.02).start()
    yield upstream
    upstream.stop()


@pytest.mark.parametrize("form", ["ollama", "completion"])
def test_every_request_is_counted_and_none_asked_twice(quick_upstream, form):
    """Those of the warm-up apart, and those in flight at the end too."""
    load = Load(url=quick_upstream.url, form=form, connections=5, seconds=0.2, warm_s=0.1)
    outcome = run(load)
    stats = requests.get(f"{quick_upstream.url}/stats", timeout=10).json()

    counts, warm = outcome.counts, outcome.warm
    assert counts.asked == counts.right > 10
    assert warm.asked == warm.right > 5
    assert (counts.failed, warm.failed) == (0, 0)
    assert stats == {
        "calls": counts.asked + warm.asked,
        "repeated": 0,
        "answered": counts.asked + warm.asked,
        "dropped": 0,
    }
    assert len(outcome.latencies_ms) == counts.asked
    assert outcome.latencies_ms[0] >= 20


def test_as_many_as_there_are_connections_leave_at_once(quick_upstream):
    """All are answered in little more than the time of one."""
    marks = []
    load = Load(url=quick_upstream.url, form="ollama", connections=50, count=50)
    outcome = run(load, begins=lambda: marks.append("begins"), ends=lambda: marks.append("ends"))

    assert (outcome.counts.right, outcome.ended, marks) == (50, 50, ["begins", "ends"])
    assert outcome.seconds < 50 * 0.02


def test_an_answer_too_late_is_right_and_has_failed(quick_upstream):
    """So many are told as late as there are."""
    load = Load(url=quick_upstream.url, form="ollama", connections=2, count=6, late_s=0.01)
    counts = run(load).counts

    assert (counts.right, counts.late, counts.failed) == (6, 6, 6)


def test_wrong_broken_refused_and_missing_answers_are_told_apart():
    """One of each among twenty, and the load goes on to its end."""
    ends = {3: "reset", 7: "silence"}
    upstream = Upstream(
        conduct=lambda asked: Conduct(0.0, ends.get(int(asked.split()[1]), "answer")),
        reply=lambda _, body: {
            11: (200, {"message": {"content": "echo: q 12"}}),
            13: (429, {"error": {"code": "slow_down"}}),
        }.get(int(body["messages"][-1]["content"].split()[1])),
    ).start()
    try:
        load = Load(
            url=upstream.url, form="ollama", connections=4, count=20, tag="q", patience_s=0.5
        )
        counts = run(load).counts
    finally:
        upstream.stop()

    assert (counts.asked, counts.right, counts.wrong, counts.lost) == (20, 16, 1, 2)
    assert counts.errors == {"429 slow_down": 1}
    assert counts.failed == 4


def test_a_server_that_is_not_there_is_an_error():
    """Nothing is measured then."""
    load = Load(url=f"http://127.0.0.1:{free_port()}", form="chat", connections=1, count=1)

    with pytest.raises(RuntimeError, match="generator failed"):
        run(load)
