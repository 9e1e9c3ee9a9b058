"""What the processes of one system cost: CPU time and memory, part by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self, TypeVar

from bench.processes import cpu_s, family, proportional_mib, resident_mib, threads
from bench.sampling import Sampler
from tests.servers import Child
from tests.stack import Stack

__all__ = ["Parts", "Peak"]

_Number = TypeVar("_Number", int, float)


class Parts:
    """Named groups of processes; each counts with all that descend from it.

    A process that is not running counts as nothing.
    """

    def __init__(self, children: Mapping[str, Sequence[Child]]) -> None:
        self._children = children

    @classmethod
    def of(cls, stack: Stack, further: Sequence[Child] = ()) -> Self:
        """Those of chatd; ``further`` are workers beside the one of each provider."""
        return cls(
            {
                "front end": [stack.api],
                "worker": [*stack.workers.values(), *further],
                "keeper": [stack.keeper],
                "Redis": [stack.redis.child],
            }
        )

    def pids(self, name: str) -> list[int]:
        """The processes of one part that live now."""
        return [pid for child in self._children[name] if child.alive for pid in family(child.pid)]

    def cpu(self) -> dict[str, float]:
        """CPU seconds of each part since it began: user and system, of all its threads."""
        return {name: sum(map(cpu_s, self.pids(name))) for name in self._children}

    def spent(self, before: Mapping[str, float]) -> dict[str, float]:
        """CPU seconds of each part since ``cpu`` said ``before``."""
        return {name: seconds - before[name] for name, seconds in self.cpu().items()}

    def resident(self) -> dict[str, float]:
        """MiB of each part; what its processes share counts in each of them (RSS)."""
        return {name: sum(map(resident_mib, self.pids(name))) for name in self._children}

    def proportional(self) -> dict[str, float]:
        """MiB of each part; what processes share is divided among them (PSS)."""
        return {name: sum(map(proportional_mib, self.pids(name))) for name in self._children}

    def threads(self) -> dict[str, int]:
        """How many threads each part has."""
        return {name: sum(map(threads, self.pids(name))) for name in self._children}


class Peak(Sampler):
    """The most memory and threads that the parts have had while it watches, twice a second."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(self._raise_all, 0.5)
        self._parts = parts
        self.resident: dict[str, float] = {}
        self.proportional: dict[str, float] = {}
        self.threads: dict[str, int] = {}

    def _raise_all(self) -> None:
        _raise(self.resident, self._parts.resident())
        _raise(self.proportional, self._parts.proportional())
        _raise(self.threads, self._parts.threads())


def _raise(most: dict[str, _Number], found: Mapping[str, _Number]) -> None:
    for name, value in found.items():
        most[name] = max(value, most.get(name, value))
