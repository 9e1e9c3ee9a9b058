"""What the processes of a long run hold: memory, threads, open files, connections, keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.chaos.world import World
from bench.processes import descriptors, family, resident_mib, threads
from bench.scenes.scene import Report

__all__ = ["Sample", "keys_by_kind", "print_growth", "sample"]

#: How much more memory a process may have at the end than at a third of the run.
_GROWTH = 1.3
_ANSWER = "celery-task-meta-"


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment. ``parts`` has MiB, threads and open files of each part with its children.

    ``clients`` and ``used_mib`` are Redis' own ``connected_clients`` and ``used_memory``.
    """

    minute: int
    parts: Mapping[str, tuple[float, int, int]]
    clients: int
    used_mib: float


def sample(world: World, minute: int) -> Sample:
    """What all parts hold now."""
    parts = {**world.parts, "Redis": world.redis.child}
    info: Any = world.redis.client.info()
    return Sample(
        minute,
        {name: _held(child.pid) for name, child in parts.items()},
        int(info["connected_clients"]),
        int(info["used_memory"]) / 2**20,
    )


def _held(pid: int) -> tuple[float, int, int]:
    pids = family(pid)
    return (
        round(sum(map(resident_mib, pids)), 1),
        sum(map(threads, pids)),
        sum(map(descriptors, pids)),
    )


def print_growth(report: Report, samples: list[Sample]) -> None:
    """The start and the end of the run, and the rule that memory does not go on growing."""
    first, third, last = samples[0], samples[len(samples) // 3], samples[-1]
    rows = [
        (
            name,
            *(f"{at.parts[name][0]:.0f}" for at in (first, third, last)),
            *(f"{first.parts[name][place]} -> {last.parts[name][place]}" for place in (1, 2)),
        )
        for name in last.parts
    ]
    head = ("process", "MiB at first", "at a third", "at the end", "threads", "open files")
    report.table(head, rows)
    report.say("connections of Redis", f"{first.clients} -> {last.clients}")
    report.say("MiB that Redis uses", f"{first.used_mib:.1f} -> {last.used_mib:.1f}")
    for name in last.parts:
        before, after = third.parts[name][0], last.parts[name][0]
        report.rule(
            f"{name}: memory at the end is at most {_GROWTH} x that at a third of the run",
            after <= _GROWTH * before,
        )


def keys_by_kind(world: World) -> Counter[str]:
    """How many keys Redis has, by the beginning of their names."""
    found: Counter[str] = Counter()
    for key in world.redis.client.scan_iter(count=1000):
        kind = _ANSWER if key.startswith(_ANSWER) else key.partition(":")[0]
        found[kind] += 1
    return found
