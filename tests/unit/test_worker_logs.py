"""Celery inside a worker logs as everything else does, and prints nothing past it."""

from __future__ import annotations

import json
import subprocess
import sys

#: What a worker does up to Celery's own setting up of loggers, and one line from each of them.
WORKER = """
import sys
import celery.apps.worker
from celery.utils.log import get_logger, get_multiprocessing_logger, get_task_logger
from chat.logs import configure
from workers.__main__ import quiet_celery
from workers.app import make_celery
configure("worker kimi", "info")
quiet_celery()
make_celery("redis://127.0.0.1:1/0").log.setup(loglevel="INFO", redirect_stdouts=False)
get_logger("celery.worker").warning("of the worker")
get_task_logger("chatd").warning("of a task")
get_multiprocessing_logger().error("of a pool")
celery.apps.worker.safe_say("worker: Warm shutdown (MainProcess)", sys.__stdout__)
"""


def test_every_logger_of_celerys_has_the_form_of_all_others():
    """Its own handlers would write lines of another form, or the same line twice."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER], capture_output=True, text=True, timeout=60, check=True
    )
    events = [json.loads(line) for line in done.stderr.splitlines()]

    assert done.stdout == ""
    assert [event["message"] for event in events] == ["of the worker", "of a task", "of a pool"]
    assert {event["process"] for event in events} == {"worker kimi"}


def test_the_stacks_that_somebody_asks_for_are_printed():
    """Celery writes them to standard error at SIGUSR1."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER + 'celery.apps.worker.safe_say("the stacks")'],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stderr.endswith("\nthe stacks\n")
