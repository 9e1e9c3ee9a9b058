"""Results of an evaluation that never ran: rows by chance, of everything that may happen, some."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from chat.evaluations.figures import Figures
from chat.evaluations.report import write_report
from chat.types import JSON

__all__ = ["HOSTILE", "MODELS", "a_report"]

MODELS = ("llama3.2:3b", "openrouter/openai/gpt-4o-mini", "kimi, no system message")
#: What an answer may try.
HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    " \u202e\x00\ud800 <!-- ]]> &amp; {{title}}"
)
_BEGIN = datetime(2026, 11, 22, 10, tzinfo=UTC)


def a_report(
    path: Path, samples: int, models: Sequence[str] = MODELS, **limits: int
) -> tuple[JSON, list[JSON]]:
    """Write a report to ``path``; its summary and its rows. The fourth sample is hostile."""
    chance = random.Random(1)
    rows = [row for model in models for row in _rows(model, samples, chance)]
    figures = Figures(models, [("right", "numeric"), ("clear", "judge")])
    for row in rows:
        figures.add(row)
    evaluation = {
        "id": "eval_01m8k07ejgr1zgr1fmkqrbtss2",
        "name": "pencils <b>&amp;",
        "description": "Word problems with one product and one difference.",
        "status": "completed",
        "created_at": int(_BEGIN.timestamp()),
        "ended_at": int(_BEGIN.timestamp()) + 200,
        "metadata": {"commit": "8e43ac6"},
        "round": 1,
    }
    suite = {"name": "pencils", "models": list(models), "scorers": [{"type": "numeric"}]}
    summary = {
        "evaluation": evaluation,
        "suite": suite,
        "samples": samples,
        "repeats": 1,
        **figures.summary(),
    }
    write_report(path, summary, iter(rows), **limits)
    return summary, rows


def _rows(model: str, samples: int, chance: random.Random) -> Iterator[JSON]:
    for number in range(1, samples + 1):
        begun = _BEGIN + timedelta(seconds=number / 2 + 5 * chance.random())
        took_ms = int(chance.lognormvariate(6.5, 0.7))
        expected = (number + 3) * (number * 7 % 13 + 2) - number % 5
        refused = [_attempt(begun, 0, "rate_limited", 429)] if chance.random() < 0.1 else []
        row: JSON = {
            "sample": f"q{number}",
            "model": model,
            "repeat": 1,
            "cached": chance.random() < 0.1,
            "messages": [
                {"role": "system", "content": "You are a careful tutor."},
                {
                    "role": "user",
                    "content": f"{number + 3} boxes of {number * 7 % 13 + 2} pencils each, "
                    f"{number % 5} given away. How many are left?",
                },
            ],
            "expected": expected,
            "reasoning": None,
            "provider": "openrouter",
            "upstream_model": model,
            "job_id": f"job_{number}",
            "round": 1,
        }
        if chance.random() < 0.05:
            timeout = _attempt(begun, took_ms, "upstream_timeout", 504)
            yield {**row, **_errored(), "attempts": [*refused, timeout]}
        else:
            done = _attempt(begun, took_ms, "succeeded", 200)
            answer = _answered(number, expected, took_ms, done, chance)
            yield {**row, **answer, "attempts": [*refused, done]}


def _errored() -> JSON:
    return {
        "status": "errored",
        "cached": False,
        "answer": None,
        "finish_reason": None,
        "error": {"code": "upstream_timeout", "message": "no answer within 180 s"},
        "scores": {},
        **dict.fromkeys(("input_tokens", "output_tokens", "cost_usd", "queue_ms", "latency_ms")),
    }


def _answered(
    number: int, expected: int, took_ms: int, attempt: JSON, chance: random.Random
) -> JSON:
    right = chance.random() < 0.7
    says = expected if right else expected + chance.randrange(1, 9)
    judge = {
        "reply": '{"reason": "the steps are right", "verdict": "pass"}',
        "tries": 1,
        "cached": False,
        "input_tokens": 150,
        "output_tokens": 20,
        "cost_usd": 0.0002,
        "queue_ms": 12,
        "latency_ms": 800,
        "job_ids": ["job_judge"],
        "attempts": [attempt],
    }
    status = chance.choices(["scored", "unparsable", "errored"], [90, 5, 5])[0]
    clear = {
        "status": status,
        "score": float(chance.random() < 0.8) if status == "scored" else None,
        "reason": "the steps are right" if status == "scored" else "it has no verdict",
        "code": "quota_exhausted" if status == "errored" else None,
        "judge": judge,
    }
    return {
        "status": "answered",
        "answer": f"It is {says}.{HOSTILE if number == 4 else ''}",
        "finish_reason": "stop" if chance.random() > 0.03 else "length",
        "error": None,
        "scores": {
            "right": {
                "status": "scored",
                "score": float(right),
                "reason": None if right else f"it says {says}",
                "code": None,
                "judge": None,
            },
            "clear": clear,
        },
        "input_tokens": 60,
        "output_tokens": 40,
        "cost_usd": 0.0004,
        "queue_ms": int(chance.lognormvariate(4, 1)),
        "latency_ms": took_ms,
    }


def _attempt(begun: datetime, took_ms: int, outcome: str, status: int) -> JSON:
    ended = begun + timedelta(milliseconds=took_ms)
    return {
        "number": 1,
        "worker": "openrouter-1@host",
        "started_at": begun.isoformat(timespec="milliseconds"),
        "ended_at": ended.isoformat(timespec="milliseconds"),
        "outcome": outcome,
        "upstream_status": status,
        "billed": "no" if status == 429 else "yes",
    }
