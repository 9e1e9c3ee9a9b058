"""Where a table was measured, with what, and how it is kept."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.processes import cpu_s
from bench.speed.generator import Load, run
from bench.speed.measure import Run
from bench.speed.systems import SYSTEMS
from bench.speed.upstream import UpstreamProcess
from cli.redis_server import find_binary, free_port
from tests.servers import ROOT

__all__ = ["FOLDER", "describe", "pace_ms", "save"]

#: Where the figures of all runs are kept.
FOLDER = ROOT / "var" / "bench"

_PACKAGES = ("celery", "kombu", "redis", "requests", "flask", "gunicorn", "gevent", "uvloop")
_PACE_STEPS = 200_000


def describe(systems: Iterable[str]) -> dict[str, Any]:
    """Print machine, versions and the ceiling of what measures; the same as values."""
    told: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "commit": _commit(),
        "versions": {
            "Python": platform.python_version(),
            "Redis": _output(str(find_binary()), "--version").partition("v=")[2].partition(" ")[0],
            **{name: version(name) for name in _PACKAGES},
        },
        "load average": os.getloadavg()[0],
        "systems": {name: SYSTEMS[name].missing() or SYSTEMS[name].version() for name in systems},
        "ceiling": _ceiling(),
    }
    print(f"{told['machine']}; load {told['load average']:.1f}; commit {told['commit']}")
    print(", ".join(f"{name} {text}" for name, text in told["versions"].items()))
    for name, text in told["systems"].items():
        if text:
            print(f"  {name:<10} {SYSTEMS[name].title}, {text}")
    ceiling = told["ceiling"]
    print(
        f"the upstream alone, instant, 64 connections: {ceiling['per_second']:,.0f} requests/s; "
        f"{ceiling['upstream_us']:.0f} us of CPU for each, and {ceiling['generator_us']:.0f} us of "
        "the generator",
        flush=True,
    )
    return told


def pace_ms() -> float:
    """How long a fixed piece of Python takes here and now: it varies with the neighbours."""

    def once() -> float:
        began = time.perf_counter()
        total = 0
        for number in range(_PACE_STEPS):
            total += number & 7
        return (time.perf_counter() - began) * 1000

    return min(once() for _ in range(5))


def save(table: str, described: Mapping[str, Any], runs: Iterable[Run], **further: object) -> Path:
    """Keep all that was measured, in a file whose name has the time; the path."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{table}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    value = {"table": table, **described, **further, "runs": [run.to_wire() for run in runs]}
    path.write_text(json.dumps(value, indent=1), "utf-8")
    print(f"all figures: {path.relative_to(ROOT)}")
    return path


def _ceiling() -> dict[str, float]:
    marks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        upstream = UpstreamProcess(Path(folder), free_port(), 0.0).start()
        try:
            load = Load(url=upstream.url, form="ollama", connections=64, seconds=1, warm_s=0.3)
            outcome = run(
                load,
                begins=lambda: marks.append(cpu_s(upstream.pid)),
                ends=lambda: marks.append(cpu_s(upstream.pid)),
            )
        finally:
            upstream.stop()
    assert not outcome.counts.failed, asdict(outcome.counts)
    return {
        "per_second": outcome.per_second,
        "upstream_us": (marks[1] - marks[0]) * 1e6 / outcome.ended,
        "generator_us": outcome.cpu_s * 1e6 / outcome.ended,
    }


def _machine() -> str:
    info = Path("/proc/cpuinfo").read_text("utf-8")
    models = [
        line.partition(": ")[2] for line in info.splitlines() if line.startswith("model name")
    ]
    memory = Path("/proc/meminfo").read_text("utf-8").split()[1]
    cpu = models[0] if models else platform.machine()
    return f"{os.cpu_count()} x {cpu}, {int(memory) / 2**20:.0f} GiB, Linux {platform.release()}"


def _commit() -> str:
    name = _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD") or "unknown"
    changed = _output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return f"{name} and changes" if changed else name


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()
