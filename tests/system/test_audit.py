"""``chatd audit`` beside real processes: jobs go on while it looks, and what is lost is named."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.upstream import Upstream
from tests.servers import ROOT, python
from tests.stack import Stack
from tests.waiting import eventually


@pytest.fixture(scope="module")
def upstream():
    upstream = Upstream(delay_s=0.02).start()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def stack(upstream, tmp_path_factory):
    stack = Stack(tmp_path_factory.mktemp("stack"), {"ollama": upstream.url})
    yield stack.start()
    stack.stop()


@pytest.fixture
def load(stack):
    """Callers who submit job after job until the test is over; some cancel theirs."""
    over = threading.Event()

    def submit(caller):
        number = 0
        while not over.is_set():
            number += 1
            lane = "batch" if number % 2 else "interactive"
            job_id = stack.submit(f"{caller}-{number}", lane=lane)
            if number % 5 == 0:
                url = f"{stack.url}/v1/jobs/{job_id}/cancel"
                stack.http.post(url, timeout=60).raise_for_status()

    with ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(submit, caller) for caller in range(4)]
        eventually(lambda: stack.store.counters().get("succeeded", 0) > 20, within_s=30)
        yield
        over.set()
        for caller in callers:
            caller.result()


def audit(stack, *arguments):
    """The command as a process of its own: its exit code and what it wrote."""
    return subprocess.run(
        python("-m", "cli", "audit", *arguments),
        cwd=ROOT,
        env={**os.environ, **stack.environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.usefixtures("load")
def test_jobs_that_run_meanwhile_are_no_breach(stack):
    """The counters are of one moment each, and every suspect is looked at twice."""
    before = stack.store.counters()["accepted"]
    text, told = audit(stack), audit(stack, "--json")
    report = json.loads(told.stdout or "{}")

    assert (text.returncode, told.returncode) == (0, 0), text.stdout + told.stdout + told.stderr
    assert text.stdout.splitlines()[-1].startswith("no breach: ")
    assert (report["clean"], report["breaches"], report["unchecked"]) == (True, [], 0)
    assert report["records"]["succeeded"] > 20
    assert report["counters"]["accepted"] > before


def test_a_record_that_was_deleted_by_hand_is_1(stack):
    """It is named with its rule, and the audit stream tells what it went through."""
    job_id = stack.submit("gone", lane="interactive")
    stack.ended(job_id)
    record = stack.store.redis.hgetall(f"job:{job_id}")
    stack.store.redis.delete(f"job:{job_id}")
    run = audit(stack)
    stack.store.redis.hset(f"job:{job_id}", mapping=record)
    shown = run.stdout.splitlines()

    assert run.returncode == 1, run.stdout + run.stderr
    assert shown[-1].endswith(" breaches")
    assert [line for line in shown if line.startswith(f"breach  record_missing  {job_id}: ")]
    assert [line for line in shown if line.endswith(" succeeded succeeded")]
