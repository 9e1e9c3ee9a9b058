"""What streams through chatd do: how late they come, what breaks them, and what each client sees.

    python -m bench.streams first-token [--streams 1,100] [--tokens 100] [--per-second 50]
    python -m bench.streams first-token --real
    python -m bench.streams resume [--streams 500] [--drops 4]
    python -m bench.streams hang-up [--tries 100]
    python -m bench.streams kill [--times 5]
    python -m bench.streams gateway [--seconds 300]

Each starts all of chatd before a scripted upstream that streams at a set pace, and prints a table
and the rules that it checked; all figures are kept in var/bench. Upstream and clients are processes
of their own, which count every event and hold each text against its script, byte for byte. The exit
code is 1 when a rule was broken.

``first-token``: when the first token and each other one comes, beside the same upstream asked
directly, and the CPU of each process for each token; with ``--real`` the model of `make demo`, one
stream at a time. ``resume``: streams left at random points and resumed, by key and by job.
``hang-up``: how long until the upstream sees it. ``kill``: kill -9 of the worker in mid-stream.
``gateway``: nginx before it all, and streams of minutes. ``--quick`` shows that it works; its
figures are not to be quoted.
"""

from __future__ import annotations

import argparse
import signal
import sys

from bench.processes import allow_descriptors
from bench.streams.first_token import first_token
from bench.streams.hang_up import hang_up
from bench.streams.kill import kill
from bench.streams.real import real
from bench.streams.resume import resume
from bench.streams.through import through
from tests.nginx import binary

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.streams")
    commands = parser.add_subparsers(dest="table", required=True, metavar="TABLE")

    def command(name: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name)
        made.add_argument("--quick", action="store_true", help="to see it work")
        return made

    first = command("first-token")
    first.add_argument("--streams", default="1,100", help="at the same time; %(default)s")
    first.add_argument("--tokens", type=int, default=100, help="of a stream; %(default)s")
    first.add_argument("--per-second", type=float, default=50, help="of each stream; %(default)s")
    first.add_argument("--seconds", type=float, default=25, help="of each run; %(default)s")
    first.add_argument("--real", action="store_true", help="the model of make demo")
    first.add_argument("--rounds", type=int, default=40, help="with --real; %(default)s")
    again = command("resume")
    again.add_argument("--streams", type=int, default=500, help="%(default)s")
    again.add_argument("--at-once", type=int, default=100, help="%(default)s")
    again.add_argument("--tokens", type=int, default=100, help="of a stream; %(default)s")
    again.add_argument("--drops", type=int, default=4, help="of each stream; %(default)s")
    command("hang-up").add_argument("--tries", type=int, default=100, help="%(default)s")
    command("kill").add_argument("--times", type=int, default=5, help="%(default)s")
    gateway = command("gateway")
    gateway.add_argument("--seconds", type=float, default=300, help="of a stream; %(default)s")
    gateway.add_argument("--streams", default="1,50", help="at the same time; %(default)s")
    return parser


def _run(options: argparse.Namespace) -> int:
    quick: bool = options.quick
    if options.table == "resume":
        return resume(
            streams=50 if quick else options.streams,
            lanes=options.at_once,
            tokens=options.tokens,
            drops=options.drops,
        )
    if options.table == "hang-up":
        return hang_up(tries=16 if quick else options.tries)
    if options.table == "kill":
        return kill(times=1 if quick else options.times)
    streams = [int(text) for text in options.streams.split(",")]
    if options.table == "gateway":
        seconds = 8.0 if quick else options.seconds
        return through(minutes_s=seconds, lanes=streams, seconds=2.0 if quick else 15.0)
    if options.real:
        return real(rounds=3 if quick else options.rounds)
    return first_token(
        quick=quick,
        streams=streams,
        tokens=options.tokens,
        per_second=options.per_second,
        seconds=2.0 if quick else options.seconds,
    )


def main(arguments: list[str]) -> int:
    """Print the table that is asked for; 1 when a rule was broken."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.table == "gateway" and binary() is None:
        parser.error("there is no nginx on this machine; install it")
    # An orderly end also for SIGTERM: all processes are stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    allow_descriptors()
    broken = _run(options)
    if options.quick:
        print("quick: it works; the figures are not to be quoted")
    return broken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
