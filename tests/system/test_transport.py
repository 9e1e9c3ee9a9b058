"""Credit, gate and envelope against a real server, with tasks that only count and sleep."""

from __future__ import annotations

import json
import signal

import pytest

from tests.servers import Child, python
from tests.waiting import eventually
from workers.app import envelope, make_celery

THREADS = 8
QUEUES = ["chat.ollama", "chat.ollama.batch"]


class Sleeper:
    """A worker of eight threads whose task counts, sleeps and counts.

    ``plain``: its messages are those that ``admit`` sends, and else a little different. It gets
    several of them at once from a Redis of version ``many_from`` or newer.
    """

    def __init__(self, redis_server, tmp_path, *, plain, many_from, seconds=0.2):
        self.plain = plain
        self.redis = redis_server
        self.app = make_celery(redis_server.url)
        self.envelopes = {queue: envelope(self.app, queue) for queue in QUEUES}
        if not plain:
            for queue, text in self.envelopes.items():
                message = json.loads(text)
                message["headers"]["shadow"] = "one more name"
                self.envelopes[queue] = json.dumps(message)
        command = python("-m", "tests.system.sleeper", redis_server.url, str(THREADS), str(seconds))
        command.append(str(many_from))
        self.child = Child([*command, *QUEUES], tmp_path / "sleeper.log").start()
        eventually(lambda: redis_server.client.get("ready"), what="the worker is ready")

    def push(self, queue, count, prefix="m"):
        pipeline = self.redis.client.pipeline()
        for number in range(count):
            tag = f"{queue}-{prefix}-{number}"
            pipeline.lpush(queue, self.envelopes[queue].replace("@JOB@", tag).replace("@TAG@", tag))
        pipeline.execute()

    def popped_not_started(self, sent):
        """Read in one transaction, so that list and counter belong to the same moment."""
        pipeline = self.redis.client.pipeline(transaction=True)
        for queue in QUEUES:
            pipeline.llen(queue)
        pipeline.get("started")
        *left, started = pipeline.execute()
        return sent - sum(left) - int(started or 0)

    def settled(self, sent):
        """A pop and the task's first command are two steps: zero is what every moment tends to."""
        return eventually(lambda: self.popped_not_started(sent) == 0, what="nothing is held ahead")

    def started(self):
        return int(self.redis.client.get("started") or 0)


@pytest.fixture(
    params=[
        pytest.param((True, 7), id="plain"),
        pytest.param((False, 7), id="by Celery's own path"),
        pytest.param((True, 1000), id="one at a time"),
    ]
)
def sleeper(redis_server, tmp_path, request):
    plain, many_from = request.param
    sleeper = Sleeper(redis_server, tmp_path, plain=plain, many_from=many_from)
    yield sleeper
    sleeper.child.stop()
    used = {name.removeprefix("cmdstat_") for name in redis_server.client.info("commandstats")}

    assert int(redis_server.client.get("plain") or 0) == plain * sleeper.started()
    assert used & {"brpop", "blmpop"} == {"blmpop" if many_from == 7 else "brpop"}


def test_a_worker_holds_nothing_ahead_of_its_threads(sleeper):
    """Fifty thousand wait: what left the list has started, before and after a reconnect."""
    sleeper.push(QUEUES[1], 50_000)
    samples = []
    for stage in range(2):
        goal = sleeper.started() + 10 * THREADS
        while sleeper.started() < goal:
            samples.append(sleeper.popped_not_started(50_000))
        assert sleeper.settled(50_000)
        if stage == 0:
            sleeper.redis.client.execute_command(
                "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"
            )

    assert max(samples) <= THREADS
    assert sorted(samples)[len(samples) // 2] == 0
    assert not sleeper.redis.client.exists("unacked", "unacked_index")


def test_interactive_overtakes_a_batch_backlog(sleeper):
    """It is the next to start, although thousands wait in the other queue."""
    sleeper.push(QUEUES[1], 5_000)
    eventually(lambda: sleeper.started() >= 2 * THREADS)
    sleeper.push(QUEUES[0], 5)
    begun = sleeper.started()
    eventually(lambda: sleeper.redis.client.llen(QUEUES[0]) == 0 and sleeper.settled(5_005))
    order = sleeper.redis.client.lrange("order", 0, -1)
    places = [place for place, name in enumerate(order) if name.startswith("chat.ollama-")]

    assert len(places) == 5
    assert places[-1] < begun + 3 * THREADS


def test_a_restart_of_redis_loses_nothing_that_waits(sleeper):
    """kill -9 of the server: the worker lives, goes on, and every message is started once."""
    sleeper.push(QUEUES[0], 200)
    eventually(lambda: sleeper.started() >= THREADS)
    sleeper.redis.kill()
    sleeper.redis.start()
    eventually(lambda: sleeper.started() >= 100, what="the worker goes on")
    eventually(lambda: sleeper.redis.client.llen(QUEUES[0]) == 0)
    assert sleeper.settled(200)
    order = sleeper.redis.client.lrange("order", 0, -1)

    assert sleeper.child.alive
    assert len(order) == len(set(order)) == 200
    assert "Unrecoverable" not in sleeper.child.output()


def test_sigterm_leaves_the_rest_in_the_queue(sleeper):
    """Running tasks end, everything else stays; nothing is held at the end."""
    sleeper.push(QUEUES[0], 100)
    eventually(lambda: sleeper.started() >= THREADS)
    sleeper.child.send(signal.SIGTERM)
    for number in range(50):
        sleeper.push(QUEUES[0], 1, prefix=f"late-{number}")
    code = sleeper.child.wait()

    assert code == 0
    assert sleeper.popped_not_started(150) == 0
    assert sleeper.started() == int(sleeper.redis.client.get("ended"))
    assert "held at the end: 0" in sleeper.child.output()


def test_a_wake_up_that_its_job_gives_back_is_in_the_queue_again(redis_server, tmp_path):
    """As when a worker stops and cannot ask the store: as it was, and held by nobody."""
    sleeper = Sleeper(redis_server, tmp_path, plain=True, many_from=7, seconds=1)
    sleeper.push(QUEUES[0], 1, prefix="back")
    eventually(lambda: sleeper.started() == 1)
    sleeper.child.send(signal.SIGTERM)
    code = sleeper.child.wait()
    (left,) = sleeper.redis.client.lrange(QUEUES[0], 0, -1)

    assert code == 0
    tag = f"{QUEUES[0]}-back-0"
    assert left == sleeper.envelopes[QUEUES[0]].replace("@JOB@", tag).replace("@TAG@", tag)
    assert "held at the end: 0" in sleeper.child.output()


def test_the_gate_stops_one_queue_and_not_the_other(sleeper):
    """Shut, batch stays where it is; opened, it runs."""

    def gate(*queues):
        before = int(sleeper.redis.client.get("gate-set") or 0)
        sleeper.redis.client.publish("gate", " ".join(queues))
        eventually(lambda: int(sleeper.redis.client.get("gate-set") or 0) > before)

    eventually(lambda: sleeper.redis.client.publish("gate", QUEUES[1]) == 1)
    gate(QUEUES[1])
    # A message that slips through the closing gate would be this one.
    sleeper.push(QUEUES[1], 1, prefix="slip")
    slipped = sleeper.started()
    sleeper.push(QUEUES[1], 20)
    sleeper.push(QUEUES[0], 20)
    eventually(lambda: int(sleeper.redis.client.get("ended") or 0) >= 20 + slipped)
    waiting = sleeper.redis.client.llen(QUEUES[1])
    gate()
    eventually(lambda: sleeper.redis.client.llen(QUEUES[1]) == 0)

    assert waiting >= 20
    assert sleeper.settled(41)


def test_what_is_put_back_is_next_again_in_its_order(redis_server):
    """Several messages that were received and cannot be started, before one that waits."""
    redis_server.client.lpush(QUEUES[0], "waits")
    with make_celery(redis_server.url).connection_for_read() as connection:
        connection.default_channel._put_back(QUEUES[0], ["first", "second", "third"])

    assert redis_server.client.rpop(QUEUES[0], 4) == ["first", "second", "third", "waits"]


@pytest.mark.parametrize("queue", QUEUES)
def test_the_envelope_is_what_celery_sends(redis_server, queue):
    """All but the delivery tag, which each message has to itself."""
    app = make_celery(redis_server.url)
    ours = envelope(app, queue).replace("@JOB@", "job_1").replace("@TAG@", "job_1.1")
    app.send_task(
        "chatd.run_job",
        task_id="job_1",
        queue=queue,
        ignore_result=True,
        argsrepr="-",
        kwargsrepr="-",
        origin="chatd",
    )
    theirs = json.loads(redis_server.client.rpop(queue))
    mine = json.loads(ours)
    tags = {message["properties"].pop("delivery_tag") for message in (theirs, mine)}
    reply_to = {message["properties"].pop("reply_to") for message in (theirs, mine)}

    assert mine == theirs
    assert len(tags) == 2
    assert len(reply_to) <= 2


def test_the_envelope_holds_nothing_of_the_request(redis_server):
    """It is made before any request exists, and only the id is filled in."""
    text = envelope(make_celery(redis_server.url), QUEUES[0])

    assert (text.count("@JOB@"), text.count("@TAG@")) == (3, 1)
    assert "%" not in text
