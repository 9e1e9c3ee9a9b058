"""chatd on several hosts: what that costs, and what becomes of callers when a link is cut.

    python -m bench.hosts [--quick]

Every host is a network namespace on one bridge, so it needs root. First the same load on one host
and over hosts, with a second front end and a second worker; then, under a steady load of chats and
jobs at both front ends, each link is cut and healed. What was asked is held against the ledger and
against the calls that the upstream saw. Prints two tables and the rules that it checked; the exit
code is 1 when a rule was broken, and 2 when this machine cannot have hosts.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.chaos.account import Account
from bench.chaos.load import ACCEPTED, ANSWERED
from bench.load import Result, run
from bench.scenes.scene import Report, percentile
from tests.cluster import HOSTS, Cluster, FrontEnd
from tests.hosts import Cut, Network, missing
from tests.waiting import eventually

__all__ = ["FAULTS", "main"]

_PERMITS = 32
_CLIENTS = 32
#: Requests a second at each front end, and seconds that the upstream takes.
_RATE = 10.0
_CALL_S = 0.5
#: Seconds of load before a link is cut, and of full rate after it is healed that end a fault.
_BEFORE_S, _AFTER_S = 3.0, 2.0
_BACK_WITHIN_S = 60.0
#: Seconds that links are cut; a worker's longer than its lease.
_CUT_S, _LONG_S = 12.0, 35.0


def _cut(host: str, how: Cut, seconds: float) -> Callable[[Cluster], None]:
    def fault(cluster: Cluster) -> None:
        cluster.network[host].cut(how)
        time.sleep(seconds)
        cluster.network[host].heal()

    return fault


def _power(cluster: Cluster) -> None:
    """The Redis host is off for as long, and its connections are forgotten."""
    host = cluster.network["redis"]
    host.cut(Cut.SILENT)
    cluster.redis.kill()
    time.sleep(_CUT_S)
    eventually(lambda: host.connections() == 0, what="its kernel has forgotten all connections")
    cluster.start_redis()
    host.heal()


def _lose_redis(cluster: Cluster) -> None:
    """The first worker's host loses what it sends to Redis, and reaches its upstream."""
    cluster.network["work1"].lose(cluster.network["redis"])
    time.sleep(_LONG_S)
    cluster.network["work1"].heal()


def _come_and_go(cluster: Cluster) -> None:
    """A third worker comes, the first one is told to stop, and then the third."""
    known = set(cluster.seen())
    third = cluster.add_worker("work2")
    eventually(lambda: set(cluster.seen()) > known, what="a third worker")
    cluster.workers["worker-1"].stop(60)
    cluster.workers["worker-1"].start()
    eventually(lambda: set(cluster.seen()) > known, what="the first worker is back")
    third.stop(60)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done under load, and for how many seconds a link is cut."""

    run: Callable[[Cluster], None]
    seconds: float = _CUT_S


FAULTS: dict[str, Fault] = {
    "Redis, silent loss": Fault(_cut("redis", Cut.SILENT, _CUT_S)),
    "Redis, link down": Fault(_cut("redis", Cut.DOWN, _CUT_S)),
    "Redis host without power": Fault(_power),
    "a front end, silent loss": Fault(_cut("front1", Cut.SILENT, _CUT_S)),
    "keeper, silent loss": Fault(_cut("keeper", Cut.SILENT, _CUT_S)),
    "upstream, silent loss": Fault(_cut("upstream", Cut.SILENT, _CUT_S)),
    "a worker, silent loss": Fault(_cut("work1", Cut.SILENT, _LONG_S), _LONG_S),
    "a worker loses Redis only": Fault(_lose_redis, _LONG_S),
    "workers come and go": Fault(_come_and_go, 0),
}
_QUICK = ("Redis, silent loss", "workers come and go")


@dataclass(frozen=True, slots=True)
class Struck:
    """What came of one fault: the account, and seconds from the healing to service."""

    account: Account
    told: Counter[str]
    first_s: float | None
    full_s: float | None


def _throughput(cluster: Cluster, name: str, count: int) -> tuple[str, Result]:
    """So many chats through all front ends at once, by as many clients in all whatever they are."""
    fronts = list(cluster.fronts.values())

    def ask(front: FrontEnd, chats: int, tag: str) -> Result:
        with front.host.inside():
            share = _CLIENTS // len(fronts)
            return run(front.url, count=chats // len(fronts), clients=share, tag=tag)

    def all_ask(chats: int, tag: str) -> list[Result]:
        with ThreadPoolExecutor(len(fronts)) as pool:
            asked = [
                pool.submit(ask, front, chats, f"{name} {number} {tag}")
                for number, front in enumerate(fronts)
            ]
            return [each.result() for each in asked]

    all_ask(count // 5, "warm")
    results = all_ask(count, "q")
    whole = Result(
        sent=sum(result.sent for result in results),
        right=sum(result.right for result in results),
        wrong=sum(result.wrong for result in results),
        errors=dict(sum((Counter(result.errors) for result in results), Counter())),
        seconds=max(result.seconds for result in results),
        latencies_ms=[each for result in results for each in result.latencies_ms],
    )
    return name, whole


def _strike(cluster: Cluster, name: str, fault: Fault) -> Struck:
    cluster.upstream.delay_s = _CALL_S
    with ExitStack() as stack:
        loads = [
            stack.enter_context(front.load(f"{name.replace(' ', '-')}-{host}", _RATE))
            for host, front in cluster.fronts.items()
        ]
        time.sleep(_BEFORE_S)
        fault.run(cluster)
        healed = time.monotonic()
        while time.monotonic() < healed + _BACK_WITHIN_S:
            time.sleep(0.2)
            until = time.monotonic() - _AFTER_S
            if all(load.recovery.full(healed, until) is not None for load in loads):
                break
        ended = time.monotonic()
    return Struck(
        cluster.account(*loads),
        Counter(one.said for load in loads for one in load.asked),
        _last([load.recovery.first(healed) for load in loads]),
        _last([load.recovery.full(healed, ended) for load in loads]),
    )


def _last(seconds: Sequence[float | None]) -> float | None:
    """The latest of all, if all came."""
    known = [each for each in seconds if each is not None]
    return max(known) if len(known) == len(seconds) else None


def _speeds(report: Report, rows: Sequence[tuple[str, Result]]) -> None:
    base = rows[0][1].per_second
    report.table(
        ("front ends, workers", "chats/s", "of one host", "p50 ms", "p99 ms"),
        [
            (
                name,
                f"{result.per_second:.0f}",
                f"{result.per_second / base:.2f}",
                f"{percentile(result.latencies_ms, 0.5):.0f}",
                f"{percentile(result.latencies_ms, 0.99):.0f}",
            )
            for name, result in rows
        ],
    )
    for name, result in rows:
        report.rule(f"{name}: every chat has the right answer", result.right == result.sent)


def _faults(report: Report, struck: dict[str, Struck]) -> None:
    rows = []
    for name, one in struck.items():
        failed = +Counter({k: n for k, n in one.told.items() if k not in (ANSWERED, ACCEPTED)})
        rows.append(
            (
                name,
                f"{FAULTS[name].seconds:g}",
                one.told.total(),
                one.told[ANSWERED],
                one.told[ACCEPTED],
                _listed(failed),
                len(one.account.lost),
                one.account.extra,
                _listed(one.account.reasons),
                _shown(one.first_s),
                _shown(one.full_s),
            )
        )
    head = ("fault", "cut s", "sent", "answered", "jobs", "errors told", "lost", "calls twice")
    report.table((*head, "in the ledger as", "first s", "full s"), rows)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "-"


def _shown(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f}"


def _rules(report: Report, name: str, cluster: Cluster, one: Struck) -> None:
    account = one.account
    for what, found in (
        ("no job is lost", account.lost),
        ("each call is in a ledger", account.unexplained),
        ("no answer is wrong", account.wrong),
        ("nobody was told something else than the record says", account.contradictions),
        ("one job for each request", account.twins),
    ):
        told = f": {', '.join(map(str, found[:3]))}" if found else ""
        report.rule(f"{name}: {what}{told}", not found)
    report.rule(f"{name}: the full rate comes back", one.full_s is not None)
    report.rule(f"{name}: chatd audit finds no breach", not cluster.audit()["broken"])


def main(argv: Sequence[str]) -> int:
    """Both tables; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.hosts")
    parser.add_argument("--quick", action="store_true", help="short, not to be quoted")
    quick: bool = parser.parse_args(argv).quick
    lacking = missing()
    if lacking:
        print(f"hosts in network namespaces need {lacking}", file=sys.stderr)
        return 2
    # An orderly end also for SIGTERM: all processes are stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    report = Report()
    count = 300 if quick else 1000
    speeds: list[tuple[str, Result]] = []
    struck: dict[str, Struck] = {}
    with tempfile.TemporaryDirectory(prefix="chatd-hosts-") as folder:
        with (
            Network(["one"]) as network,
            Cluster(
                Path(folder) / "one",
                network,
                front_ends=["front1"],
                workers=["work1"],
                concurrency=_PERMITS,
                together="one",
            ) as cluster,
        ):
            speeds.append(_throughput(cluster, "1, 1 on one host", count))
        with (
            Network(HOSTS) as network,
            Cluster(
                Path(folder) / "many",
                network,
                front_ends=["front1"],
                workers=["work1"],
                concurrency=_PERMITS,
            ) as cluster,
        ):
            speeds.append(_throughput(cluster, "1, 1 over hosts", count))
            cluster.add_front_end("front2")
            speeds.append(_throughput(cluster, "2, 1 over hosts", count))
            cluster.add_worker("work2")
            eventually(lambda: len(cluster.seen()) == 2, within_s=60, what="two workers")
            speeds.append(_throughput(cluster, "2, 2 over hosts", count))
            print(f"{count} chats, {_CLIENTS} clients in all, an upstream that answers at once")
            _speeds(report, speeds)
            print(f"{2 * _RATE:g} requests/s at two front ends, the upstream takes {_CALL_S:g} s")
            for name in _QUICK if quick else FAULTS:
                before = cluster.pids()
                struck[name] = _strike(cluster, name, FAULTS[name])
                _rules(report, name, cluster, struck[name])
                if FAULTS[name].seconds:
                    same = cluster.pids() == before
                    report.rule(f"{name}: no process had to be started anew", same)
            _faults(report, struck)
    broken = len(report.broken)
    print(f"{broken} rules broken" if broken else "every rule that was checked holds")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
