"""The keeper's other half: it runs the batches, each a step at a time, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from chat.batches.folder import BatchStore
from chat.batches.run import BatchRun, Jobs
from chat.batches.scan import Routes
from chat.disk import lock_file
from chat.errors import QueueUnavailable
from chat.files import FileStore
from chat.logs import log_context
from chat.settings import ChatdConfig

__all__ = ["Batches"]

_log = logging.getLogger(__name__)

#: Seconds between two rounds while batches move, and while none does.
_BUSY_S = 0.1
_IDLE_S = 0.25
_AWAY_S = 1.0
#: Seconds that a batch is left alone which met an error of its own, such as a full disk.
_REST_S = 10.0
#: Seconds between two looks for what has been kept long enough.
_SWEEP_S = 600.0


@dataclass(frozen=True, slots=True)
class _Own:
    """A batch that this process runs."""

    run: BatchRun
    lock: TextIO


class Batches:
    """Runs every unfinished batch of a data_dir whose lock is free."""

    def __init__(
        self,
        config: ChatdConfig,
        jobs: Jobs,
        routes: Routes,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._jobs, self._routes = config, jobs, routes
        self._store = BatchStore(config.data_dir / "batches")
        self._files = FileStore(config.data_dir / "files")
        self._clock, self._wall = clock, wall
        self._own: dict[str, _Own] = {}
        self._rests_until: dict[str, float] = {}
        self._reachable, self._failed = True, ""
        self._next_sweep = 0.0

    def run(self, stop: threading.Event) -> None:
        """Run batches until ``stop``; then leave them as they are for the next keeper."""
        pause = 0.0
        while not stop.wait(pause):
            pause = self.round()
        for batch_id in list(self._own):
            self._let_go(batch_id)

    def round(self) -> float:
        """One step of every batch; returns the seconds until the next round.

        A Redis that cannot be used is waited for, and told once.
        """
        happened, stepping = False, ""
        if self._clock() >= self._next_sweep:
            self._next_sweep = self._clock() + _SWEEP_S
            self._sweep()
        try:
            # The one that could not use Redis comes last: what failed may be for it alone, such as
            # a large request when memory is short, and the answers of the others make room.
            for batch_id in sorted(
                self._store.unfinished(), key=lambda name: (name <= self._failed, name)
            ):
                if self._clock() >= self._rests_until.get(batch_id, 0.0):
                    stepping = batch_id
                    happened |= self._step(batch_id)
        except OSError:
            # The keeper has other work, which needs no disk.
            _log.exception("unfinished batches cannot be listed; trying again in %g s", _REST_S)
            return _REST_S
        except QueueUnavailable as error:
            if self._reachable:
                _log.warning("batches wait: %s", error)
            self._reachable, self._failed = False, stepping
            return _AWAY_S
        if not self._reachable:
            _log.info("batches go on")
        self._reachable, self._failed = True, ""
        return _BUSY_S if happened else _IDLE_S

    def _sweep(self) -> None:
        """Remove what has been kept long enough."""
        now = self._wall()
        keep_s = self._config.file_retention_s
        try:
            files = self._files.sweep(now)
            batches = self._store.sweep(now - keep_s if keep_s else 0.0, now)
        except Exception:  # noqa: BLE001 - as in `_step`: nothing kept too long ends the keeper
            _log.exception("old files and batches cannot be removed")
            return
        if files or batches:
            _log.info("removed %d files and %d batches that were kept long enough", files, batches)

    def _step(self, batch_id: str) -> bool:
        with log_context(batch_id=batch_id):
            try:
                own = self._own.get(batch_id) or self._take(batch_id)
                if own is None:
                    return False
                happened = own.run.step()
                if own.run.over:
                    _log.info("batch is over")
                    self._let_go(batch_id)
            except QueueUnavailable:
                raise
            except OSError as error:
                _log.error("batch rests for %g s, its disk does not take it: %s", _REST_S, error)
                return self._rest(batch_id)
            except Exception:  # noqa: BLE001 - see `_rest`
                _log.exception("batch met an unexpected error and rests for %g s", _REST_S)
                return self._rest(batch_id)
        return happened

    def _rest(self, batch_id: str) -> bool:
        """One batch must not hold up the others. It begins anew from what is on disk."""
        self._let_go(batch_id)
        self._rests_until[batch_id] = self._clock() + _REST_S
        return False

    def _take(self, batch_id: str) -> _Own | None:
        """The batch as ours, or ``None`` while another keeper has it."""
        held = (self._store.folder(batch_id) / "lock").open("w")
        if not lock_file(held):
            held.close()
            return None
        try:
            run = BatchRun(
                batch_id,
                self._store,
                self._files,
                self._jobs,
                self._routes,
                self._config,
                wall=self._wall,
                clock=self._clock,
            )
        except BaseException:
            held.close()
            raise
        own = self._own[batch_id] = _Own(run, held)
        return own

    def _let_go(self, batch_id: str) -> None:
        own = self._own.pop(batch_id, None)
        self._rests_until.pop(batch_id, None)
        if own is not None:
            own.run.close()
            own.lock.close()
