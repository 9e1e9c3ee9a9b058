"""A copy of Redis' append-only file, taken while chatd works, is a whole chatd of that moment."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading

import pytest

from bench.upstream import Upstream
from tests.servers import ROOT, RedisProcess, python
from tests.stack import Stack


@pytest.fixture
def stack(tmp_path):
    """Jobs that are over, and jobs that go on coming."""
    upstream = Upstream().start()
    stack = Stack(tmp_path / "stack", {"ollama": upstream.url})
    try:
        yield stack.start()
    finally:
        stack.stop()
        upstream.stop()


def test_a_copy_under_load_has_what_was_confirmed(stack, tmp_path):
    """As the operator's page says: no rewrite meanwhile, then a plain copy."""
    before = [stack.submit(f"before {number}") for number in range(20)]
    for job_id in before:
        stack.ended(job_id)
    stack.redis.client.config_set("auto-aof-rewrite-percentage", 0)
    done = threading.Event()

    def load() -> None:
        number = 0
        while not done.is_set():
            stack.submit(f"meanwhile {number}")
            number += 1

    thread = threading.Thread(target=load)
    thread.start()
    try:
        # Its file is synced once a second: what was confirmed is written, whatever is synced.
        shutil.copytree(stack.redis.folder / "appendonlydir", tmp_path / "copy" / "appendonlydir")
    finally:
        done.set()
        thread.join()
    copy = RedisProcess(tmp_path / "copy").start()
    config = tmp_path / "copy.toml"
    text = stack.config_file.read_text("utf-8").replace(stack.redis.url, copy.url)
    config.write_text(text, "utf-8")
    try:
        audited = subprocess.run(
            python("-m", "cli", "--config", str(config), "audit"),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, **stack.environ},
            cwd=ROOT,
        )
        answers = [copy.client.exists(f"celery-task-meta-{job_id}") for job_id in before]
    finally:
        copy.stop()

    assert audited.returncode == 0, audited.stdout + audited.stderr
    assert answers == [1] * len(before)
