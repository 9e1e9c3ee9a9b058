"""The HTTP surface against its own OpenAPI document, with requests that nobody would write.

    python -m bench.contract [--examples 50] [--seed S] [--quick]

Schemathesis reads /openapi.json of a chatd of real processes and sends to every operation what the
document allows, what it forbids, and chains of calls in which one uses what another has answered.
An answer is a finding if its status, headers or body are not in the document, if it is a 500, if
what the document allows is refused, or if what it forbids is accepted. A refusal that no schema
can express has to fit a rule of ``bench.contract.rules``. Each finding is printed with a request
that shows it; the exit code is 1 when there is one.

``--examples`` is how many requests an operation gets beside those that are the same each time. The
others are the same as well without ``--seed``. 50 take about five minutes; ``--quick`` leaves out
most of those that are the same each time.
"""

from __future__ import annotations

import argparse
import sys
import time

from bench.contract.explore import Exploration, explore
from bench.contract.world import filled, running
from bench.scenes.scene import Report

__all__ = ["main"]


def _print(report: Report, found: Exploration, seconds: float) -> None:
    report.table(
        ("operation", "examples", "statuses", "findings"),
        (
            (
                label,
                counts.total(),
                " ".join(f"{status}:{count}" for status, count in sorted(counts.items())),
                sum(finding.operation == label for finding in found.findings.values()),
            )
            for label, counts in sorted(found.statuses.items())
        ),
    )
    print()
    report.table(("check", "answers"), sorted(found.checks.items()))
    print()
    report.table(("refused by a rule that no schema has", "answers"), found.beyond.most_common())
    for finding in found.findings.values():
        print(f"\n{finding.check}, {finding.operation}: {finding.what}")
        print(f"{finding.request}\n=> {finding.answer}")
    told = (len(found.statuses), found.requests, len(found.findings), f"{seconds:.0f}")
    print()
    report.say("operations; examples; findings; seconds", "; ".join(map(str, told)))


def main(arguments: list[str]) -> int:
    """Explore as asked; 1 when there is a finding."""
    parser = argparse.ArgumentParser(prog="python -m bench.contract")
    parser.add_argument("--examples", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--seed", type=int, help="for other requests than always")
    parser.add_argument("--quick", action="store_true", help="as the tests do it")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    with running() as stack:
        found = explore(
            stack.url,
            filled(stack),
            examples=options.examples,
            seed=options.seed,
            quick=options.quick,
        )
    _print(Report(), found, time.monotonic() - began)
    return 1 if found.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
