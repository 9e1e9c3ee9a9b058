"""Requests/s, CPU and memory of each system under many callers who ask without pause."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from bench.scenes.scene import Report
from bench.speed.figures import RATIO_HEAD, Bound, Figure, figure, of, ratio, ratio_row
from bench.speed.measure import Run

__all__ = ["show"]

#: What is promised with this many connections.
_AT = 256
_RATES = {
    "litellm": Bound("requests/s, x LiteLLM", 8, 15),
    "portkey": Bound("requests/s, x Portkey", 1, 1.8),
    "textbook": Bound("requests/s, x textbook", 4),
}
_CPU = Bound("CPU per request, LiteLLM's / chatd's", 6, 12)


def show(report: Report, runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Print the tables; the rows of ratios."""
    keys = list(dict.fromkeys((run.connections, run.system) for run in runs))
    keys.sort(key=lambda key: key[0])
    head = ("system", "conn.", "requests/s", "CPU ms", "p50 ms", "p99 ms", "MiB")
    rows = []
    for connections, system in keys:
        found = of(runs, system, connections)
        counts = [run.counts for run in found]
        failed = [sum(count[name] for count in counts) for name in ("lost", "wrong", "late")]
        errors = sum(sum(count["errors"].values()) for count in counts)
        rows.append(
            (
                system,
                connections,
                _text(figure(found, lambda run: run.per_second)),
                _text(figure(found, lambda run: run.all_cpu_ms), 2),
                _text(figure(found, lambda run: run.p50_ms), 1),
                _text(figure(found, lambda run: run.p99_ms), 1),
                _text(figure(found, lambda run: run.all_memory_mib)),
                sum(count["asked"] for count in counts),
                "/".join(map(str, (*failed, errors))),
                sum(run.twice for run in found),
            )
        )
    print("\nmedians of pass 1 / pass 2; CPU of all components, for each request", flush=True)
    report.table((*head, "asked", "lost/wrong/late/errors", "called twice"), rows)
    print("\nCPU in ms for each request, and MiB, by component (medians of all runs)", flush=True)
    report.table(("system", "conn.", "component", "CPU ms", "MiB"), _components(runs, keys))
    print("\nchatd as a multiple of the others", flush=True)
    ratios = [
        row
        for connections in sorted({key[0] for key in keys})
        for row in _ratios(runs, connections)
    ]
    report.table(RATIO_HEAD, ratios)
    return ratios


def _components(runs: Sequence[Run], keys: Iterable[tuple[int, str]]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for connections, system in keys:
        found = of(runs, system, connections)
        for name in found[0].cpu_ms:
            cpu = figure(found, partial(_cpu_ms, name))
            memory = figure(found, partial(_memory_mib, name))
            rows.append((system, connections, name, _all(cpu, 3), _all(memory)))
        upstream = figure(found, lambda run: run.upstream_ms)
        generator = figure(found, lambda run: run.generator_ms)
        rows.append((system, connections, "(upstream)", _all(upstream, 3), ""))
        rows.append((system, connections, "(generator)", _all(generator, 3), ""))
    return rows


def _cpu_ms(component: str, run: Run) -> float:
    return run.cpu_ms[component]


def _memory_mib(component: str, run: Run) -> float:
    return run.memory_mib[component]


def _ratios(runs: Sequence[Run], connections: int) -> list[tuple[str, ...]]:
    """The promises hold for ``_AT`` connections; with others the ratios are only told."""
    chatd = _whole(of(runs, "chatd", connections))
    rate = figure(chatd, lambda run: run.per_second)
    rows = []
    for other, bound in _RATES.items():
        base = figure(_whole(of(runs, other, connections)), lambda run: run.per_second)
        rows.append(_row(bound, connections, ratio(rate, base)))
    cpu = figure(chatd, lambda run: run.all_cpu_ms)
    base = figure(_whole(of(runs, "litellm", connections)), lambda run: run.all_cpu_ms)
    rows.append(_row(_CPU, connections, ratio(base, cpu)))
    return rows


def _whole(runs: Sequence[Run]) -> list[Run]:
    """Those that lasted for an answer to each caller: a shorter one says little of a slow system.

    It is as likely to fall between two bursts of answers, and would make chatd look better.
    """
    return [run for run in runs if run.ended >= run.connections]


def _row(bound: Bound, connections: int, found: Figure | None) -> tuple[str, ...]:
    name, *cells, verdict = ratio_row(bound, found)
    told = verdict if connections == _AT or found is None else f"(promised at {_AT})"
    return (f"{connections}: {name}", *cells, told)


def _text(found: Figure | None, digits: int = 0) -> str:
    return "-" if found is None else found.text(digits)


def _all(found: Figure | None, digits: int = 0) -> str:
    return "-" if found is None else f"{found.both:,.{digits}f}"
