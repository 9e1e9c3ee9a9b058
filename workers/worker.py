"""One worker process: a Celery worker on one provider's two queues."""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import gevent
from celery import Celery, signals
from celery.exceptions import CPendingDeprecationWarning, Reject
from celery.platforms import SecurityWarning

from chat.builder import build_model_source, build_registry
from chat.catalogue import Catalogue
from chat.connection import await_redis, check_durability, connect
from chat.disk import lock_file
from chat.errors import ConfigError, QueueUnavailable
from chat.garbage import search_less
from chat.handover import say_ready
from chat.jobs import TASK_NAME, queue_name
from chat.store import JobStore
from chat.types import Lane
from workers.app import envelopes, make_celery
from workers.calls import Calls
from workers.catalogue import Refresher
from workers.orphans import Orphans
from workers.runner import Runner
from workers.transport import GATE, HELD

if TYPE_CHECKING:
    from chat.config import ChatdConfig

__all__ = ["abandoned_names", "claim_name", "define_task", "run_worker"]

_log = logging.getLogger(__name__)

#: Seconds for which a name that is asked for is waited for: whoever looks at it has it a moment.
_CLAIM_WAIT_S = 1.0
#: What becomes of a call that belongs to another worker of the provider, or has ended meanwhile.
_UNTOUCHED = frozenset({"stale", "gone"})
#: Seconds between two questions whether a batch job may start, while none may.
_ROOM_S = 0.1


def claim_name(data_dir: Path, provider: str, instance: int | None) -> tuple[str, TextIO]:
    """A worker name that no other process of this host has: ``<provider>-<n>@<host>``.

    The name is held by a lock on a file, which the kernel drops when the process dies. So whoever
    gets a name may give up at once the calls that an earlier life of that name left behind. Without
    ``instance`` the first free number is taken. Keep the file open as long as the name is needed.

    Raises ``ConfigError`` when the one that is asked for is taken.
    """
    folder = data_dir / "workers"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be made ({error.strerror}); set [chatd] data_dir to a folder of "
            "this user"
        ) from error
    for number in range(1, 1000) if instance is None else [instance]:
        # Not "w", which would empty the file of whoever has the lock.
        file = (folder / f"{provider}-{number}.lock").open("a")
        if not lock_file(file, within_s=0.0 if instance is None else _CLAIM_WAIT_S):
            file.close()
            continue
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        return f"{provider}-{number}@{socket.gethostname()}", file
    raise ConfigError(
        f"worker {provider}-{instance} is running already on this host; "
        "leave --instance out to get a free number"
    )


def abandoned_names(data_dir: Path, provider: str) -> Iterator[str]:
    """The names of this host that no process has any more, each held while it is looked at.

    A worker that is started anew has another name than the one that died, if that was its
    predecessor's successor: so each gives up the calls of all that are dead.
    """
    for path in sorted((data_dir / "workers").glob(f"{provider}-*.lock")):
        with path.open("a") as file:
            if lock_file(file):
                yield f"{path.stem}@{socket.gethostname()}"


def define_task(app: Celery, runner: Runner) -> Any:
    """The one task: its id is the job id, it has no arguments and returns nothing."""

    def wake(job_id: str, queue: str) -> bool:
        lines_up = not queue.endswith(".batch")
        return runner.run(job_id, lambda room: GATE.decided(queue, room), lines_up=lines_up)

    @app.task(  # type: ignore[untyped-decorator]
        name=TASK_NAME,
        bind=True,
        ignore_result=True,
        Strategy="workers.strategy:plain_first",
        wake=staticmethod(wake),
    )
    def run_job(self: Any) -> None:
        if not wake(self.request.id, self.request.delivery_info["routing_key"]):
            raise Reject("the worker is stopping", requeue=True)

    return run_job


def run_worker(config: ChatdConfig, provider: str, redis_url: str, instance: int | None) -> int:
    """Work on one provider's queues until SIGTERM or SIGINT; returns the exit code.

    On the first signal the worker takes nothing more, finishes its calls and leaves.
    """
    settings = config.providers[provider]
    worker, lock = claim_name(config.data_dir, provider, instance)
    store = JobStore(connect(redis_url), config, pipelined=1)
    registry = build_registry(config, os.environ, only=[provider])
    stopping = threading.Event()
    orphans = Orphans(config.data_dir)
    app = make_celery(redis_url)
    messages = envelopes(app, [provider])

    def after_beat() -> None:
        """What an outage may have left to do, long before the keeper gives any call up."""
        GATE.redis_answers()
        orphans.hand_in(store, provider, calls.remember)
        store.register_envelopes(messages)
        store.register_settings([provider], only_missing=True)

    calls = Calls(store, worker, provider, after_beat=after_beat)
    runner = Runner(
        store=store,
        registry=registry,
        calls=calls,
        orphans=orphans,
        provider=provider,
        worker=worker,
        config=config,
        stopping=stopping,
        on_room=GATE.learn,
    )
    # Celery warns of root because of pickle, which this worker does not accept.
    warnings.simplefilter("ignore", SecurityWarning)
    # And, when Redis goes, of a setting that leaves running tasks alone, which is what we want.
    warnings.simplefilter("ignore", CPendingDeprecationWarning)
    define_task(app, runner)
    await_redis(store.redis)
    check_durability(store.redis, config.durability)
    store.register_envelopes(messages)
    store.register_settings([provider])
    # Answers first: a call that is given up before its answer is handed in fails as unknown.
    orphans.hand_in(store, provider, calls.remember)
    _reclaim(store, provider, worker)
    for dead in abandoned_names(config.data_dir, provider):
        _reclaim(store, provider, dead)
        store.forget_worker(provider, dead)
    calls.start()
    if config.models_refresh_s:
        source = build_model_source(config, provider, os.environ)
        refresher = Refresher(provider, source, Catalogue(store.redis), config.models_refresh_s)
        refresher.start(stopping)
    _follow_signals(stopping)
    threads = _arrange_threads(provider, settings.concurrency)
    watch = threading.Thread(
        target=_watch_room, args=(store, provider, stopping), name="room", daemon=True
    )
    watch.start()
    queues = [queue_name(provider, lane) for lane in Lane]
    celery_worker = app.Worker(
        hostname=worker,
        # Its threads are greenlets, as everything of this process is that waits. Celery's own pool
        # of greenlets is made for another loop, which sleeps up to two seconds when all slots are
        # taken; the hub is woken, under gevent as well.
        pool="workers.pool:TaskPool",
        use_eventloop=True,
        concurrency=threads,
        queues=queues,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        loglevel=config.log_level.upper(),
        redirect_stdouts=False,
    )
    _log.info("worker %s: %d permits, queues %s", worker, settings.concurrency, ", ".join(queues))
    celery_worker.start()
    calls.close()
    if HELD:
        _log.error("%d wake-ups were still held at the end; the keeper sends them again", len(HELD))
    lock.close()
    return int(celery_worker.exitcode or 0)


def _reclaim(store: JobStore, provider: str, worker: str) -> None:
    """Give up the calls of a dead worker, or of an earlier life of this one."""
    for reclaimed in store.reclaim_worker(provider, worker):
        if reclaimed.became in _UNTOUCHED:
            continue
        _log.warning(
            "job %s: lost by an earlier life of %s: %s",
            reclaimed.job_id,
            worker,
            reclaimed.became,
            extra={"job_id": reclaimed.job_id},
        )


def _arrange_threads(provider: str, permits: int) -> int:
    """Tell the gate how many threads each lane may hold; returns how many there have to be.

    Beside a thread for each permit, some are for interactive jobs alone, so that one is at hand
    however many batch jobs run; and one is for batch jobs alone, so that people who wait in all
    others do not keep it from taking its turn.
    """
    spare = max(2, math.ceil(permits / 4))
    threads = permits + spare + 1
    interactive, batch = (queue_name(provider, lane) for lane in Lane)
    GATE.arrange({interactive: threads - 1, batch: threads - spare}, gated=batch)
    return threads


def _watch_room(store: JobStore, provider: str, stopping: threading.Event) -> None:
    """Ask for room as long as the batch queue, or every queue, is shut for want of it.

    What this worker starts and finishes tells it at once; what other workers do, that nobody has
    been there for a while, and that the provider is no longer drained, it hears only by asking.
    """
    pause = 0.0  # Before anything is taken, so that nothing of a drained provider is.
    while not stopping.wait(pause):
        pause = _ROOM_S
        if GATE.has_room:
            continue
        try:
            GATE.learn(store.room(provider))
        except QueueUnavailable as error:
            # The heartbeat reports the outage.
            _log.debug("the room for batch jobs is not known: %s", error)
            pause = 1.0
        except Exception:  # noqa: BLE001 - without this thread no batch job would start again
            _log.exception("asking for room failed in an unforeseen way")
            pause = 1.0


def _follow_signals(stopping: threading.Event) -> None:
    """Let the gate find the hub, and make SIGTERM take effect at once.

    Celery notices the signal when the hub's poll returns, up to a second later, and would take and
    run new messages until then. The signal arrives wherever the process just is, in a greenlet or
    in gevent's own, which must not wait: a greenlet of its own wakes the hub.
    """

    @signals.worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
    def ready(sender: Any, **_: object) -> None:
        GATE.hub = sender.hub
        search_less()
        say_ready()

    @signals.worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def shutting_down(**_: object) -> None:
        stopping.set()
        gevent.spawn(_end_soon)


def _end_soon() -> None:
    """Apart from the signal's handler, which must neither log nor wait."""
    _log.info("told to stop: calls are finished, nothing more is taken")
    if GATE.hub is not None:
        GATE.hub.call_soon(lambda: None)
