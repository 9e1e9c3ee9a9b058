"""Front ends, Redis, keeper and workers on hosts of their own, and links that are cut and healed.

Each host is a network namespace (``tests.hosts``). The long version is ``bench.hosts``.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cluster import HOSTS, Cluster
from tests.hosts import Cut, Network, missing
from tests.waiting import eventually


@pytest.fixture(scope="module")
def hosts():
    lacking = missing()
    if lacking:
        # Where tests have to be complete, that is a fault of the place.
        assert "CHATD_CI" not in os.environ, f"CI needs {lacking}"
        pytest.skip(f"hosts in network namespaces need {lacking}")
    with Network([*HOSTS, "front3"]) as network:
        yield network


@pytest.fixture(scope="module")
def whole(hosts, tmp_path_factory):
    """One chatd for all tests of this module: it takes seconds to start."""
    with Cluster(tmp_path_factory.mktemp("hosts"), hosts) as cluster:
        yield cluster


@pytest.fixture
def cluster(whole):
    """All links are whole, before and after."""
    yield whole
    whole.network.heal()
    whole.upstream.release()
    whole.upstream.delay_s = 0.0


@pytest.fixture
def fronts(cluster):
    return cluster.fronts["front1"], cluster.fronts["front2"]


def test_a_job_goes_from_host_to_host(cluster, fronts):
    """Left at one front end, called by a worker elsewhere, read and joined at the other."""
    front1, front2 = fronts
    job_id = front1.submit("from afar")
    record = front2.record(job_id, wait_s=20)
    key = {"Idempotency-Key": "one-question"}
    answers = [front.chat("here and there", headers=key).json() for front in fronts]

    assert record["response"]["content"] == "echo: from afar"
    assert record["attempts"][0]["worker"].partition("@")[2] in {"work1", "work2"}
    assert answers[0]["content"] == "echo: here and there"
    assert answers[0]["id"] == answers[1]["id"]
    assert cluster.upstream.calls["here and there"] == 1


def test_workers_come_and_go_under_load(cluster, fronts):
    """SIGTERM on one host, a new worker on another: no error, no call beyond one for each job."""
    cluster.upstream.delay_s = 0.1
    front1, front2 = fronts
    with front1.load("come-1", 6) as load1, front2.load("come-2", 6) as load2:
        known = set(cluster.seen())
        cluster.add_worker("work1")
        eventually(lambda: set(cluster.seen()) > known, what="a third worker is there")
        cluster.workers.pop("worker-2").stop(60)
        asked = len(load1.asked)
        eventually(lambda: "answered" in told(load1, asked))
    account = cluster.account(load1, load2)

    assert told(load1) | told(load2) == {"answered", "accepted"}
    assert account.extra == 0
    assert wrongs(account) == {}
    assert cluster.store.counters().get("republished", 0) == 0
    assert cluster.audit()["broken"] == {}


def test_a_silent_redis_is_waited_for_and_nothing_is_lost(cluster, fronts):
    """Packets just vanish: callers are answered or told so, and every process goes on as it is."""
    front1, front2 = fronts
    before = cluster.pids()
    late = cluster.front_end("front3")
    late.child.start()
    eventually(late.alive, what="a front end that has not met Redis yet")
    with front1.load("silent-1", 6) as load1, front2.load("silent-2", 6) as load2:
        eventually(lambda: len(load1.asked) + len(load2.asked) > 20)
        cluster.network["redis"].cut(Cut.SILENT)
        with ThreadPoolExecutor(40) as pool:
            refused = [pool.submit(late.chat, f"too early {n}") for n in range(40)]
            # One after the other they would be told so after minutes.
            codes = {each.result(60).json()["error"]["code"] for each in refused}
        cluster.network["redis"].heal()
        healed = [(load, len(load.asked)) for load in (load1, load2)]
        eventually(lambda: all("answered" in told(load, begin) for load, begin in healed))
    account = cluster.account(load1, load2)
    late.child.stop()

    assert codes == {"redis_unavailable"}
    assert told(load1) | told(load2) == {"answered", "accepted", "redis_unavailable"}
    assert account.accepted > 40
    assert wrongs(account) == {}
    assert cluster.pids() == before
    assert cluster.audit()["broken"] == {}


def test_a_redis_host_that_lost_its_power_is_found_again(cluster, fronts):
    """It comes back without a word to the connections of before: they lead nowhere."""
    before = cluster.pids()
    job_id = fronts[0].submit("before")
    fronts[0].ended(job_id)
    redis = cluster.network["redis"]
    redis.cut(Cut.SILENT)
    cluster.redis.kill()
    eventually(lambda: redis.connections() == 0, what="its kernel has forgotten them")
    cluster.start_redis()
    redis.heal()
    after = [front.submit("after") for front in fronts]
    records = [front.ended(one, within_s=25) for front, one in zip(fronts, after, strict=True)]

    assert {record["state"] for record in records} == {"succeeded"}
    assert fronts[1].record(job_id)["state"] == "succeeded"
    assert cluster.pids() == before
    assert cluster.audit()["broken"] == {}


def test_a_front_end_that_is_cut_off_says_so_and_the_other_serves(cluster, fronts):
    """Who waited there is answered when the link is back."""
    front1, front2 = fronts
    cluster.upstream.hold()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(front1.chat, "patient")
        eventually(lambda: cluster.upstream.in_flight == 1)
        cluster.network["front1"].cut(Cut.DOWN)
        refused = front1.chat("cut off")
        cluster.upstream.release()
        served = front2.chat("elsewhere")
        cluster.network["front1"].heal()
        answer = waiting.result(60)

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "redis_unavailable")
    assert int(refused.headers["Retry-After"]) >= 1
    assert served.json()["content"] == "echo: elsewhere"
    assert answer.json()["content"] == "echo: patient"
    assert cluster.upstream.calls["patient"] == 1
    eventually(front1.ready)


def test_a_worker_that_loses_redis_in_mid_call_is_given_up_and_heard_again(cluster, fronts):
    """After its lease a batch job is called again, a chat is not; each bill is in the ledger."""
    first, *others = cluster.workers
    for name in others:
        cluster.workers.pop(name).stop(60)
    cluster.upstream.hold()
    with ThreadPoolExecutor(1) as pool:
        chat = pool.submit(fronts[0].chat, "asked once")
        job_id = fronts[1].submit("asked again")
        eventually(lambda: cluster.upstream.in_flight == 2)
        cluster.network["work1"].lose(cluster.network["redis"])
        cluster.add_worker("work2")
        lost = chat.result(90).json()["error"]
        eventually(lambda: cluster.upstream.in_flight == 3, what="the batch job is called again")
        cluster.upstream.release()
        fronts[0].ended(job_id)
        cluster.network["work1"].heal()
    ids = (job_id, lost["job_id"])
    eventually(lambda: all(heard_late(fronts[0].record(one)) for one in ids), within_s=60)
    again, once = (fronts[0].record(one) for one in ids)

    assert (lost["code"], once["state"]) == ("outcome_unknown", "failed")
    assert again["response"]["content"] == "echo: asked again"
    assert bills(once) == [("late", "yes")]
    assert bills(again) == [("late", "yes"), ("succeeded", "yes")]
    assert cluster.upstream.calls["asked once"] == 1
    assert cluster.upstream.calls["asked again"] == 2
    assert cluster.workers[first].alive
    assert cluster.audit()["broken"] == {}


def told(load, begin=0):
    """What senders were told, those left out that are still waiting."""
    return {one.said for one in load.asked[begin:] if one.ended_at is not None}


def wrongs(account):
    """What is in an account and must not be."""
    names = ("lost", "unexplained", "wrong", "contradictions", "twins")
    return {name: found for name in names if (found := getattr(account, name))}


def bills(record):
    return [(attempt["outcome"], attempt["billed"]) for attempt in record["attempts"]]


def heard_late(record):
    return ("late", "yes") in bills(record)
