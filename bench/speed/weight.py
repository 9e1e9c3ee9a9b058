"""What a waiting job takes of Redis' memory, against the size of its request."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.speed.filling import fill
from chat.connection import connect
from chat.settings import ChatdConfig
from chat.store import JobStore
from tests.servers import RedisProcess
from workers.app import envelopes, make_celery

__all__ = ["Weight", "weights"]

#: Jobs of each size. Redis' tables have room for 32,768 of so many, about as full as on average.
_JOBS = 24_000
#: Waiting before any is weighed: buffers and scripts are there.
_BEFORE = 100
_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Weight:
    """Bytes of Redis' memory for one waiting job whose request has ``request`` bytes of JSON."""

    request: int
    redis: float

    @property
    def allowed(self) -> int:
        """Twice the request, and 2 kB."""
        return 2 * self.request + 2000

    def to_wire(self) -> dict[str, float]:
        """JSON-ready form."""
        return {**asdict(self), "allowed": self.allowed}


def weights(sizes: Sequence[int], *, options: Sequence[str] = ()) -> list[Weight]:
    """Weigh jobs with a message of each of these lengths, in a Redis of their own.

    ``options`` are further ones of its command line.
    """
    return [_weight(size, options) for size in sizes]


def _weight(characters: int, options: Sequence[str]) -> Weight:
    jobs = max(1000, min(_JOBS, _BYTES // characters))
    with tempfile.TemporaryDirectory(prefix="chatd-weight-") as folder:
        redis = RedisProcess(Path(folder), options=options).start()
        try:
            config = ChatdConfig(max_queued=10**7, max_queued_bytes=2**40)
            store = JobStore(connect(redis.url), config)
            store.register_envelopes(envelopes(make_celery(redis.url), ["ollama"]))
            store.register_settings(["ollama"])
            fill(store, _BEFORE)
            bytes_before, memory_before = _requests(store), _used(store)
            fill(store, jobs, "x" * characters)
            request = (_requests(store) - bytes_before) / jobs
            weight = Weight(round(request), (_used(store) - memory_before) / jobs)
            store.redis.close()
        finally:
            redis.stop()
    return weight


def _requests(store: JobStore) -> int:
    return store.counters()["bytes"]


def _used(store: JobStore) -> int:
    """What Redis uses, without the audit, which has a bound of its own."""
    client: Any = store.redis
    return int(client.info("memory")["used_memory"]) - int(client.memory_usage("audit", samples=0))
