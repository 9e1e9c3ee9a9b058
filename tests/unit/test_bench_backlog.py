"""Backlogs of the speed tables: filling is admission, and what is allowed is counted right."""

from __future__ import annotations

import fakeredis
import pytest

from bench.speed.backlog import Cost
from bench.speed.filling import fill
from bench.speed.weight import Weight
from chat.settings import ChatdConfig
from chat.store import JobStore


def test_filled_jobs_are_admitted_jobs():
    """They are counted, recorded and woken like those of the front end."""
    redis = fakeredis.FakeRedis(decode_responses=True)
    store = JobStore(redis, ChatdConfig())
    store.register_envelopes({"chat.ollama.batch": "wake @JOB@ @TAG@"})
    store.register_settings(["ollama"])

    fill(store, 3, "why", noted=True)

    records = store.listed().records
    assert store.counters()["accepted"] == 3
    assert [record.state.value for record in records] == ["queued"] * 3
    assert {record.metadata["question"] for record in records} == {"why 0", "why 1", "why 2"}
    assert redis.llen("chat.ollama.batch") == 3


def test_a_refused_job_stops_the_filling():
    """A backlog that is smaller than it is said to be would make its figures wrong."""
    store = JobStore(fakeredis.FakeRedis(decode_responses=True), ChatdConfig(max_queued=2))

    with pytest.raises(AssertionError, match="max_queued"):
        fill(store, 3)


def test_the_cost_of_a_job_is_that_of_all_three_processes():
    """CPU and scripts are summed, and written down as sums too."""
    cost = Cost(
        waiting=1000,
        admit_us=10,
        start_us=20,
        finish_us=30,
        redis_ms=0.5,
        worker_ms=1.25,
        keeper_ms=0.25,
        wall_ms=3,
        keeper_share=0.1,
        ended=100,
    )

    wire = cost.to_wire()

    assert (wire["cpu_ms"], wire["scripts_us"], wire["waiting"]) == (2.0, 60, 1000)


def test_a_waiting_job_may_take_twice_its_request_and_2_kb():
    """The bound that its memory is held to."""
    assert Weight(request=1000, redis=1).allowed == 4000
