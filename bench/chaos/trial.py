"""One fault, once: a fresh world, a load, the fault in the middle of it, and the account."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from bench.chaos.account import accounted
from bench.chaos.check import Auditing, audit, left_over, logged
from bench.chaos.faults import FAULTS, Fault
from bench.chaos.ledger import Ledger
from bench.chaos.load import Load
from bench.chaos.verdict import Trial, figures, keep_logs, rules
from bench.chaos.world import World, running
from bench.scenes.scene import Report
from chat.errors import QueueUnavailable
from tests.waiting import eventually

__all__ = ["run", "until_over"]

_RATE = 40.0
#: Seconds until a run counts as one that does not recover, and as one that does not end.
_RECOVERS_WITHIN_S = 60.0
_ENDS_WITHIN_S = 150.0


@dataclass(frozen=True, slots=True)
class _Times:
    """Seconds of load before and after a fault, between audits, and the lines of the batch."""

    before_s: float
    after_s: float
    audit_s: float
    lines: int


_FULL = _Times(before_s=6, after_s=8, audit_s=4, lines=600)
_QUICK = _Times(before_s=2, after_s=1.5, audit_s=3, lines=200)


def run(name: str, seed: int, report: Report, *, quick: bool = False) -> Trial:
    """Make a fault and hold what came of it to the rules.

    Raises ``NotRun`` when the fault cannot be made here, and ``AssertionError`` when something
    that the run needs does not come.
    """
    began = time.monotonic()
    fault, times = FAULTS[name], _QUICK if quick else _FULL
    broken_before = len(report.broken)
    with running(seed, fault.setting) as world:
        load = Load(world.stack.url, f"{name}-{seed}", seed, _RATE)
        try:
            with Auditing(world, times.audit_s) as audits:
                fault_began, fault_ended, load_ended = _under_load(world, load, fault, times, seed)
            open_ = load.finish(_RECOVERS_WITHIN_S)
            load.collect(_ENDS_WITHIN_S)
            ended = until_over(world, load, _ENDS_WITHIN_S)
            audits.append(audit(world))
            ledger = Ledger()
            ledger.look(world.stack.store)
            for batch in load.batches:
                ledger.add_results(batch.results)
            account = accounted(load.asked, load.batches, ledger, list(world.upstream.log))
            trial = Trial(
                name,
                seed,
                account,
                load.recovery.first(fault_ended),
                load.recovery.full(fault_ended, load_ended),
                load.recovery.longest_gap(fault_began, load_ended),
                audits,
                world.stack.store.counters(),
                {log: logged(path) for log, path in world.logs().items()},
                time.monotonic() - began,
                open_,
                ended,
            )
            figures(report, trial)
            rules(report, trial, world, ledger, forgets=fault.forgets)
            trial.broken.extend(report.broken[broken_before:])
            if trial.broken:
                report.say("the logs are kept in", keep_logs(world, load.name))
        finally:
            load.close()
    return trial


def _under_load(
    world: World, load: Load, fault: Fault, times: _Times, seed: int
) -> tuple[float, float, float]:
    """The load with the fault in it; when the fault began, when it ended, when the load did."""
    load.start()
    time.sleep(times.before_s - 1)
    load.submit(times.lines)
    time.sleep(1)
    began = time.monotonic()
    fault.run(world, random.Random(f"fault {seed}"))  # noqa: S311 - seeded
    ended = time.monotonic()
    give_up = ended + _RECOVERS_WITHIN_S
    while time.monotonic() < give_up:
        time.sleep(0.2)
        now = time.monotonic()
        if now - ended >= times.after_s and load.recovery.full(ended, now) is not None:
            break
    load.stop()
    return began, ended, time.monotonic()


def until_over(world: World, load: Load, within_s: float) -> bool:
    """Wait until no job is alive and nothing of any is left; whether all ended in that time."""

    def over() -> bool:
        try:
            return not any(world.alive().values())
        except QueueUnavailable:
            return False

    try:
        eventually(over, within_s=within_s, what="every job ends")
        # A wake-up that was sent twice is taken soon after its job is over.
        eventually(lambda: not left_over(world), within_s=10)
    except AssertionError:
        return over() and load.over
    return load.over
