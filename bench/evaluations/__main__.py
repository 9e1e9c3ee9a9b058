"""What evaluations promise: figures that a plain computation has too, whatever is killed.

    python -m bench.evaluations [run | compare | retry | cache …] [--samples 2000] [--quick]

Real processes on loopback before upstreams that follow a script: wrong answers, errors, 429s, a
judge that sometimes says nothing. Each scenario prints what it counted and the rules it checked;
the exit code is 1 when a rule was broken. All of them take about five minutes.
"""

from __future__ import annotations

import argparse
import sys

from bench.evaluations.scenarios import SCENARIOS
from bench.scenes.scene import Report

_QUICK = 120


def main(arguments: list[str]) -> int:
    """Run the scenarios named; 1 when a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m bench.evaluations")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--samples", type=int, default=2000, help="of the scenario run")
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK} samples")
    options = parser.parse_args(arguments)
    for name in options.scenarios:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name!r}; choose from {', '.join(SCENARIOS)}")
    report = Report()
    for name in options.scenarios or SCENARIOS:
        samples = options.samples if name == "run" else min(options.samples, 300)
        print(f"{name}: {(SCENARIOS[name].__doc__ or '').splitlines()[0]}", flush=True)
        SCENARIOS[name](report, _QUICK if options.quick else samples)
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
