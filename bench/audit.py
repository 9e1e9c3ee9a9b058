"""``chatd audit`` on a live system with very many records: how long, how much, and who notices.

    python -m bench.audit [RECORDS]

Fills the batch queue of a running chatd, with 100,000 jobs unless said else, and lets people chat
while it is worked off: without an audit, and during one. Prints how long the audit took, how much
memory it had, and what people and Redis felt of it. The exit code is 1 when the audit found a
breach or missed a record, a chat failed, or its memory grows with the records.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.scenes.scene import Report, Scene, percentile, running
from bench.scenes.traffic import Asked, ask_in_turn
from chat.config import load_config
from chat.connection import connect
from chat.jobs import NewJob, new_job_id
from chat.store import JobStore
from chat.types import ChatRequest, Lane, Message, Role
from tests.servers import python

__all__ = ["main"]

#: No cap is ever reached.
_SETTINGS = 'max_queued = 100000000\nmax_queued_bytes = "64GiB"\n'
_LINES = 'max_batch = 100000000\nmax_batch_bytes = "64GiB"\n'
_FILLERS = 2
_PEOPLE = 4
_SLICE_S = 5.0
#: How much more memory an audit of many records may have than one of hardly any.
_GROWTH = 1.5


@dataclass(frozen=True, slots=True)
class _Audit:
    """One run of the command; ``mib`` is the most memory it had."""

    code: int
    found: dict[str, Any]
    seconds: float
    mib: float


def main(records: int) -> int:
    """Run it; 1 when a rule was broken."""
    report = Report()
    with running(concurrency=8, delay_s=0.2, settings=_SETTINGS, lines=_LINES) as scene:
        small = _Running(scene).result()
        began = time.monotonic()
        with ProcessPoolExecutor(_FILLERS) as fillers:
            parts = [records // _FILLERS] * _FILLERS
            list(fillers.map(_fill, [scene.stack.config_file] * _FILLERS, parts))
        report.say(f"seconds until {records} were admitted", f"{time.monotonic() - began:.0f}")
        report.say("MiB that Redis uses", f"{_used_mib(scene):.0f}")
        alone = _people(scene, "alone", _SLICE_S)
        client = scene.stack.redis.client
        client.config_set("slowlog-log-slower-than", 1000)
        client.config_set("slowlog-max-len", 10_000)
        client.slowlog_reset()
        beside: list[Asked] = []
        audit = _Running(scene)
        while not audit.over():
            beside += _people(scene, f"beside {len(beside)}", _SLICE_S)
        large = audit.result()
        slow: Any = client.slowlog_get(10_000)
        longest_ms = max((entry["duration"] / 1000 for entry in slow), default=0.0)
        met = sum(large.found["records"].values())
        report.say("records that the audit met, in seconds", f"{met}, {large.seconds:.1f}")
        report.say(
            "MiB of the audit; of one of hardly any records", f"{large.mib:.0f}; {small.mib:.0f}"
        )
        report.say("the longest command of Redis meanwhile, ms", f"{longest_ms:.1f}")
        report.say("a chat, median / p99 ms, alone and beside it", f"{_ms(alone)}; {_ms(beside)}")
        report.say("verdict", large.found["verdict"])
        report.rule("no breach", large.code == small.code == 0)
        report.rule("every record was met", met >= records // _FILLERS * _FILLERS)
        report.rule("every chat was answered", {one.status for one in alone + beside} == {200})
        report.rule(
            f"its memory is at most {_GROWTH} x that of an audit of hardly any records",
            large.mib <= _GROWTH * small.mib,
        )
    return 1 if report.broken else 0


def _fill(config_file: Path, count: int) -> None:
    """Admit so many batch jobs, in a process of its own."""
    config = load_config(config_file)
    store = JobStore(connect(config.redis_url), config)
    for number in range(count):
        request = ChatRequest("echo", (Message(Role.USER, f"question {number}"),))
        store.admit(NewJob(new_job_id(), request, "ollama", "echo", Lane.BATCH, 86_400_000))


def _people(scene: Scene, tag: str, seconds: float) -> list[Asked]:
    url = scene.stack.url
    return asyncio.run(ask_in_turn(url, _PEOPLE, seconds, lane="interactive", tag=tag))


class _Running:
    """An audit in a process of its own; its memory is known from the kernel once it has ended."""

    def __init__(self, scene: Scene) -> None:
        self._output = scene.stack.folder / "audit.json"
        self._began = time.monotonic()
        with self._output.open("wb") as output:
            self._pid = os.posix_spawn(
                sys.executable,
                python("-m", "cli", "audit", "--json"),
                {**os.environ, **scene.stack.environ},
                file_actions=[(os.POSIX_SPAWN_DUP2, output.fileno(), 1)],
            )
        self._ended: _Audit | None = None

    def over(self) -> bool:
        """Whether it has ended."""
        return self._look(os.WNOHANG) is not None

    def result(self) -> _Audit:
        """What came of it, waited for."""
        found = self._look(0)
        assert found is not None
        return found

    def _look(self, options: int) -> _Audit | None:
        if self._ended is None:
            pid, status, usage = os.wait4(self._pid, options)
            if pid:
                self._ended = _Audit(
                    os.waitstatus_to_exitcode(status),
                    json.loads(self._output.read_text("utf-8")),
                    time.monotonic() - self._began,
                    usage.ru_maxrss / 1024,
                )
        return self._ended


def _used_mib(scene: Scene) -> float:
    info: Any = scene.stack.redis.client.info("memory")
    return float(info["used_memory"]) / 2**20


def _ms(asked: list[Asked]) -> str:
    times = [1000 * one.latency_s for one in asked]
    return f"{percentile(times, 0.5):.0f} / {percentile(times, 0.99):.0f}"


if __name__ == "__main__":
    sys.exit(main(int((sys.argv[1:] or ["100000"])[0])))
