"""chatd with four providers before scripted upstreams, and `chatd eval` as somebody types it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.evaluations.script import JUDGE, MODELS, Script, question
from bench.limits import SlidingWindow
from bench.upstream import Upstream
from tests.servers import Child, python
from tests.stack import Stack
from tests.waiting import eventually

__all__ = ["World", "running"]

_PERMITS = 16
_KEYS = {
    "OPENROUTER_API_KEY": "key-of-the-bench",
    "OPENCODE_API_KEY": "key-of-the-bench",
    "KIMI_API_KEY": "key-of-the-bench",
}
#: Calls a second that openrouter allows, and says so only by 429 with Retry-After.
_ALLOWED = 120


class World:
    """One chatd; ``upstreams`` by provider."""

    def __init__(self, folder: Path, script: Script, samples: int) -> None:
        self.folder, self.script, self.samples = folder, script, samples
        names = [*MODELS.values(), JUDGE.partition("/")[0]]
        self.upstreams = {name: Upstream(delay_s=0.005).start() for name in names}
        for upstream in self.upstreams.values():
            script.serve(upstream)
        self.allowed = _ALLOWED
        self.allow(_ALLOWED)
        self.stack = Stack(
            folder,
            {name: upstream.url for name, upstream in self.upstreams.items()},
            concurrency=_PERMITS,
            environ=_KEYS,
        )
        dataset = "".join(
            json.dumps({"id": str(number), "prompt": question(number), "expected": number}) + "\n"
            for number in range(1, samples + 1)
        )
        (folder / "dataset.jsonl").write_text(dataset)

    def allow(self, calls: int) -> None:
        """Let openrouter have so many calls a second, from now on."""
        self.upstreams["openrouter"].limits = {"*": SlidingWindow(calls, 1.0)}

    def suite(self, **changes: Any) -> Path:
        """The file of a suite: a numeric scorer and a judge, no cache unless ``changes`` say so."""
        value = {
            "name": "bench",
            "dataset": "dataset.jsonl",
            "models": list(MODELS),
            "cache": False,
            "parameters": {"temperature": 0},
            "scorers": [
                {"type": "numeric", "name": "right"},
                {
                    "type": "judge",
                    "name": "judged",
                    "model": JUDGE,
                    "rubric": "Is it {{expected}}?",
                },
            ],
            **changes,
        }
        path = self.folder / "suite.toml"
        path.write_text(_toml(value))
        return path

    def chatd_eval(self, *arguments: str) -> Child:
        """The command as a process of its own, which can be killed."""
        command = python("-m", "cli", "eval", *arguments, "--url", self.stack.url)
        return Child(command, self.folder / f"eval-{arguments[0]}.log", self.stack.environ)

    def say(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command, run to its end."""
        return subprocess.run(
            python("-m", "cli", "eval", *arguments, "--url", self.stack.url),
            env={**os.environ, **self.stack.environ},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    def run(self, suite: Path) -> str:
        """An evaluation from beginning to end; its id."""
        done = self.say("run", str(suite), "--report", "-", "--min-coverage", "0")
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout.split()[0]

    def shown(self, evaluation_id: str) -> dict[str, Any]:
        """The evaluation as HTTP has it."""
        url = f"{self.stack.url}/v1/evaluations/{evaluation_id}"
        found: dict[str, Any] = self.stack.http.get(url, timeout=60).json()
        return found

    def answered(self, evaluation_id: str) -> int:
        """How many answers there are so far."""
        count: int = self.shown(evaluation_id)["counts"]["answered"]
        return count

    def until_answered(self, evaluation_id: str, count: int) -> None:
        """Wait for so many."""
        eventually(
            lambda: self.answered(evaluation_id) >= count, within_s=300, what=f"{count} answers"
        )

    def report(self, evaluation_id: str, kind: str) -> str:
        """What the evaluation has led to."""
        url = f"{self.stack.url}/v1/evaluations/{evaluation_id}/report"
        answer = self.stack.http.get(url, params={"format": kind}, timeout=120)
        assert answer.status_code == 200, answer.text
        return answer.content.decode()

    def rows(self, evaluation_id: str) -> list[dict[str, Any]]:
        """Its results."""
        return [json.loads(line) for line in self.report(evaluation_id, "jsonl").splitlines()]

    @property
    def calls(self) -> int:
        """Calls that any upstream has seen, refused ones too."""
        return sum(len(upstream.log) for upstream in self.upstreams.values())


@contextmanager
def running(samples: int, script: Script | None = None) -> Iterator[World]:
    """A world, and nothing of it afterwards."""
    with tempfile.TemporaryDirectory(prefix="chatd-bench-") as folder:
        world = World(Path(folder), script or Script(), samples)
        try:
            world.stack.start()
            yield world
        finally:
            world.stack.stop()
            for upstream in world.upstreams.values():
                upstream.stop()


def _toml(value: Mapping[str, Any]) -> str:
    """A flat suite as TOML; what JSON and TOML write alike is written as JSON."""
    lines = [f"{name} = {json.dumps(part)}" for name, part in value.items() if name not in _TABLES]
    lines += ["[parameters]", *(f"{n} = {json.dumps(v)}" for n, v in value["parameters"].items())]
    for scorer in value["scorers"]:
        lines += ["[[scorers]]", *(f"{n} = {json.dumps(v)}" for n, v in scorer.items())]
    return "\n".join(lines) + "\n"


_TABLES = ("parameters", "scorers")
