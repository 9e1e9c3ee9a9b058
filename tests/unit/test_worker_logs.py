"""Celery inside a worker logs as everything else does, and prints nothing past it."""

from __future__ import annotations

import json
import subprocess
import sys

#: What a worker does up to Celery's own setting up of loggers, and one line from each of them.
WORKER = """
import sys
import celery.apps.worker
from celery.exceptions import Reject
from celery.utils.log import get_logger, get_multiprocessing_logger, get_task_logger
from chat.logs import configure
from workers.processes import quiet_celery
from workers.app import make_celery
configure("worker kimi", "info")
quiet_celery()
make_celery("redis://127.0.0.1:1/0").log.setup(loglevel="INFO", redirect_stdouts=False)
get_logger("celery.worker").warning("of the worker")
get_task_logger("chatd").warning("of a task")
get_multiprocessing_logger().error("of a pool")
try:
    raise Reject("the worker is stopping", requeue=True)
except Reject as error:
    data = {"data": {"traceback": "Traceback of the Reject"}}
    get_logger("celery.app.trace").warning("given back", exc_info=error, extra=data)
try:
    raise ValueError
except ValueError as error:
    get_logger("celery.app.trace").warning("broken", exc_info=error)
celery.apps.worker.safe_say("worker: Warm shutdown (MainProcess)", sys.__stdout__)
"""


def test_every_logger_of_celerys_has_the_form_of_all_others():
    """Its own handlers would write lines of another form, or the same line twice."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER], capture_output=True, text=True, timeout=60, check=True
    )
    events = [json.loads(line) for line in done.stderr.splitlines()]

    assert done.stdout == ""
    assert "Traceback of the Reject" not in done.stderr
    assert [(event["level"], event["message"], "exception" in event) for event in events] == [
        ("warning", "of the worker", False),
        ("warning", "of a task", False),
        ("error", "of a pool", False),
        # What a stopping worker gives back is no error.
        ("info", "given back", False),
        ("warning", "broken", True),
    ]
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
