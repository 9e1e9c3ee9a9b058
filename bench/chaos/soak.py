"""The long run: one chatd, one load, a fault each minute, and what has piled up at the end."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Self

import requests
from redis.exceptions import RedisError

from bench.chaos.account import accounted
from bench.chaos.check import Audit, audit, logged
from bench.chaos.faults import ROUNDS
from bench.chaos.ledger import Ledger
from bench.chaos.load import Load
from bench.chaos.memory import Sample, keys_by_kind, print_growth, sample
from bench.chaos.table import print_table, save
from bench.chaos.trial import until_over
from bench.chaos.verdict import Trial, figures, keep_logs, rules
from bench.chaos.world import Setting, World, running
from bench.scenes.scene import Report, until
from chat.errors import QueueUnavailable
from cli.redis_server import free_port
from tests.waiting import eventually

__all__ = ["run"]

_RATE = 20.0
_RETENTION_S = 60
_JOB_TIMEOUT_S = 120
_SETTING = Setting(
    lines=f"retention_s = {_RETENTION_S}\nsync_retention_s = {_RETENTION_S}\n"
    f"job_timeout_s = {_JOB_TIMEOUT_S}\n"
)
_MINUTE_S = 60.0
#: Seconds of a minute before its fault, and between two looks at all records: they go after 60 s.
_BEFORE_S = 5.0
_LOOK_S = 10.0
_BATCH_LINES = 200
_ENDS_WITHIN_S = 150.0
#: What may stay in Redis when every job is over and its retention as well.
_GOES = ("job", "request", "stream", "celery-task-meta-", "idem")


class _Looking:
    """Reads all records again and again into a ledger: none is kept as long as the run goes on."""

    def __init__(self, world: World) -> None:
        self.ledger = Ledger()
        self._world = world
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="looks at records")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        pause_s = _LOOK_S
        while not self._done.wait(pause_s):
            pause_s = _LOOK_S
            try:
                self.ledger.look(self._world.stack.store)
            except (RedisError, QueueUnavailable):
                pause_s = 1.0  # Redis is away, by our own doing.


class _Soak:
    """The run itself: a minute at a time."""

    def __init__(self, world: World, load: Load, report: Report, chance: random.Random) -> None:
        self._world, self._load, self._report, self._chance = world, load, report, chance
        self.samples: list[Sample] = []
        self.audits: list[Audit] = []
        self.recoveries: list[tuple[float | None, float | None]] = []
        self.gap_s = 0.0
        self._faults: dict[str, Callable[[], None]] = {
            "second-keeper": self._second_keeper,
            "second-front-end": self._second_front_end,
        }
        for name, fault in ROUNDS.items():
            self._faults[name] = lambda fault=fault: fault(world, chance)  # type: ignore[misc]
        self._paused = False

    def minute(self, number: int) -> None:
        """One minute of load with a fault in it, and a sample at its end."""
        began = time.monotonic()
        if number % 2 == 1:
            self._load.submit(_BATCH_LINES)
        until(began + _BEFORE_S)
        name = self._next()
        self._faults[name]()
        over = time.monotonic()
        until(max(over + _BEFORE_S, began + _MINUTE_S - _BEFORE_S))
        self.audits.append(audit(self._world))
        until(began + _MINUTE_S)
        now = time.monotonic()
        recovery = self._load.recovery
        self.recoveries.append((recovery.first(over), recovery.full(over, now)))
        gap_s = recovery.longest_gap(began, now)
        self.gap_s = max(self.gap_s, gap_s)
        self.samples.append(sample(self._world, number))
        first, full = (_seconds(value) for value in self.recoveries[-1])
        self._report.say(
            f"minute {number}: {name}", f"first {first}, full {full}, without {gap_s:.2f} s"
        )

    def _next(self) -> str:
        names = [name for name in self._faults if not (self._paused and name == "redis-pause")]
        name = self._chance.choice(names)
        self._paused |= name == "redis-pause"
        return name

    def _second_keeper(self) -> None:
        second = self._world.stack.child("keeper-2", "keeper").start()
        try:
            until(time.monotonic() + 10)
        finally:
            second.kill()

    def _second_front_end(self) -> None:
        """Another process on another port, which is killed when it has answered some chats."""
        stack = self._world.stack
        port = free_port()
        config = stack.folder / "second.toml"
        text = stack.config_file.read_text("utf-8")
        config.write_text(text.replace(f":{stack.port}", f":{port}"), "utf-8")
        second = replace(stack.child("api-2", "api"), environ={"LAKEHOUSE_CONFIG": str(config)})
        self._world.parts["second front end"] = second.start()
        try:
            url = f"http://127.0.0.1:{port}"
            eventually(lambda: _answers(url), what="the second front end answers")
            self._load.ask_at(url, 20)
        finally:
            self._world.kill("second front end")
            del self._world.parts["second front end"]


def run(report: Report, seed: int, minutes: float, folder: Path) -> Trial:
    """So many minutes of load, then the account and what is left."""
    began = time.monotonic()
    with running(seed, _SETTING) as world:
        load = Load(world.stack.url, f"soak-{seed}", seed, _RATE)
        try:
            with _Looking(world) as looking:
                load.start()
                soak = _Soak(world, load, report, random.Random(f"soak {seed}"))  # noqa: S311 - seeded
                for number in range(1, max(1, round(minutes)) + 1):
                    soak.minute(number)
                load.stop()
                open_ = load.finish(_ENDS_WITHIN_S)
                load.collect(_ENDS_WITHIN_S, polls=False)
                ended = until_over(world, load, _ENDS_WITHIN_S)
                until(time.monotonic() + _LOOK_S + 1)
            soak.audits.append(audit(world))
            ledger = looking.ledger
            for batch in load.batches:
                ledger.add_results(batch.results)
            firsts = [first for first, _ in soak.recoveries]
            fulls = [full for _, full in soak.recoveries]
            trial = Trial(
                "soak",
                seed,
                accounted(load.asked, load.batches, ledger, list(world.upstream.log)),
                None if None in firsts else max(first or 0.0 for first in firsts),
                None if None in fulls else max(full or 0.0 for full in fulls),
                soak.gap_s,
                soak.audits,
                world.stack.store.counters(),
                {log: logged(path) for log, path in world.logs().items()},
                time.monotonic() - began,
                open_,
                ended,
            )
            before = len(report.broken)
            figures(report, trial)
            rules(report, trial, world, ledger)
            print_growth(report, soak.samples)
            _gone(report, world)
            trial.broken.extend(report.broken[before:])
            print_table(report, [trial], {})
            save([trial], {}, folder / f"chaos-soak-{seed}.json")
            if trial.broken:
                report.say("the logs are kept in", keep_logs(world, load.name))
        finally:
            load.close()
    return trial


def _gone(report: Report, world: World) -> None:
    """Wait for the end of all retentions; what belongs to a job is gone then."""
    began = time.monotonic()

    def left() -> Counter[str]:
        found = keys_by_kind(world)
        return Counter({kind: found[kind] for kind in _GOES if found[kind]})

    within_s = _RETENTION_S + _JOB_TIMEOUT_S + 2 * _LOOK_S
    while left() and time.monotonic() - began < within_s:
        time.sleep(1)
    report.say("seconds until the last key of a job was gone", f"{time.monotonic() - began:.0f}")
    found = keys_by_kind(world)
    report.say("keys that are left", ", ".join(f"{n} {kind}" for kind, n in sorted(found.items())))
    report.rule(f"no key of a job is left {dict(left()) or ''}".rstrip(), not left())
    acct = world.stack.store.counters()
    report.rule("all that was accepted is retired", acct["accepted"] == acct.get("retired", 0))


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=2).status_code == 200
    except requests.RequestException:
        return False


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"
