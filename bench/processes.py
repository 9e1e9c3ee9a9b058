"""What the kernel knows of processes: their children, memory, threads and open files."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

__all__ = ["descriptors", "family", "kill_family", "resident_mib", "threads"]


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
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:  # It has just ended.
        return 0
    # A process that is not reaped yet has a status without memory.
    return int((text.partition(name)[2].split() or ["0"])[0])
