"""The demo's child processes: started with a log, stopped by pid, and looked for afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

__all__ = ["Child", "DemoError", "descendants", "still_running"]

_ROOT = Path(__file__).resolve().parents[2]


class DemoError(Exception):
    """The demo did not go as it should; the message is for the person who ran it."""


class Child:
    """One process, out of reach of Ctrl-C in the terminal: that is for the driver alone.

    Output goes to ``log``, or to the terminal when that is ``None``. As a context manager it is
    stopped on leaving.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        log: Path | None = None,
        stop_within_s: float = 30,
    ) -> None:
        self.name = name
        self._stop_within_s = stop_within_s
        output = None if log is None else log.open("wb")
        try:
            self._process = subprocess.Popen(
                command,
                cwd=_ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                start_new_session=True,
            )
        finally:
            if output is not None:
                output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, or ``None`` while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """Wait until it ends by itself."""
        return self._process.wait()

    def stop(self) -> None:
        """SIGTERM it and everything below it, and see that all of it is gone.

        Raises ``DemoError`` when something had to be killed.
        """
        if self._process.poll() is not None:
            return
        family = [self.pid, *descendants(self.pid)]
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(self._stop_within_s)
        left = family if self._process.poll() is None else _wait_gone(family, within_s=5)
        if left:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            raise DemoError(f"{self.name}: SIGTERM did not end the processes {left}; killed them")


def _wait_gone(pids: Sequence[int], *, within_s: float) -> list[int]:
    """Those of ``pids`` that still run after a while."""
    until = time.monotonic() + within_s
    while (left := still_running(pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return left


def still_running(pids: Sequence[int]) -> list[int]:
    """Those of ``pids`` that run; one that only waits to be collected by its parent does not."""
    states = _states()
    return [pid for pid in pids if pid in states and states[pid][1] != "Z"]


def descendants(pid: int) -> list[int]:
    """All processes below ``pid``, whatever group they are in."""
    children: dict[int, list[int]] = {}
    for child, (parent, _) in _states().items():
        children.setdefault(parent, []).append(child)
    found: list[int] = []
    todo = [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _states() -> dict[int, tuple[int, str]]:
    """Parent and state letter of every process, from Linux's /proc, else from ``ps``."""
    proc = Path("/proc")
    if not (proc / "self/stat").exists():
        rows = subprocess.run(
            ["/bin/ps", "-A", "-o", "pid=,ppid=,state="], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        return {int(row[0]): (int(row[1]), row[2][:1]) for row in map(str.split, rows)}
    states: dict[int, tuple[int, str]] = {}
    for path in proc.glob("[0-9]*/stat"):
        # A process may end between the listing and the reading.
        with suppress(FileNotFoundError, ProcessLookupError):
            # proc(5): pid (name) state ppid …, where the name may hold spaces and brackets.
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            states[int(path.parent.name)] = (int(fields[1]), fields[0])
    return states
