"""What the kernel knows of processes: their children, memory, threads and open files."""

from __future__ import annotations

import os
import resource
import signal
from contextlib import suppress
from pathlib import Path

__all__ = [
    "allow_descriptors",
    "cpu_s",
    "descriptors",
    "family",
    "kill_family",
    "proportional_mib",
    "resident_mib",
    "threads",
]

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def allow_descriptors() -> None:
    """Let this process, and those it starts, open as many files and sockets as it may at all."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    children = [int(child) for child in path.read_text().split()] if path.exists() else []
    return [pid, *(member for child in children for member in family(child))]


def kill_family(pid: int) -> None:
    """SIGKILL for a process and all that descend from it."""
    for member in family(pid):
        with suppress(ProcessLookupError):  # It has ended with its parent.
            os.kill(member, signal.SIGKILL)


def resident_mib(pid: int) -> float:
    """MiB of memory in use; 0 for a process that has ended."""
    return _status(pid, "VmRSS:") / 1024


def proportional_mib(pid: int) -> float:
    """The same, with what it shares with other processes divided between them."""
    return _field(f"/proc/{pid}/smaps_rollup", "Pss:") / 1024


def cpu_s(pid: int) -> float:
    """Seconds of a core that a process has used; 0 for one that has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return 0.0
    # After the name in brackets, which may hold spaces: user and system time are fields 14 and 15.
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS_PER_S


def threads(pid: int) -> int:
    """How many threads a process has; 0 for one that has ended."""
    return _status(pid, "Threads:")


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open; 0 for one that has ended."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return 0


def _status(pid: int, name: str) -> int:
    return _field(f"/proc/{pid}/status", name)


def _field(path: str, name: str) -> int:
    try:
        text = Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):  # It has just ended.
        return 0
    # A process that is not reaped yet has a status without memory.
    return int((text.partition(name)[2].split() or ["0"])[0])
