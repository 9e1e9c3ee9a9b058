"""What is looked at beside the jobs: the audit, what is left in Redis and on disk, the logs."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.chaos.world import PROVIDER, World
from chat.jobs import queue_name
from chat.types import Lane
from tests.servers import ROOT, python

__all__ = ["Audit", "Auditing", "audit", "left_over", "logged"]

_AWAY = 3


@dataclass(frozen=True, slots=True)
class Audit:
    """One run of ``chatd audit --json``; times are monotonic seconds."""

    began: float
    ended: float
    code: int
    broken: dict[str, int]
    breaches: list[Any] = field(default_factory=list)

    def excused(self, away: list[tuple[float, float]]) -> bool:
        """Whether it found no Redis in a time in which there was none."""
        return self.code == _AWAY and any(
            began <= self.ended and self.began <= ended for began, ended in away
        )


def audit(world: World) -> Audit:
    """Run ``chatd audit`` on the live system."""
    began = time.monotonic()
    done = subprocess.run(
        python("-m", "cli", "audit", "--json"),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **world.stack.environ},
        cwd=ROOT,
    )
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return Audit(
        began,
        time.monotonic(),
        done.returncode,
        found.get("broken", {}),
        found.get("breaches", []) or [done.stderr[-500:]] * (done.returncode != 0),
    )


class Auditing:
    """Audits again and again, ``pause_s`` seconds apart, as long as the ``with`` block lasts."""

    def __init__(self, world: World, pause_s: float) -> None:
        self.audits: list[Audit] = []
        self._world = world
        self._pause_s = pause_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audits")

    def __enter__(self) -> list[Audit]:
        self._thread.start()
        return self.audits

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(self._pause_s):
            self.audits.append(audit(self._world))


def left_over(world: World) -> dict[str, int]:
    """What is still there although no job is alive; only what is not zero."""
    client: Any = world.redis.client
    found = {
        f"leases:{PROVIDER}": client.zcard(f"leases:{PROVIDER}"),
        f"calls:{PROVIDER}": client.hlen(f"calls:{PROVIDER}"),
        "due": client.zcard("due"),
        "deadlines": client.zcard("deadlines"),
    }
    for name, count in client.hgetall(f"in_use:{PROVIDER}").items():
        found[f"in_use {name}"] = int(count)
    for lane in Lane:
        queue = queue_name(PROVIDER, lane)
        found[queue] = client.llen(queue)
        found[f"queued:{queue}"] = client.zcard(f"queued:{queue}")
    for key in client.scan_iter(match="parked:*"):
        found[key] = client.zcard(key)
    folder = world.stack.config.data_dir / "orphans"
    found["orphans on disk"] = len(list(folder.iterdir())) if folder.is_dir() else 0
    return {name: count for name, count in found.items() if count}


def logged(path: Path) -> Counter[str]:
    """How many lines of a log have a traceback, and how many have the level of an error."""
    found: Counter[str] = Counter()
    for line in path.read_text("utf-8", errors="replace").splitlines():
        found["traceback"] += "Traceback (most recent call last)" in line
        found["error"] += '"level": "error"' in line or '"level": "critical"' in line
    return +found
