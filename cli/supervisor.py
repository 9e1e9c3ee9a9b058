"""Running chatd's processes on one machine: start in order, restart what dies, stop in order."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

from cli.child import Child, Part
from cli.terminal import Terminal

__all__ = ["Process", "Supervisor"]

_log = logging.getLogger(__name__)

#: Seconds before a process that died is started again; doubled each time, up to the limit.
_RESTART_S = 0.5
_RESTART_LIMIT_S = 15.0
#: A process that lived this long has recovered: its next restart is quick again.
_HEALTHY_S = 30.0
#: Seconds between two looks at the children.
_LOOK_S = 0.2
#: The signal that says so is the second.
_IMPATIENT = 2


@dataclass(slots=True)
class Process:
    """A part that is kept running: its present child, and what is known of its restarts.

    While it gets a ``successor`` there are two of it. ``leaving`` are those that were told to end
    and may finish what they have; a part that is not ``wanted`` any more goes with the last one.
    """

    part: Part
    child: Child | None = None
    successor: Child | None = None
    leaving: list[Child] = field(default_factory=list)
    wanted: bool = True
    restart_at: float = 0.0
    pause_s: float = _RESTART_S

    @property
    def alive(self) -> bool:
        """Whether it runs now."""
        return self.child is not None and self.child.alive

    def put_off(self) -> None:
        """Start it after a pause, and after twice that the next time."""
        self.restart_at = time.monotonic() + self.pause_s
        self.pause_s = min(_RESTART_LIMIT_S, self.pause_s * 2)

    def children(self) -> list[Child]:
        """Every process of it that runs, or has ended since the last look."""
        present = [child for child in (self.child, self.successor) if child is not None]
        return [*present, *self.leaving]


class Supervisor:
    """Children in the order they were added, stopped in the opposite order.

    So the front end goes first, and the calls it waits for can still be answered.
    """

    def __init__(self, *, environ: dict[str, str]) -> None:
        self.environ = environ
        self._processes: list[Process] = []
        self._terminal = Terminal()
        self.stopping = threading.Event()
        self._signals = 0
        self._restart_asked = False

    def follow_signals(self) -> None:
        """The first SIGINT or SIGTERM drains, the second kills; SIGHUP asks for a restart.

        But for the SIGHUP of a terminal that is closed, which drains as well.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signalled)
        # As `nohup` has it: this process outlives its terminal.
        stays = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, partial(self._hung_up, stays))

    def restart_asked(self) -> bool:
        """Whether SIGHUP has come since the last question."""
        asked, self._restart_asked = self._restart_asked, False
        return asked

    def add(self, part: Part) -> None:
        """Start one more part and keep it running."""
        process = Process(part)
        self._processes.append(process)
        self._start(process)

    def watch(self, until: Callable[[], bool]) -> bool:
        """Restart what dies until ``until()`` or a signal; true when it was ``until``."""
        while not self.stopping.is_set():
            for process in list(self._processes):
                self._look_after(process)
            self._terminal.look()
            if until():
                return True
            self.stopping.wait(_LOOK_S)
        return False

    def stop(self) -> None:
        """SIGTERM each kind of part in turn and wait for it; SIGKILL after the grace period."""
        self.stopping.set()
        for _, kind in groupby(reversed(self._processes), key=_kind):
            self._end([child for process in kind for child in process.children()])

    # -- a part gets a successor

    def parts(self) -> list[Part]:
        """What is kept running."""
        return [process.part for process in self._processes if process.wanted]

    def begin_successor(self, part: Part) -> Child:
        """Start the process that is to take over from the part of that name, or a new part.

        Raises ``OSError`` when there can be none; it is to be abandoned then.
        """
        process = self._find(part.name)
        if process is None:
            # A new one goes beside its like, so that it is stopped with them.
            process = Process(part, restart_at=float("inf"))
            kinds = [each.part.kind for each in self._processes]
            last = len(kinds) - kinds[::-1].index(part.kind) if part.kind in kinds else len(kinds)
            self._processes.insert(last, process)
        process.successor = Child(part, self.environ)
        _log.info("%s: pid %d is to take over", part.name, process.successor.pid)
        return process.successor

    def promote(self, name: str) -> None:
        """The successor is the part from now on; the one before is told to end."""
        process = self._process(name)
        self._dismiss(process)
        assert process.successor is not None  # noqa: S101 - whoever promotes has begun one
        process.child, process.successor = process.successor, None
        process.part = process.child.part
        process.restart_at, process.pause_s = 0.0, _RESTART_S

    def abandon(self, name: str) -> None:
        """There is no successor; what ran before runs on."""
        process = self._process(name)
        if process.successor is not None:
            process.successor.kill()
            process.successor.clear()
            process.successor = None
        if process.restart_at == float("inf"):
            self._processes.remove(process)

    def retire(self, name: str) -> None:
        """Tell a part to end that has no successor."""
        process = self._process(name)
        process.wanted = False
        self._dismiss(process)

    def leaving(self) -> list[Child]:
        """Those that were told to end and still run."""
        return [child for process in self._processes for child in process.leaving]

    # --

    def _find(self, name: str) -> Process | None:
        return next((p for p in self._processes if p.wanted and p.part.name == name), None)

    def _process(self, name: str) -> Process:
        process = self._find(name)
        if process is None:
            raise KeyError(name)
        return process

    def _dismiss(self, process: Process) -> None:
        child, process.child = process.child, None
        if child is None:
            return
        if child.alive:
            _log.info("stopping %s (pid %d)", child.part.name, child.pid)
            child.terminate()
        process.leaving.append(child)

    def _end(self, children: Iterable[Child]) -> None:
        """Stop children that may end side by side. One that was told to before keeps its time."""
        children = list(children)
        for child in children:
            if child.alive and child.end_by == float("inf"):
                _log.info("stopping %s (pid %d)", child.part.name, child.pid)
                child.terminate()
        for child in children:
            while not child.wait(0.1):
                if time.monotonic() >= child.end_by or self._signals >= _IMPATIENT:
                    _log.warning("killing %s (pid %d)", child.part.name, child.pid)
                    child.kill()
            # One that has died since the last look may have left something behind as well.
            child.clear()

    def _start(self, process: Process) -> None:
        process.child = Child(process.part, self.environ)
        _log.info("%s: pid %d", process.part.name, process.child.pid)

    def _look_after(self, process: Process) -> None:
        for child in list(process.leaving):
            if child.alive and time.monotonic() >= child.end_by:
                _log.warning("killing %s (pid %d)", child.part.name, child.pid)
                child.kill()
            if not child.alive:
                child.clear()
                process.leaving.remove(child)
        if not process.wanted:
            if not process.leaving:
                self._processes.remove(process)
        elif process.successor is None:
            # Where one is on its way, it takes over from the dead as well.
            self._revive(process)

    def _revive(self, process: Process) -> None:
        now = time.monotonic()
        child = process.child
        if child is not None and child.alive:
            if now - child.started_at > _HEALTHY_S:
                process.pause_s = _RESTART_S
            return
        if child is not None:
            _log.warning(
                "%s ended with %d, starting it again in %.1f s",
                process.part.name,
                child.exit_code,
                process.pause_s,
            )
            # A front end has processes of its own, which would keep the port.
            child.clear()
            process.child = None
            process.put_off()
        if now >= process.restart_at:
            self._start_again(process)

    def _start_again(self, process: Process) -> None:
        try:
            self._start(process)
        except OSError as error:
            # Its program is gone, or the machine has no process, file or memory left for it.
            _log.error(
                "%s cannot be started (%s), trying again in %.1f s",
                process.part.name,
                error,
                process.pause_s,
            )
            process.put_off()

    def _signalled(self, *_: object) -> None:
        self._signals += 1
        self.stopping.set()

    def _hung_up(self, stays: bool, *_: object) -> None:  # noqa: FBT001 - signal calls it
        if not self._terminal.just_closed():
            self._restart_asked = True
        elif not stays:
            self._signalled()


def _kind(process: Process) -> str:
    return process.part.kind or process.part.name
