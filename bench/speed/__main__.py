"""The tables of the speed benches.

python -m bench.speed TABLE [--quick] [--runs N]
"""

from __future__ import annotations

import argparse
import signal
import sys

from bench.processes import allow_descriptors
from bench.speed.queue_tables import TABLES


def main(arguments: list[str]) -> int:
    """Print one table; 1 when something was lost or answered wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.speed")
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--runs", type=int, help="runs of each measure in each pass")
    options = parser.parse_args(arguments)
    allow_descriptors()
    # An orderly end also for SIGTERM: what was started is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    further = {} if options.runs is None else {"runs": options.runs}
    return TABLES[options.table](quick=options.quick, **further)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
