"""What the keeper does to jobs, and what a booting process tells the scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from chat.budget import settings_of
from chat.connection import redis_errors
from chat.scripts import Scripts

__all__ = ["BATCH", "NEARLY_FULL", "Call", "Reclaimed", "Upkeep"]

#: How many jobs the keeper's scripts look at in one call.
BATCH = 100

#: From this share of its memory on, Redis is left alone with the jobs that it has.
NEARLY_FULL = 0.9
_MEMORY_NOTE_S = 10


@dataclass(frozen=True, slots=True)
class Call:
    """A lease as the keeper sees it; ``renewed_at`` is Redis time in ms."""

    job_id: str
    token: str
    renewed_at: int


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What giving up one call led to: ``queued``, ``failed``, ``cancelled`` or nothing."""

    job_id: str
    became: str


class Upkeep(Scripts):
    """The part of the job store that looks after jobs which nobody works on just now."""

    def register_envelopes(self, envelopes: Mapping[str, str]) -> None:
        """Store, by queue, what ``admit`` sends; ``@JOB@`` and ``@TAG@`` stand in it."""
        if envelopes:
            with redis_errors():
                self.redis.mset({f"envelope:{queue}": text for queue, text in envelopes.items()})

    def register_settings(self, names: Iterable[str], *, only_missing: bool = False) -> None:
        """Store what the scripts have to know of these providers. Without it nothing starts.

        The process that started last is right: ``only_missing`` is for those that look after it.
        """
        keys = {name: f"settings:{name}" for name in names}
        with redis_errors():
            if only_missing:
                pipeline = self.redis.pipeline(transaction=False)
                for key in keys.values():
                    pipeline.exists(key)
                there = dict(zip(list(keys), pipeline.execute(), strict=True))
                keys = {name: key for name, key in keys.items() if not there[name]}
            pipeline = self.redis.pipeline(transaction=True)
            for name, key in keys.items():
                pipeline.delete(key)
                for field, value in settings_of(self._config, name).items():
                    pipeline.hset(key, field, value)
            pipeline.execute()

    def drain(self, provider: str) -> tuple[int, bool]:
        """Let no call of a provider begin from now on, whatever is restarted, until ``resume``.

        Calls in flight go on, and jobs are queued as ever. Returns since when (ms since the epoch)
        it is drained, and whether it was not before.
        """
        since, drained_now = self._run("drain", provider, "drain")
        return int(since), bool(drained_now)

    def resume(self, provider: str) -> int | None:
        """End ``drain``; since when (ms since the epoch) it held, ``None`` if it did not."""
        since, _ = self._run("drain", provider, "resume")
        return int(since) if since else None

    def drained(self, providers: Sequence[str]) -> dict[str, int]:
        """Those of the providers that are drained, and since when (ms since the epoch)."""
        if not providers:
            return {}
        with redis_errors():
            found = self.redis.mget([f"drained:{name}" for name in providers])
        since = zip(providers, cast("list[str | None]", found), strict=True)
        return {name: int(at) for name, at in since if at is not None}

    def release(self, *, sweep: bool) -> tuple[int, float | None]:
        """Bring parked jobs back that their budgets can start now, but for drained providers.

        ``sweep`` also ends those whose deadline is nearer than the opening of their budget. Returns
        how many came back, and the seconds until the next one can (``None``: nothing is known).
        """
        released, milliseconds = self._run("release", "sweep" if sweep else "")
        return released, None if milliseconds < 0 else milliseconds / 1000

    def note_memory(self) -> float | None:
        """Refuse new jobs while Redis is nearly full; the share of its memory that is used.

        ``None`` when it has no limit. The note ends by itself, should the keeper not renew it.
        """
        with redis_errors():
            memory = self.redis.info("memory")
            limit = int(memory.get("maxmemory", 0))
            if not limit:
                self.redis.delete("chatd:memory")
                return None
            share = int(memory["used_memory"]) / limit
            if share >= NEARLY_FULL:
                self.redis.set("chatd:memory", "full", ex=_MEMORY_NOTE_S)
            else:
                self.redis.delete("chatd:memory")
        return share

    def calls(self, provider: str) -> list[Call]:
        """Every lease of a provider."""
        with redis_errors():
            leases = self.redis.zrange(f"leases:{provider}", 0, -1, withscores=True)
        found = cast("list[tuple[str, float]]", leases)
        calls = []
        for member, score in found:
            job_id, token = member.split(" ")
            calls.append(Call(job_id, token, renewed_at=int(score)))
        return calls

    def reclaim(self, provider: str, call: Call) -> Reclaimed:
        """Give up a call whose lease has not been renewed since ``call.renewed_at``."""
        return self._reclaim(provider, call, str(call.renewed_at), "")

    def reclaim_worker(self, provider: str, worker: str) -> list[Reclaimed]:
        """Give up every call of a worker that is known to be dead."""
        return [self._reclaim(provider, call, "", worker) for call in self.calls(provider)]

    def forget_worker(self, provider: str, worker: str) -> None:
        """A worker is known to be dead: nobody waits for its word after a restart of Redis."""
        with redis_errors():
            self.redis.zrem(f"workers:{provider}", worker)

    def _reclaim(self, provider: str, call: Call, seen: str, worker: str) -> Reclaimed:
        became = self._run(
            "reclaim",
            call.job_id,
            call.token,
            provider,
            seen,
            worker,
            self._config.max_lost_calls,
        )
        return Reclaimed(call.job_id, became)

    def expire_due(self) -> int:
        """End queued jobs past their deadline, at most 100; returns how many were looked at."""
        return cast("int", self._run("expire", ""))

    def retire(self, provider: str = "") -> int:
        """Remove records whose retention has ended, at most 100; returns how many.

        Of ``provider`` also the budgets that have not been used for two days.
        """
        return cast("int", self._run("retire", provider))

    def settle(self, job_ids: Sequence[str]) -> int:
        """Remove the records of ended jobs now: whoever asked for them has collected them.

        They are counted as retired. Jobs that are not over stay, unknown ones are ignored. Returns
        how many records went.
        """
        return sum(
            cast("int", self._run("settle", *job_ids[begin : begin + BATCH]))
            for begin in range(0, len(job_ids), BATCH)
        )

    def marks(self, queue: str) -> tuple[int, int, bool]:
        """Of a queue: the last sequence number, the highest that was started, is its list empty."""
        with redis_errors():
            pipeline = self.redis.pipeline(transaction=True)
            pipeline.get(f"seq:{queue}")
            pipeline.get(f"mark:{queue}")
            pipeline.llen(queue)
            seq, mark, length = pipeline.execute()
        return int(seq or 0), int(mark or 0), length == 0

    def republish(self, queue: str, upto: int, *, only_if_empty: bool) -> int:
        """Send again the wake-ups with a number up to ``upto``, at most 100; returns how many."""
        mode = "empty" if only_if_empty else ""
        return cast("int", self._run("republish", queue, upto, mode))
