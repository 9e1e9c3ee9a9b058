"""What a view works with: configuration, registered names, and the process's connections."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from flask.globals import app_ctx

from api.hangup import HangupMonitor
from api.stopping import Stopping
from chat.access import Caller, Keyring
from chat.batches.folder import BatchStore
from chat.catalogue import Catalogue
from chat.connection import check_durability, connect, redis_url
from chat.errors import ConfigError, QueueUnavailable
from chat.evaluations.folder import EvaluationStore
from chat.files import FileStore
from chat.jobs import JobRecord, JobState, NewJob, Outcome
from chat.reader import Page
from chat.registry import Names
from chat.replies import Replies
from chat.settings import ChatdConfig
from chat.store import Admitted, JobStore
from chat.types import JSON, Delta, Lane

__all__ = ["EXTENSION", "Connections", "FrontEnd", "Store", "front_end"]

#: Where the application keeps its ``FrontEnd``.
EXTENSION = "chatd"
#: On which a process admits jobs at the same time: enough for some thousand requests at once.
_CONNECTIONS = 12


class Store(Protocol):
    """What the front end asks of the job store; ``chat.store.JobStore`` says more of each."""

    def admit(self, job: NewJob, *, again: bool = False, record: bool = False) -> Admitted:
        """Accept a job or refuse it with nothing queued."""

    def record(self, job_id: str) -> JobRecord:
        """The record of a job."""

    def listed(
        self,
        *,
        states: Iterable[JobState] = (),
        provider: str | None = None,
        lane: Lane | None = None,
        owner: str | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> Page:
        """The newest jobs that match, a page of them."""

    def check_owner(self, job_id: str, owner: str | None) -> None:
        """Raise as if there were no such job when it is not ``owner``'s."""

    def begin_call(self, client: Caller, call: str) -> None:
        """Count a call of a client that has a limit, or refuse it."""

    def end_call(self, client: Caller, call: str) -> None:
        """A call of a client has been answered."""

    def waiting(self, job_id: str) -> JSON | None:
        """What a job waits for, if it waits."""

    def events(self, job_id: str, after: str = "-") -> Sequence[tuple[str, Delta]]:
        """The pieces of a job's answer that are kept beyond an entry."""

    def watch(self, job_id: str, channel: str) -> Outcome | None:
        """The job's end if it is over; else the channel will be told."""

    def unwatch(self, job_id: str, channel: str) -> None:
        """Take one ``watch`` back."""

    def cancel(self, job_id: str) -> JobState:
        """Cancel a job; its state afterwards."""

    def expire(self, job_id: str) -> Outcome | None:
        """End a job past its deadline that is in no call."""

    def ping(self) -> None:
        """Raise ``QueueUnavailable`` when Redis does not answer."""

    def workers(self, providers: Iterable[str]) -> dict[str, float | None]:
        """Seconds since a worker of each provider was last seen."""

    def overview(self, names: Sequence[str]) -> JSON:
        """What each provider is doing, and the counters of all jobs."""


@dataclass(frozen=True, slots=True)
class Connections:
    """What one process has for itself: Redis clients, the reply listener, the hang-up monitor."""

    store: Store
    replies: Replies
    hangups: HangupMonitor
    catalogue: Catalogue


class FrontEnd:
    """Everything behind the views.

    Connections are made on first use and once per process: a Redis connection that two processes
    share after a fork would give each the other's answers. ``stopping`` is what wakes those who
    wait when the process is told to end. ``clock`` is monotonic, in seconds.
    """

    def __init__(
        self,
        config: ChatdConfig,
        names: Names,
        *,
        store: Store | None = None,
        replies: Replies | None = None,
        catalogue: Catalogue | None = None,
        stopping: Stopping | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.names = names
        self.clock = clock
        self.keyring = Keyring(config.keys)
        self.stopping = stopping or Stopping(clock)
        self.files = FileStore(config.data_dir / "files")
        self.batches = BatchStore(config.data_dir / "batches")
        self.evaluations = EvaluationStore(config.data_dir / "evaluations")
        self._store = store
        self._replies = replies
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._made: tuple[int, Connections] | None = None

    def connections(self) -> Connections:
        """The connections of this process, made when there are none.

        Raises ``QueueUnavailable`` while the Redis that chatd brings has no address yet.
        """
        pid, known = os.getpid(), self._made
        if known is not None and known[0] == pid:
            return known[1]
        # Without the lock: while Redis is silent, callers would wait for one another's time-outs.
        made = self._connect()
        with self._lock:
            if self._made is None or self._made[0] != pid:
                self._made = (pid, made)
            return self._made[1]

    def _connect(self) -> Connections:
        if self._store is not None and self._replies is not None and self._catalogue is not None:
            return Connections(self._store, self._replies, HangupMonitor(), self._catalogue)
        try:
            url = redis_url(self.config)
            client = connect(url)
        except ConfigError as error:
            # `chatd up` may still be starting its Redis; the next request tries again.
            raise QueueUnavailable(str(error)) from error
        try:
            check_durability(client, self.config.durability)
        except ConfigError as error:
            # Nothing is accepted that could be lost although it was promised to be kept.
            raise QueueUnavailable(str(error)) from error
        store = JobStore(client, self.config, pipelined=_CONNECTIONS)
        # The listener's client is its own: a busy pool must not keep it from subscribing again.
        return Connections(
            self._store or store,
            self._replies or Replies(connect(url), store),
            HangupMonitor(),
            self._catalogue or Catalogue(client),
        )


def front_end() -> FrontEnd:
    """The front end of the request that is being answered."""
    # Not by `current_app`, whose every use looks for the application, and through another proxy.
    context = app_ctx._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - public, says werkzeug
    return cast("FrontEnd", context.app.extensions[EXTENSION])
