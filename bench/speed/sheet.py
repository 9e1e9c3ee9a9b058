"""What a table of the speed benches prints and keeps: the machine, the rows, bounds, raw JSON."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from bench.scenes.scene import Report
from cli.redis_server import find_binary

__all__ = ["Bound", "Sheet", "machine"]

_FOLDER = Path("var/bench")
_PACKAGES = ("celery", "kombu", "redis", "gevent", "gunicorn", "flask", "requests", "urllib3")


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure is held to: reached when the worse pass reaches it.

    ``at_least``: the figure is to be large, else small. Without ``stretch`` there is one bound.
    """

    name: str
    commit: float
    stretch: float | None = None
    at_least: bool = False

    def reached(self, values: Sequence[float]) -> tuple[bool, bool]:
        """Whether commit and stretch are reached; a missing stretch is reached with the commit."""
        worst = min(values) if self.at_least else max(values)

        def good(limit: float) -> bool:
            return worst >= limit if self.at_least else worst <= limit

        return good(self.commit), good(self.commit if self.stretch is None else self.stretch)

    def told(self, values: Sequence[float]) -> str:
        """One line: the figure of each pass, and what it is held to."""
        commit, stretch = self.reached(values)
        sign = ">=" if self.at_least else "<="
        text = f"{' / '.join(f'{value:.4g}' for value in values)}; commit {sign} {self.commit:g}"
        text += ": reached" if commit else ": NOT reached"
        if self.stretch is not None:
            text += f"; stretch {sign} {self.stretch:g}: {'reached' if stretch else 'not reached'}"
        return text


@dataclass(slots=True)
class Sheet(Report):
    """One table on its way to the terminal and to a file."""

    name: str = ""
    raw: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.time)

    def begin(self, what: str) -> None:
        """Say what is measured, and on what."""
        self.raw["machine"] = machine()
        print(f"{self.name}: {what}", flush=True)
        for name, value in self.raw["machine"].items():
            self.say(name, value)

    def bound(self, bound: Bound, values: Sequence[float]) -> None:
        """Hold a figure, one value per pass, to its bound; a missed one is told, no error."""
        self.say(bound.name, bound.told(values))
        commit, stretch = bound.reached(values)
        self.raw.setdefault("bounds", []).append(
            {"name": bound.name, "values": list(values), "commit": commit, "stretch": stretch}
        )

    def end(self) -> int:
        """Keep what was measured; the exit code, 1 when a rule was broken."""
        self.raw["broken"] = self.broken
        self.raw["seconds"] = round(time.time() - self.began)
        _FOLDER.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(self.began))
        path = _FOLDER / f"{self.name}-{stamp}.json"
        path.write_text(json.dumps(self.raw, indent=1))
        self.say("seconds; raw figures", f"{self.raw['seconds']}; {path}")
        return 1 if self.broken else 0


def passes(values: Sequence[Sequence[float]]) -> list[float]:
    """The median of each pass."""
    return [median(run) for run in values]


def machine() -> dict[str, str]:
    """What it ran on."""
    cpu = re.search("model name\\s*:\\s*(.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search("MemTotal:\\s*([0-9]+)", Path("/proc/meminfo").read_text())
    assert memory is not None
    server = subprocess.run(
        [str(find_binary()), "--version"], capture_output=True, text=True, check=True
    ).stdout.split()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - whichever git there is
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "machine": f"{os.cpu_count()} cores ({cpu[1] if cpu else platform.machine()}), "
        f"{int(memory[1]) / 2**20:.0f} GiB, Linux {platform.release()}",
        "load before": "{:.2f} {:.2f} {:.2f}".format(*os.getloadavg()),
        "Python; Redis; chatd": f"{platform.python_version()}; "
        f"{server[0]} {next(w for w in server if w.startswith('v='))[2:]}; {commit or 'no git'}",
        "packages": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
    }
