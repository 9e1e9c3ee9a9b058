"""The least that a queue on Redis can take: LPUSH, BRPOP in another process, PUBLISH back.

    python -m bench.speed.redis_trip URL

is the other process. Both sides use redis-py with plain blocking sockets, as chatd does.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import redis

from bench.speed.generator import percentile
from tests.servers import Child, RedisProcess, python
from tests.waiting import eventually

__all__ = ["round_trips_ms"]

_QUEUE, _REPLIES = "trip:queue", "trip:replies"
_WARM = 200


def round_trips_ms(folder: Path, seconds: float) -> tuple[float, float]:
    """Median and p99 of round trips, one after another, of a message of 500 bytes.

    Raises ``AssertionError`` when an answer is another one's.
    """
    server = RedisProcess(folder / "redis").start()
    other = Child(python("-m", "bench.speed.redis_trip", server.url), folder / "trip.log").start()
    client = server.client
    try:
        with client.pubsub() as replies:
            replies.subscribe(_REPLIES)
            assert replies.get_message(timeout=10) is not None
            eventually(lambda: int(client.info("clients")["blocked_clients"]) == 1)
            taken: list[float] = []
            until = time.monotonic() + seconds
            number = 0
            while time.monotonic() < until:
                text = f"{number:0500d}"
                began = time.perf_counter()
                client.lpush(_QUEUE, text)
                message = replies.get_message(timeout=10)
                taken.append((time.perf_counter() - began) * 1000)
                assert message is not None, "no answer in 10 s"
                assert message["data"] == text, "the answer to another message"
                number += 1
        taken = sorted(taken[_WARM:])
        return percentile(taken, 0.5), percentile(taken, 0.99)
    finally:
        other.kill()
        server.stop()


def _answer(url: str) -> None:
    client = redis.Redis.from_url(url, decode_responses=True, protocol=2)
    while True:
        found = client.brpop([_QUEUE])
        assert found is not None
        client.publish(_REPLIES, found[1])


if __name__ == "__main__":
    _answer(sys.argv[1])
