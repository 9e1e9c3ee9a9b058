"""A Celery worker whose task counts its starts and sleeps: for the tests of the transport alone.

Its threads are greenlets, as those of a worker. Arguments: Redis URL, threads, seconds a task
takes, the version of Redis from which it receives several messages at once, queues.
"""

# ruff: noqa: E402 - nothing may be imported before it is replaced

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys
import threading
import time

import redis
from celery import signals

from workers.app import make_celery
from workers.transport import GATE, HELD, Channel

url, threads, seconds, many_from, *queues = sys.argv[1:]
Channel.pops_many_from = int(many_from)
app = make_celery(url)
PLENTY = 10**9
GATE.arrange({}, gated=queues[-1])
GATE.learn(PLENTY)
counters = redis.Redis.from_url(url, protocol=2)


def work(job_id):
    counters.rpush("order", job_id)
    counters.incr("started")
    time.sleep(float(seconds))
    counters.incr("ended")
    return True


def wake(job_id, _queue):
    counters.incr("plain")
    return work(job_id) and "-back-" not in job_id


@app.task(
    name="chatd.run_job",
    bind=True,
    ignore_result=True,
    Strategy="workers.strategy:plain_first",
    wake=staticmethod(wake),
)
def run_job(self):
    work(self.request.id)


@signals.worker_ready.connect(weak=False)
def ready(sender, **_):
    GATE.hub = sender.hub
    counters.set("ready", 1)


def follow_gate():
    """Shut the second queue and open it as the test says."""
    pubsub = redis.Redis.from_url(url, protocol=2, decode_responses=True).pubsub()
    pubsub.subscribe("gate")
    for message in pubsub.listen():
        if message["type"] == "message":
            GATE.learn(0 if message["data"] else PLENTY)
            counters.incr("gate-set")


threading.Thread(target=follow_gate, daemon=True).start()
worker = app.Worker(
    hostname="sleeper@test",
    pool="workers.pool:TaskPool",
    use_eventloop=True,
    concurrency=int(threads),
    queues=queues,
    without_gossip=True,
    without_mingle=True,
    without_heartbeat=True,
    quiet=True,
    loglevel="INFO",
    redirect_stdouts=False,
)
worker.start()
sys.stdout.write(f"held at the end: {len(HELD)}\n")
sys.exit(worker.exitcode or 0)
