"""The demo's batch: a file of questions that ``chatd batch`` submits, watches and fetches.

The questions are in OpenAI's batch format, half of them for its chat completions and half for
``/v1/chat``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.demo.command import run_chatd
from deploy.demo.processes import DemoError

__all__ = ["Answer", "answers", "lines", "run_batch"]

_THINGS = (
    "queue",
    "stack",
    "heap",
    "tree",
    "graph",
    "list",
    "array",
    "hash table",
    "set",
    "string",
    "integer",
    "pointer",
    "loop",
    "function",
    "thread",
    "process",
    "lock",
    "file",
    "socket",
    "compiler",
)
#: Answers that are printed.
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model made of one line."""

    text: str
    input_tokens: int
    output_tokens: int


def run_batch(folder: Path, url: str, model: str) -> None:
    """Submit the file, watch it to its end, fetch the answers, and print what is seen meanwhile.

    Raises ``DemoError`` unless every line has an answer.
    """
    requests, results = folder / "requests.jsonl", folder / "answers.jsonl"
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines(model)))
    print(f"  file        {len(_THINGS)} lines, by turns for /v1/chat/completions and /v1/chat")
    started = time.monotonic()
    told = run_chatd("batch", "submit", str(requests), "--interval", "1", "--url", url)
    took_s = time.monotonic() - started
    run_chatd("batch", "results", told[0], "-o", str(results), "--url", url)
    found = answers(results.read_text().splitlines())
    for custom_id in [line["custom_id"] for line in lines(model)][:_SHOWN]:
        print(f"  {custom_id:11} {found[custom_id].text}")
    tokens_in = sum(answer.input_tokens for answer in found.values())
    tokens_out = sum(answer.output_tokens for answer in found.values())
    print(f"  summary     {len(found)} of {len(_THINGS)} completed", end=", ")
    print(f"{tokens_in} tokens in, {tokens_out} out, {took_s:.1f} s")


def lines(model: str) -> list[dict[str, Any]]:
    """The requests, by turns for either endpoint."""
    return [
        {
            "custom_id": f"q{number}",
            "method": "POST",
            "url": "/v1/chat/completions" if number % 2 else "/v1/chat",
            "body": {
                "model": model,
                "messages": [{"role": "user", "content": f"What is a {word} in computing?"}],
                "max_tokens": 32,
                "temperature": 0,
            },
        }
        for number, word in enumerate(_THINGS, 1)
    ]


def answers(results: Iterable[str]) -> dict[str, Answer]:
    """The answers by their ``custom_id``, from the lines of ``chatd batch results``.

    Raises ``DemoError`` unless each request has exactly one, with text and token counts.
    """
    found: dict[str, Answer] = {}
    for line in results:
        result = json.loads(line)
        body, account, custom_id = result["response"]["body"], result["chatd"], result["custom_id"]
        content = body["choices"][0]["message"]["content"] if "choices" in body else body["content"]
        text = " ".join((content or "").split())
        tokens = account["input_tokens"], account["output_tokens"]
        if not text or not all(tokens):
            raise DemoError(f"an answer without text or without token counts: {line}")
        if custom_id in found:
            raise DemoError(f"a second answer to {custom_id}: {line}")
        found[custom_id] = Answer(text, *tokens)
    missing = [line["custom_id"] for line in lines("") if line["custom_id"] not in found]
    if missing:
        raise DemoError(f"the batch has no answer to {', '.join(missing)}")
    return found
