"""Load generators and model servers as processes of their own, whose CPU is known."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.servers import Child, python
from tests.waiting import eventually

__all__ = ["ModelServer", "tell", "told_by"]


def told_by(
    module: str, load: object, begins: Callable[[], object], ends: Callable[[], object]
) -> Any:
    """Run the load generator ``module`` on ``load``, which is JSON; what it tells at its end.

    ``begins`` and ``ends`` are called when it prints these words. Raises ``RuntimeError`` when the
    generator fails, as when nothing listens.
    """
    command = [sys.executable, "-m", module, json.dumps(load)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            if line == "begins\n":
                begins()
            elif line == "ends\n":
                ends()
            else:
                last = line
    if process.returncode != 0:
        raise RuntimeError(f"the load generator failed ({process.returncode}); see its output")
    return json.loads(last)


def tell(outcome: object) -> None:
    """What a load generator does at its end: ``outcome``, which is JSON, goes to ``told_by``."""
    # It may be large: with PYTHONUNBUFFERED print() would give up what a full pipe did not take.
    with open(sys.stdout.fileno(), "w", encoding="utf-8", closefd=False) as out:
        out.write(f"{json.dumps(outcome)}\n")


class ModelServer:
    """The model server ``module`` on ``port``, which logs to a file in ``folder``."""

    def __init__(self, module: str, folder: Path, port: int, *arguments: str) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._child = Child(
            python("-m", module, str(port), *arguments), folder / f"upstream-{port}.log"
        )

    @property
    def pid(self) -> int:
        """The process whose CPU is the upstream's."""
        return self._child.pid

    def start(self) -> Self:
        """Start it and wait until it listens. Raises ``AssertionError`` if it does not."""
        self._child.start()
        eventually(lambda: "listens" in self._child.output(), within_s=20, what="upstream listens")
        return self

    def stop(self) -> None:
        """End it."""
        self._child.stop()
