"""Whatever is killed, every accepted job ends exactly once: the proof.

    python -m bench.chaos [FAULT …] [--seed N | --seeds 1,2,3] [--quick] [--list]
    python -m bench.chaos soak [--minutes 30] [--seed N]

Each fault is made in the middle of a mixed load, in a chatd of its own with two workers, before an
upstream that counts every call. Then all that was accepted is accounted for, by what its senders
were told, by records and results, and by the calls the upstream saw. The exit code is 1 when a rule
was broken. ``soak`` is one chatd for half an hour with a fault each minute. The figures are also
written to var/chaos-SEED.json.

``--quick`` shortens the load and leaves out what takes more than 20 s, unless it is named.
disk-full needs the right to mount; without it the fault counts as not run.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.chaos import soak, trial
from bench.chaos.faults import FAULTS
from bench.chaos.table import print_summary, print_table, save
from bench.chaos.verdict import Trial
from bench.chaos.world import NotRun
from bench.scenes.scene import Report
from chat.errors import ConfigError

__all__ = ["main"]

_FOLDER = Path("var")


def main(arguments: list[str]) -> int:
    """Make the faults named, or all; 1 when a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="see --list; or: soak")
    parser.add_argument("--seed", type=int, default=1, help="what chance begins with")
    parser.add_argument("--seeds", help="several of them, with commas in between")
    parser.add_argument("--quick", action="store_true", help="short, not to be quoted")
    parser.add_argument("--minutes", type=float, default=30, help="how long soak goes on")
    parser.add_argument("--list", action="store_true", help="what there is")
    options = parser.parse_args(arguments)
    if options.list:
        for name, fault in FAULTS.items():
            print(f"{name:<20} {fault.says}")
        return 0
    # An orderly end also for SIGTERM: all processes are stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    report = Report()
    if options.faults == ["soak"]:
        soak.run(report, options.seed, options.minutes, _FOLDER)
        return _verdict(report)
    for name in options.faults:
        if name not in FAULTS:
            parser.error(f"there is no fault {name!r}; choose from {', '.join(FAULTS)}")
    seeds = [int(text) for text in (options.seeds or str(options.seed)).split(",")]
    names = options.faults or [
        name for name, fault in FAULTS.items() if fault.quick or not options.quick
    ]
    trials: list[Trial] = []
    for seed in seeds:
        trials += _run(report, names, seed, quick=options.quick)
    if len(seeds) > 1:
        print(f"all seeds: {', '.join(map(str, seeds))}", flush=True)
        print_summary(report, trials)
    return _verdict(report, not_run=len(names) * len(seeds) - len(trials))


def _run(report: Report, names: Sequence[str], seed: int, *, quick: bool) -> list[Trial]:
    """Make these faults with one seed, print their table and save it."""
    trials: list[Trial] = []
    not_run: dict[str, str] = {}
    for name in names:
        print(f"{name}, seed {seed}: {FAULTS[name].says}", flush=True)
        try:
            trials.append(trial.run(name, seed, report, quick=quick))
        except NotRun as error:
            not_run[name] = str(error)
            report.say("not run", error)
        except (AssertionError, ConfigError) as error:
            # What was waited for did not come, or chatd did not start; the others can be made.
            not_run[name] = str(error)
            report.rule(f"{name} ran to its end: {error}", holds=False)
        else:
            report.say("seconds this took", f"{trials[-1].seconds:.0f}")
    print(f"seed {seed}", flush=True)
    print_table(report, trials, not_run)
    save(trials, not_run, _FOLDER / f"chaos-{seed}.json")
    return trials


def _verdict(report: Report, not_run: int = 0) -> int:
    broken = len(report.broken)
    aside = f"; {not_run} faults were not run, and prove nothing" if not_run else ""
    print(f"{f'{broken} rules broken' if broken else 'every rule that was checked holds'}{aside}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
