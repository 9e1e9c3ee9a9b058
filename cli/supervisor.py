"""Running chatd's processes on one machine: start in order, restart what dies, stop in order."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["Process", "Supervisor"]

_log = logging.getLogger(__name__)

#: Seconds before a process that died is started again; doubled each time, up to the limit.
_RESTART_S = 0.5
_RESTART_LIMIT_S = 15.0
#: A process that lived this long has recovered: its next restart is quick again.
_HEALTHY_S = 30.0
_PR_SET_PDEATHSIG = 1
#: The signal that says so is the second.
_IMPATIENT = 2


@dataclass(slots=True)
class Process:
    """One child: its name, its command, and what is known of its present life."""

    name: str
    command: Sequence[str]
    descriptors: tuple[int, ...] = ()
    child: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    pause_s: float = field(default=_RESTART_S)

    @property
    def alive(self) -> bool:
        """Whether it runs now."""
        return self.child is not None and self.child.poll() is None


class Supervisor:
    """Children in the order they were added, stopped in the opposite order.

    So the front end goes first, and the calls it waits for can still be answered.
    """

    def __init__(self, *, grace_s: float, environ: dict[str, str]) -> None:
        self._grace_s = grace_s
        self._environ = environ
        self._processes: list[Process] = []
        self.stopping = threading.Event()
        self._signals = 0

    def follow_signals(self) -> None:
        """The first SIGINT or SIGTERM drains, the second kills."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signalled)

    def add(self, name: str, command: Sequence[str], descriptors: tuple[int, ...] = ()) -> None:
        """Start one more child, which inherits the file ``descriptors``."""
        process = Process(name, command, descriptors)
        self._processes.append(process)
        self._start(process)

    def watch(self, until: Callable[[], bool]) -> bool:
        """Restart what dies until ``until()`` or a signal; true when it was ``until``."""
        while not self.stopping.is_set():
            for process in self._processes:
                self._revive(process)
            if until():
                return True
            self.stopping.wait(0.2)
        return False

    def stop(self) -> None:
        """SIGTERM each child in turn and wait for it; SIGKILL after the grace period."""
        self.stopping.set()
        for process in reversed(self._processes):
            if process.child is None:
                continue
            if process.alive:
                self._end(process.name, process.child)
            # One that has died since the last look may have left something behind as well.
            _clear_group(process.child.pid)

    def _end(self, name: str, child: subprocess.Popen[bytes]) -> None:
        # Each has the whole grace period: calls may outlast the front end that waited for them.
        until = time.monotonic() + self._grace_s
        _log.info("stopping %s (pid %d)", name, child.pid)
        child.terminate()
        while time.monotonic() < until and self._signals < _IMPATIENT:
            try:
                child.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            return
        _log.warning("killing %s (pid %d)", name, child.pid)
        child.kill()
        child.wait()

    def _start(self, process: Process) -> None:
        process.child = subprocess.Popen(
            process.command,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            pass_fds=process.descriptors,
            # A group of its own: Ctrl-C in the terminal reaches the supervisor alone.
            start_new_session=True,
            # The supervisor has one thread, so that nothing can hold a lock across the fork.
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
        process.started_at = time.monotonic()
        _log.info("%s: pid %d", process.name, process.child.pid)

    def _revive(self, process: Process) -> None:
        now = time.monotonic()
        if process.alive:
            if now - process.started_at > _HEALTHY_S:
                process.pause_s = _RESTART_S
            return
        if process.child is not None:
            _log.warning(
                "%s ended with %d, starting it again in %.1f s",
                process.name,
                process.child.returncode,
                process.pause_s,
            )
            # A front end has processes of its own, which would keep the port.
            _clear_group(process.child.pid)
            process.child = None
            process.restart_at = now + process.pause_s
            process.pause_s = min(_RESTART_LIMIT_S, process.pause_s * 2)
        if now >= process.restart_at:
            self._start(process)

    def _signalled(self, *_: object) -> None:
        self._signals += 1
        self.stopping.set()


def _clear_group(leader: int) -> None:
    """End what a child that has ended left behind; it was the leader of a group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _die_with_parent() -> None:
    """Should the supervisor be killed, the kernel tells its children to end."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
