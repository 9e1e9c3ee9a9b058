"""What a program asks through its library, and what came of it, a line each.

Nothing beyond the standard library is needed here: each program runs in an environment of its own.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.streams.script import Script

__all__ = ["CITY", "ROME", "TOOL", "Asking", "Transcript", "main_of", "text_of"]

ROME = {"city": "Rome"}
#: What the model is to say where JSON is asked for.
CITY = '{"name": "Rome", "people": 3}'
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The temperature of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@dataclass(frozen=True, slots=True)
class Asking:
    """Where chatd is, and the model that is asked: scripted, or a real one."""

    url: str
    model: str
    real: bool

    @classmethod
    def of(cls, arguments: list[str]) -> Asking:
        """URL, model, and "real" or "scripted", as the command line has them."""
        url, model, kind = arguments
        return cls(url, model, kind == "real")

    def script(self, **fields: Any) -> Script:
        """A script of its own."""
        return Script(**{"name": secrets.token_hex(8), "every_ms": 5.0, **fields})

    def question(self, script: Script, natural: str = "What is a queue?") -> str:
        """What is asked: the script, or of a real model the same in plain words."""
        return natural if self.real else script.question

    def check(self, script: Script, text: str) -> str:
        """Hold a text against the script; what is to be told. Raises ``AssertionError``."""
        if self.real:
            assert text, "no text"
            return json.dumps(text[:60])
        assert text == script.whole(), f"another text: {text[:60]!r}"
        return f"{len(text)} characters, byte for byte"


@dataclass(slots=True)
class Transcript:
    """Runs steps one after the other, with a line for each; ``failed`` counts those that failed."""

    client: str
    asking: Asking
    failed: int = 0
    _steps: list[tuple[str, Callable[[Asking], str], bool]] = field(default_factory=list)

    def step(self, name: str, run: Callable[[Asking], str], *, scripted: bool = False) -> None:
        """Take a function as a step; a ``scripted`` one is left out with a real model."""
        self._steps.append((name, run, scripted))

    def run(self) -> int:
        """All steps; the exit code."""
        print(f"{self.client}, model {self.asking.model}", flush=True)
        for name, step, scripted in self._steps:
            if scripted and self.asking.real:
                continue
            try:
                verdict, told = "ok", step(self.asking)
            except Exception as error:  # noqa: BLE001 - whatever a library raises is the finding
                self.failed += 1
                verdict, told = "FAILED", f"{type(error).__name__}: {str(error)[:300]}"
            print(f"  {verdict:<7}{name:<44} {told}", flush=True)
        return 1 if self.failed else 0


def text_of(chunks: Any) -> str:
    """The text of OpenAI's chunks, as libraries hand them over."""
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def main_of(client: str, build: Callable[[Transcript], None]) -> None:
    """The program of one client: its steps on what the command line names."""
    transcript = Transcript(client, Asking.of(sys.argv[1:]))
    build(transcript)
    sys.exit(transcript.run())
