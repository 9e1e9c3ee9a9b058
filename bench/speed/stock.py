"""The textbook's tasks, queued and worked off: what Celery does by itself with the same jobs.

    python -m bench.speed.stock COUNT

queues COUNT tasks with ``apply_async``, one after the other, and prints how long that took. Tasks
are the textbook's own, its worker as well (``bench.speed.textbook``).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.processes import cpu_s
from bench.speed.textbook import chat
from bench.speed.upstream import UpstreamProcess
from bench.speed.working import DELAY_S, PERMITS
from cli.redis_server import free_port
from tests.servers import Child, RedisProcess, python
from tests.waiting import eventually

__all__ = ["Queued", "WorkedOff", "queued", "worked_off"]

_MODULE = "bench.speed.textbook"


@dataclass(frozen=True, slots=True)
class Queued:
    """How long ``apply_async`` took for ``count`` tasks, one after the other; CPU of the caller."""

    count: int
    seconds: float
    cpu_s: float

    @property
    def per_second(self) -> float:
        """Tasks a second."""
        return self.count / self.seconds

    def to_wire(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "per_second": self.per_second}


@dataclass(frozen=True, slots=True)
class WorkedOff:
    """How long the worker took for the tasks, from the first that it took to the last result."""

    count: int
    seconds: float
    wrong: int
    cpu_s: dict[str, float]

    def to_wire(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def queued(count: int) -> Queued:
    """Queue ``count`` tasks with nobody there to take them."""
    with tempfile.TemporaryDirectory(prefix="chatd-stock-") as name:
        redis = RedisProcess(Path(name)).start()
        try:
            return _queue(redis, count)
        finally:
            redis.stop()


def worked_off(count: int) -> WorkedOff:
    """Queue ``count`` tasks, start the worker, and wait for all results."""
    with tempfile.TemporaryDirectory(prefix="chatd-stock-") as name:
        folder = Path(name)
        redis = RedisProcess(folder / "redis").start()
        upstream = UpstreamProcess(folder, free_port(), DELAY_S).start()
        environ = {"TEXTBOOK_REDIS": redis.url, "TEXTBOOK_OLLAMA": upstream.url}
        pool = ("-P", "gevent", "-c", str(PERMITS), "--loglevel", "INFO")
        command = python("-m", "celery", "-A", _MODULE, "worker", *pool)
        worker = Child(command, folder / "worker.log", environ)
        client: Any = redis.client
        try:
            _queue(redis, count)
            worker.start()
            eventually(
                lambda: client.llen("celery") < count, within_s=60, what="the worker takes a task"
            )
            began = time.monotonic()
            before = {"worker": cpu_s(worker.pid), "Redis": cpu_s(redis.child.pid)}
            eventually(lambda: client.dbsize() >= count, within_s=240, what="tasks end")
            eventually(lambda: len(_results(client)) == count, within_s=60, what="all tasks end")
            seconds = time.monotonic() - began
            after = {"worker": cpu_s(worker.pid), "Redis": cpu_s(redis.child.pid)}
            wrong = count - _right(client)
        finally:
            worker.stop(60)
            upstream.stop()
            redis.stop()
    return WorkedOff(
        count, seconds, wrong, {name: after[name] - value for name, value in before.items()}
    )


def _queue(redis: RedisProcess, count: int) -> Queued:
    command = python("-m", "bench.speed.stock", str(count))
    child = Child(command, redis.folder / "caller.log", {"TEXTBOOK_REDIS": redis.url}).start()
    assert child.wait(240) == 0, child.output()
    told = json.loads(child.output().splitlines()[-1])
    client: Any = redis.client
    assert client.llen("celery") == count, "not every task is in the queue"
    return Queued(count, told["seconds"], told["cpu_s"])


def _results(client: Any) -> list[str]:
    found: list[str] = list(client.scan_iter("celery-task-meta-*", count=5000))
    return found


def _right(client: Any) -> int:
    """How many different questions have their own answer."""
    answers = set()
    keys = _results(client)
    for at in range(0, len(keys), 500):
        for text in client.mget(keys[at : at + 500]):
            meta = json.loads(text)
            if meta["status"] == "SUCCESS":
                answers.add(meta["result"]["content"])
    return sum(answer.startswith("echo: question ") for answer in answers)


def main(count: int) -> None:
    """Queue so many tasks and print what it took."""
    began, cpu = time.monotonic(), time.process_time()
    for number in range(count):
        chat.apply_async(("echo", [{"role": "user", "content": f"question {number}"}]))
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu_s": cpu}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
