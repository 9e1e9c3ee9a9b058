"""A rolling restart: each part of chatd gets a successor, one after another."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from chat.errors import ConfigError
from cli.instance import Restarts

if TYPE_CHECKING:
    from cli.child import Child, Part
    from cli.instance import Instance
    from cli.supervisor import Supervisor

__all__ = ["GivenUp", "Restarter", "Rolling"]

_log = logging.getLogger(__name__)

#: Seconds that a successor may take until it is ready.
_READY_S = 60.0


class GivenUp(Exception):
    """A restart cannot go on; the message says why, and what runs now."""


class Rolling:
    """One restart, as a series of ``step`` that never wait.

    A successor is started; when it is ready, the one before is told to end, finishes what it has
    beside all that follows, and the next part has its turn. ``parts`` come in the order of their
    restart; those in ``dropped`` get no successor and end last.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        parts: Sequence[Part],
        dropped: Sequence[str] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._supervisor = supervisor
        self._waiting = deque(parts)
        self._dropped = deque(dropped)
        self._clock = clock
        self._successor: Child | None = None
        self._until = 0.0

    @property
    def doing(self) -> str:
        """What it waits for, in a few words."""
        if self._successor is not None:
            return f"{self._successor.part.name} starts anew"
        leaving = [child.part.name for child in self._supervisor.leaving()]
        return f"waiting for what {', '.join(leaving)} had begun" if leaving else ""

    def step(self) -> bool:
        """Go on as far as possible; true when it is over. Raises ``GivenUp``."""
        while self._successor is None and self._waiting:
            self._successor = self._begun(self._waiting.popleft())
            self._until = self._clock() + _READY_S
            return False
        if self._successor is not None:
            return self._promoted(self._successor)
        while self._dropped:
            self._supervisor.retire(self._dropped.popleft())
        return not self._supervisor.leaving()

    def _begun(self, part: Part) -> Child:
        try:
            return self._supervisor.begin_successor(part)
        except OSError as error:
            # Its program is gone, or the machine has no process, file or memory left for it.
            raise self._given_up(part.name, f"could not be started ({error})") from error

    def _promoted(self, successor: Child) -> bool:
        name = successor.part.name
        if successor.ready:
            self._supervisor.promote(name)
            self._successor = None
            return False
        code = successor.exit_code
        if code is None and self._clock() < self._until:
            return False
        became = f"was not ready after {_READY_S:.0f} s" if code is None else f"ended with {code}"
        raise self._given_up(name, f"{became}, and its log says why")

    def _given_up(self, name: str, became: str) -> GivenUp:
        self._supervisor.abandon(name)
        return GivenUp(
            f"the new {name} {became}; whatever had no successor by then runs on as before"
        )


class Restarter:
    """Begins a restart whenever one is asked for, and writes down how it goes.

    ``plan`` reads the configuration anew and makes of it the parts to run and the names of those
    that have no place in it any more. Raises ``ConfigError`` when it cannot be used.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        instance: Instance,
        plan: Callable[[], tuple[Sequence[Part], Sequence[str]]],
    ) -> None:
        self._supervisor = supervisor
        self._instance = instance
        self._plan = plan
        self._rolling: Rolling | None = None
        self._told = self._state = Restarts()
        self._silent = False

    def turn(self) -> None:
        """Go on as far as possible. Never waits, so that what dies meanwhile is looked after."""
        if self._rolling is None and self._supervisor.restart_asked():
            self._begin()
        elif self._rolling is not None:
            self._go_on(self._rolling)
        self._tell()

    def _begin(self) -> None:
        _log.info("restarting")
        self._state = Restarts(self._state.begun + 1, self._state.ended, "reads the configuration")
        # Whoever asks from now on wants one more: the configuration may be another by then.
        self._tell()
        try:
            parts, dropped = self._plan()
        except ConfigError as error:
            self._end(f"nothing was restarted: {error}")
            return
        self._rolling = Rolling(self._supervisor, parts, dropped)

    def _go_on(self, rolling: Rolling) -> None:
        try:
            over = rolling.step()
        except GivenUp as error:
            self._end(f"the restart was given up: {error}")
            return
        if over:
            self._end("")
        else:
            self._state = replace(self._state, doing=rolling.doing)

    def _end(self, fault: str) -> None:
        self._rolling = None
        self._state = Restarts(self._state.begun, self._state.begun, "", fault)
        if fault:
            _log.error("%s", fault)
        else:
            _log.info("restarted")

    def _tell(self) -> None:
        if self._state == self._told:
            return
        try:
            self._instance.tell(self._state)
        except OSError as error:
            # A full disk must not keep chatd from being restarted; it is tried again each turn.
            if not self._silent:
                _log.warning("how the restart goes cannot be written down: %s", error)
            self._silent = True
            return
        self._told, self._silent = self._state, False
