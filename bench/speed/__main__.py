"""How fast chatd is, beside others, in one sitting.

    python -m bench.speed throughput [--connections 16,64,256,1000]
    python -m bench.speed latency
    python -m bench.speed frontier
    python -m bench.speed profile
    python -m bench.speed capacity|drain|submit|backlog|workers
    python -m bench.speed install litellm|portkey

Each prints the machine, the versions and a table, and keeps all figures in var/bench. The systems
(``--systems``) are chatd with all it does by default, the upstream alone, a gateway of Flask and
Celery as tutorials build it, and LiteLLM's and Portkey's gateways where they are installed. All are
measured in two passes of opposite order; the figures of both are shown, for the noise of a machine
that is not alone is in their difference. Every answer is held against its question; the exit code
is 1 when chatd lost one, mixed one up or was late.

``throughput``: requests/s, CPU and memory under callers who ask without pause. ``latency``: what is
added to the upstream's time with 1 and 16 of them. ``frontier``: the most requests/s with the p99
within 5 to 100 ms of the upstream's own time. ``profile``: flame graphs of chatd under load. The
tables of queue and jobs (``bench.speed.queue_tables``): ``capacity``, a thousand calls held;
``drain``, ten thousand queued jobs worked off; ``submit``, jobs and batches accepted; ``backlog``,
the cost of a job while up to a million wait; ``workers``, what more of them and of providers bring.
``--quick`` shows that it works; its figures are not to be quoted.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.processes import allow_descriptors
from bench.scenes.scene import Report
from bench.speed import frontier, latency, throughput
from bench.speed.machine import describe, save
from bench.speed.measure import Run
from bench.speed.passes import Plan, turns
from bench.speed.profile import profile
from bench.speed.proxies import INSTALLERS
from bench.speed.queue_tables import TABLES
from bench.speed.systems import SYSTEMS

__all__ = ["main"]


def _throughput(report: Report, plan: Plan) -> Sequence[Run]:
    described = describe(plan.systems)
    runs = turns(plan)
    save("throughput", described, runs, ratios=throughput.show(report, runs))
    return runs


def _latency(report: Report, plan: Plan) -> Sequence[Run]:
    described = describe(plan.systems)
    runs, trips = latency.measure(plan)
    ratios = latency.show(report, runs, trips, plan.delay_s)
    save("latency", described, runs, ratios=ratios, redis_trips_ms=trips)
    return runs


def _frontier(report: Report, plan: Plan) -> Sequence[Run]:
    described = describe(plan.systems)
    runs = frontier.measure(plan)
    frontier.show(report, runs)
    save("frontier", described, runs)
    return runs


def _profile(_: Report, plan: Plan) -> Sequence[Run]:
    profile(plan)
    return ()


@dataclass(frozen=True, slots=True)
class _Table:
    """A command, and what it measures unless the options say else."""

    run: Callable[[Report, Plan], Sequence[Run]]
    connections: str
    runs: int
    seconds: float


_TABLES = {
    "throughput": _Table(_throughput, "256", 3, 4),
    "latency": _Table(_latency, "1,16", 3, 5),
    "frontier": _Table(_frontier, "1", 1, 3),
    "profile": _Table(_profile, "256", 1, 15),
}


def main(arguments: list[str]) -> int:
    """Print the table that is asked for; 1 when chatd failed somebody."""
    parser = argparse.ArgumentParser(prog="python -m bench.speed")
    commands = parser.add_subparsers(dest="table", required=True, metavar="TABLE")
    for name, table in _TABLES.items():
        command = commands.add_parser(name)
        command.add_argument("--systems", default=",".join(SYSTEMS), help="default: %(default)s")
        command.add_argument("--connections", default=table.connections, help="%(default)s")
        command.add_argument("--runs", type=int, default=table.runs, help="in each pass")
        command.add_argument("--seconds", type=float, default=table.seconds, help="of each run")
        command.add_argument("--delay-ms", type=float, default=50, help="of the upstream")
        command.add_argument("--quick", action="store_true", help="to see it work")
    for name in TABLES:
        command = commands.add_parser(name)
        command.add_argument("--runs", type=int, help="of each measure in each pass")
        command.add_argument("--quick", action="store_true", help="a tenth, to see it work")
    install = commands.add_parser("install")
    install.add_argument("system", choices=INSTALLERS)
    options = parser.parse_args(arguments)
    if options.table == "install":
        INSTALLERS[options.system]()
        return 0
    # An orderly end also for SIGTERM: all processes are stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    allow_descriptors()
    if options.table in TABLES:
        return TABLES[options.table](quick=options.quick, runs=options.runs)
    systems = options.systems.split(",")
    for name in systems:
        if name not in SYSTEMS:
            parser.error(f"there is no system {name!r}; choose from {', '.join(SYSTEMS)}")
    plan = Plan(
        systems,
        [int(text) for text in options.connections.split(",")],
        1 if options.quick else options.runs,
        min(options.seconds, 1.0) if options.quick else options.seconds,
        options.delay_ms / 1000,
        quick=options.quick,
    )
    runs = _TABLES[options.table].run(Report(), plan)
    if options.quick:
        print("quick: it works; the figures are not to be quoted")
    failed = sum(run.failed + run.twice for run in runs if run.system == "chatd")
    if failed:
        print(f"chatd failed {failed} requests")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
