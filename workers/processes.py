"""What ``python -m workers`` runs: a worker of one provider, or the keeper."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import celery.app.trace
import celery.apps.worker
import gevent
from celery import signals
from celery.exceptions import Reject
from celery.utils.log import get_multiprocessing_logger
from gevent.util import format_run_info

from chat.config import load_config
from chat.connection import await_redis, check_durability, connect, redis_url
from chat.errors import ConfigError, QueueUnavailable
from chat.handover import say_ready
from chat.logs import configure, greenlet_failed
from chat.registry import registered
from chat.store import JobStore
from workers.app import envelopes, make_celery
from workers.keeper import Keeper
from workers.runs import batches, evaluations
from workers.worker import run_worker

__all__ = ["main", "quiet_celery"]

_log = logging.getLogger("workers")


def _worker(provider: str, instance: int | None) -> int:
    config = load_config()
    configure(f"worker {provider}", config.log_level, config.log_format)
    quiet_celery()
    # gevent would write the traceback of a greenlet to standard error by itself.
    gevent.get_hub().print_exception = greenlet_failed
    if provider not in config.providers:
        raise ConfigError(
            f'provider "{provider}" does not exist; choose one of '
            f"{', '.join(sorted(config.providers))}"
        )
    names = registered(config, os.environ)
    if provider not in names.names:
        raise ConfigError(f"provider {provider} is not registered: {names.missing[provider]}")
    return run_worker(config, provider, redis_url(config), instance)


def quiet_celery() -> None:
    """Keep Celery from giving loggers a form of its own, and from printing past them.

    When it is told to stop it says so on standard output, from within the signal's handler, where
    nothing can be logged. The stacks that it prints at SIGUSR1 stay, since somebody asked for them;
    they are those of all greenlets, of which Celery would show the one that runs.
    """

    @signals.setup_logging.connect(weak=False)  # type: ignore[untyped-decorator]
    def set_up(**_: object) -> None:
        # With a receiver Celery leaves loggers alone; this one alone would lead nowhere.
        get_multiprocessing_logger().propagate = True

    say = celery.apps.worker.safe_say

    def say_what_was_asked_for(text: str, stream: object = sys.__stderr__) -> None:
        if stream is not sys.__stdout__:
            say(text, stream)

    celery.apps.worker.safe_say = say_what_was_asked_for
    celery.apps.worker.cry = lambda: "\n".join(format_run_info())
    celery.app.trace.logger.addFilter(_given_back)


def _given_back(record: logging.LogRecord) -> bool:
    """A wake-up that a stopping worker gives back is no error, which Celery takes it for."""
    if record.exc_info and isinstance(record.exc_info[1], Reject):
        record.exc_info = None
        record.__dict__.pop("data", None)  # Where Celery has the traceback once more.
        record.levelno, record.levelname = logging.INFO, "INFO"
    return True


def _keeper() -> int:
    config = load_config()
    configure("keeper", config.log_level, config.log_format)
    url = redis_url(config)
    store = JobStore(connect(url), config)
    await_redis(store.redis)
    check_durability(store.redis, config.durability)
    app = make_celery(url)
    # Every provider: one that has lost its key may still have jobs in its queue.
    messages = envelopes(app, config.providers)
    store.register_envelopes(messages)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    _log.info("keeper of %s", ", ".join(config.providers))
    # A client of its own: thousands of answers on their way must not keep the keeper waiting.
    names = registered(config, os.environ)
    runners = [
        batches(config, JobStore(connect(url), config), names),
        # In a thread of its own: scoring and reports must not hold up batches.
        evaluations(config, names),
    ]
    with ThreadPoolExecutor(len(runners), "runs") as threads:
        running = [threads.submit(runner.run, stop) for runner in runners]
        for each in running:
            # Should it end in an error, this process has to as well, so that it is started anew.
            each.add_done_callback(lambda _: stop.set())
        say_ready()
        try:
            Keeper(store, config.providers, envelopes=messages).run(stop)
        finally:
            stop.set()
        for each in running:
            each.result()
    return 0


def main(argv: list[str]) -> int:
    """Run one process until it is told to stop; returns its exit code."""
    parser = argparse.ArgumentParser(prog="chatd")
    commands = parser.add_subparsers(dest="command", required=True)
    worker = commands.add_parser("worker")
    worker.add_argument("provider")
    worker.add_argument("--instance", type=int)
    commands.add_parser("keeper")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "worker":
            return _worker(arguments.provider, arguments.instance)
        return _keeper()
    except ConfigError as error:
        # Nothing has begun: this is for the person or the unit file that asked for it.
        print(f"chatd {arguments.command}: {error}", file=sys.stderr)  # noqa: T201
    except QueueUnavailable as error:
        _log.error("%s", error)
    return 1
