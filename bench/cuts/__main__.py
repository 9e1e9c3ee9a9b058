"""Each script's atomicity, and that of whatever stands between two of them, shown by a proxy.

    python -m bench.cuts [--process worker|keeper|api …] [--life NAME …] [--mode kill|cut …]
                         [--quick] [--most N]

A process of chatd reaches Redis through a proxy. At its first command, its second, its third and so
on, until the job ends before that command comes, it is killed with -9 or all its connections are
reset: in one run of lives before the command reaches Redis, in another after Redis has answered and
before the process hears it. Each time the job has to end exactly once, with an upstream call for
each attempt of its ledger at the most, and the books have to add up. A process that only lost its
connections may not cost a second call.

The keeper's regular rounds go on beside the job, so that the commands of its lives are many: what
it only reads is not counted, and no more than the first ``--most`` of a life are struck. What would
take long is done by the bench with the same means: a wake-up that a worker took to its grave is
sent again at once and not after thirty seconds, and the lock of a dead keeper goes at once and not
after five.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time

from bench.cuts.lives import LIVES, Life
from bench.cuts.run import MOST, play
from bench.cuts.world import Action, running
from bench.scenes.scene import Report

__all__ = ["main"]


def _chosen(options: argparse.Namespace) -> list[Life]:
    return [
        life
        for life in LIVES
        if life.process in options.process
        and life.name in options.life
        and (life.quick or not options.quick)
    ]


def main(arguments: list[str]) -> int:
    """Run the lives that were asked for; 1 when a rule was broken."""
    processes = list(dict.fromkeys(life.process for life in LIVES))
    names = [life.name for life in LIVES]
    modes = [action.value for action in Action]
    parser = argparse.ArgumentParser(prog="python -m bench.cuts")
    parser.add_argument("--process", nargs="+", choices=processes, default=processes)
    parser.add_argument("--life", nargs="+", choices=names, default=names)
    parser.add_argument("--mode", nargs="+", choices=modes, default=modes)
    parser.add_argument("--most", type=int, default=MOST, help="of one life (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="only the most common lives")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    report, actions, chosen = Report(), [Action(mode) for mode in options.mode], _chosen(options)
    began, lives, struck = time.monotonic(), 0, 0
    for process in processes:
        own = [life for life in chosen if life.process == process]
        if not own:
            continue
        with running(process) as world:
            for life in own:
                tally = play(world, life, report, actions=actions, most=options.most)
                lives, struck = lives + tally.lives, struck + tally.struck.total()
    report.say("lives; strikes; seconds", f"{lives}; {struck}; {time.monotonic() - began:.0f}")
    print(f"{len(report.broken)} rules broken" if report.broken else "every rule holds")
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
