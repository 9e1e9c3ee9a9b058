"""The keeper's other half: it runs batches and evaluations, a step at a time, in own threads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, TextIO

from chat.batches.folder import BatchStore
from chat.batches.run import BatchRun, Jobs
from chat.batches.scan import Routes
from chat.disk import lock_file
from chat.errors import QueueUnavailable, StorageUnavailable
from chat.evaluations.folder import EvaluationStore
from chat.evaluations.run import EvaluationRun
from chat.files import FileStore
from chat.logs import log_context
from chat.settings import ChatdConfig

__all__ = ["Runner", "batches", "evaluations"]

_log = logging.getLogger(__name__)

#: Seconds from one round to the next while runs move, and while none does.
_BUSY_S = 0.1
_IDLE_S = 0.25
#: Seconds that are left to other threads after a round that took longer than that.
_SHORTEST_S = 0.01
_AWAY_S = 1.0
#: Seconds that a run is left alone which met an error of its own, such as a full disk.
_REST_S = 10.0
#: Seconds between two looks for what has been kept long enough.
_SWEEP_S = 600.0


class Run(Protocol):
    """A batch or an evaluation on its way."""

    @property
    def over(self) -> bool:
        """Whether it has reached its end."""

    def step(self) -> bool:
        """Go on a little; returns whether anything happened."""

    def close(self) -> None:
        """Let go of its files."""


class Store(Protocol):
    """Where runs of one kind are; ``chat.batches.runs.RunStore`` says more."""

    kind: ClassVar[str]

    def unfinished(self) -> list[str]:
        """Those that are not over, oldest first."""

    def folder(self, run_id: str) -> Path:
        """Where one keeps what belongs to it."""


@dataclass(frozen=True, slots=True)
class _Own:
    """A run that this process has."""

    run: Run
    lock: TextIO


def batches(
    config: ChatdConfig,
    jobs: Jobs,
    routes: Routes,
    *,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> Runner:
    """What runs the batches of a data_dir, and removes old ones and old files."""
    store = BatchStore(config.data_dir / "batches")
    files = FileStore(config.data_dir / "files")

    def make(batch_id: str) -> Run:
        return BatchRun(batch_id, store, files, jobs, routes, config, wall=wall, clock=clock)

    def sweep() -> str:
        now = wall()
        gone = files.sweep(now), store.sweep(_oldest(config, now), now)
        return "{} files and {} batches".format(*gone) if any(gone) else ""

    return Runner(store, make, sweep, clock=clock)


def evaluations(
    config: ChatdConfig,
    routes: Routes,
    *,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> Runner:
    """What runs the evaluations of a data_dir, and removes old ones and old known answers."""
    store = EvaluationStore(config.data_dir / "evaluations")
    batch_store = BatchStore(config.data_dir / "batches")
    files = FileStore(config.data_dir / "files")

    def make(evaluation_id: str) -> Run:
        return EvaluationRun(
            evaluation_id, store, batch_store, files, routes, config, wall=wall, clock=clock
        )

    def sweep() -> str:
        now = wall()
        oldest = _oldest(config, now)
        gone = store.sweep(oldest, now), store.cache.sweep(oldest)
        return "{} evaluations and {} known answers".format(*gone) if any(gone) else ""

    return Runner(store, make, sweep, clock=clock)


def _oldest(config: ChatdConfig, now: float) -> float:
    """The Unix time before which nothing is kept."""
    return now - config.file_retention_s if config.file_retention_s else 0.0


class Runner:
    """Runs every unfinished run of ``store`` whose lock is free.

    ``make`` takes one up where it was left; ``sweep`` removes what was kept long enough and says
    what. ``clock`` is monotonic, in seconds.
    """

    def __init__(
        self,
        store: Store,
        make: Callable[[str], Run],
        sweep: Callable[[], str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._make, self._remove_old = store, make, sweep
        self._clock = clock
        self._own: dict[str, _Own] = {}
        self._rests_until: dict[str, float] = {}
        self._reachable, self._failed = True, ""
        self._next_sweep = 0.0

    def run(self, stop: threading.Event) -> None:
        """Run them until ``stop``; then leave them as they are for the next keeper."""
        pause = 0.0
        while not stop.wait(pause):
            pause = self.round()
        for run_id in list(self._own):
            self._let_go(run_id)

    def round(self) -> float:
        """One step of each; returns the seconds until the next round.

        A Redis that cannot be used is waited for, and told once.
        """
        happened, stepping = False, ""
        begun = self._clock()
        if self._clock() >= self._next_sweep:
            self._next_sweep = self._clock() + _SWEEP_S
            self._sweep()
        try:
            # The one that could not use Redis comes last: what failed may be for it alone, such as
            # a large request when memory is short, and the answers of the others make room.
            for run_id in sorted(
                self._store.unfinished(), key=lambda name: (name <= self._failed, name)
            ):
                if self._clock() >= self._rests_until.get(run_id, 0.0):
                    stepping = run_id
                    happened |= self._step(run_id)
        except OSError:
            # The keeper has other work, which needs no disk.
            _log.exception(
                "what is unfinished (%s) cannot be listed; trying again in %g s",
                self._store.kind,
                _REST_S,
            )
            return _REST_S
        except QueueUnavailable as error:
            if self._reachable:
                _log.warning("%s runs wait: %s", self._store.kind, error)
            self._reachable, self._failed = False, stepping
            return _AWAY_S
        if not self._reachable:
            _log.info("%s runs go on", self._store.kind)
        self._reachable, self._failed = True, ""
        if not happened:
            return _IDLE_S
        return max(_SHORTEST_S, _BUSY_S - (self._clock() - begun))

    def _sweep(self) -> None:
        """Remove what has been kept long enough."""
        try:
            gone = self._remove_old()
        except Exception:  # noqa: BLE001 - as in `_step`: nothing kept too long ends the keeper
            _log.exception("what is old (%s) cannot be removed", self._store.kind)
            return
        if gone:
            _log.info("removed %s that were kept long enough", gone)

    def _step(self, run_id: str) -> bool:
        with log_context(**{f"{self._store.kind}_id": run_id}):
            try:
                own = self._own.get(run_id) or self._take(run_id)
                if own is None:
                    return False
                happened = own.run.step()
                if own.run.over:
                    _log.info("%s is over", self._store.kind)
                    self._let_go(run_id)
            except QueueUnavailable:
                raise
            except (OSError, StorageUnavailable) as error:
                _log.error(
                    "%s rests for %g s, its disk does not take it: %s",
                    self._store.kind,
                    _REST_S,
                    error,
                )
                return self._rest(run_id)
            except Exception:  # noqa: BLE001 - see `_rest`
                _log.exception(
                    "%s met an unexpected error and rests for %g s", self._store.kind, _REST_S
                )
                return self._rest(run_id)
        return happened

    def _rest(self, run_id: str) -> bool:
        """One run must not hold up the others. It begins anew from what is on disk."""
        self._let_go(run_id)
        self._rests_until[run_id] = self._clock() + _REST_S
        return False

    def _take(self, run_id: str) -> _Own | None:
        """The run as ours, or ``None`` while another keeper has it."""
        held = (self._store.folder(run_id) / "lock").open("w")
        if not lock_file(held):
            held.close()
            return None
        try:
            run = self._make(run_id)
        except BaseException:
            held.close()
            raise
        own = self._own[run_id] = _Own(run, held)
        return own

    def _let_go(self, run_id: str) -> None:
        own = self._own.pop(run_id, None)
        self._rests_until.pop(run_id, None)
        if own is not None:
            own.run.close()
            own.lock.close()
