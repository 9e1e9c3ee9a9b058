"""What budgets promise: one scenario per claim, on real processes before an upstream with limits.

    python -m bench.budget [SCENARIO …] [--quick] [--svg FILE]

Scenarios: learn, drop, chart, free, kill, cooldown, cap; without a name: all of them, which takes
about half an hour. Each prints what it counted and the rules it checked; the exit code is 1 when a
rule was broken. ``--quick`` shortens each to at most four minutes: it shows that things work, and
its figures are not to be quoted. ``chart`` writes its picture to ``--svg``, which is
var/budget-chart.svg if not said else.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.scenes.kills import kill
from bench.scenes.lanes import chart
from bench.scenes.queues import cap, cooldown, free
from bench.scenes.rates import drop, learn
from bench.scenes.scene import Report, Run

__all__ = ["SCENARIOS", "main"]

SCENARIOS: dict[str, Callable[[Report, Run], None]] = {
    "learn": learn,
    "drop": drop,
    "chart": chart,
    "free": free,
    "kill": kill,
    "cooldown": cooldown,
    "cap": cap,
}


def main(arguments: list[str]) -> int:
    """Run the scenarios named; 1 when a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m bench.budget")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--quick", action="store_true", help="short runs, not to be quoted")
    parser.add_argument("--svg", type=Path, default=Run().svg, help="where chart draws")
    options = parser.parse_args(arguments)
    for name in options.scenarios:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name!r}; choose from {', '.join(SCENARIOS)}")
    # An orderly end also for SIGTERM: the processes of a scenario are stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    report = Report()
    for name in options.scenarios or SCENARIOS:
        scenario = SCENARIOS[name]
        print(f"{name}: {(scenario.__doc__ or '').splitlines()[0]}", flush=True)
        began = time.monotonic()
        try:
            scenario(report, Run(quick=options.quick, svg=options.svg))
        except AssertionError as error:
            # Something that was waited for did not come; the other scenarios can still run.
            report.rule(f"{name} ran to its end: {error}", holds=False)
        report.say("seconds this took", f"{time.monotonic() - began:.0f}")
    broken = report.broken
    print(f"{len(broken)} rules broken" if broken else "every rule holds")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
