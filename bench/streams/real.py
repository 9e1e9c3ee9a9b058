"""First tokens of a real model: that of `make demo`, asked directly and through chatd."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.scenes.scene import percentile
from bench.speed.sheet import Sheet
from bench.streams.follower import Follower
from bench.streams.reading import FORMS, Form
from deploy.demo.model import install_model_server, start_model_server
from tests.stack import Stack

__all__ = ["real"]

_FORMS = ("ollama", "chat", "completion")
_TOKENS = 24
_TOPICS = ("a queue", "a heap", "a stack", "a tree", "a graph", "a lock", "a cache", "a log")


@dataclass(frozen=True, slots=True)
class _Asked:
    """One question in one form: milliseconds to the first token and between them, and the text."""

    form: str
    question: str
    first_ms: float
    gap_ms: float
    text: str
    verdict: str


def _ask(url: str, name: str, model: str, question: str) -> _Asked:
    form = Form(FORMS[name].path, FORMS[name].format, model)
    fields: dict[str, Any] = {"max_tokens": _TOKENS, "temperature": 0}
    if name == "ollama":
        fields = {"options": {"num_predict": _TOKENS, "temperature": 0}}
    with Follower.asking(url, form, question, **fields) as follower:
        follower.rest()
    reading = follower.reading
    # What it should say nobody knows; at the end of chatd's own format stands what it did say.
    whole = str((reading.answer or {}).get("content", reading.text))
    times = [at for at, _ in reading.arrivals]
    return _Asked(
        name,
        question,
        (times[0] - follower.began) * 1000 if times else float("nan"),
        (times[-1] - times[0]) * 1000 / max(len(times) - 1, 1) if times else float("nan"),
        reading.text,
        reading.verdict(whole) if reading.text else "no text",
    )


def real(*, rounds: int) -> int:
    """Each question in each form, one after the other; the order turns with each round."""
    sheet = Sheet(name="streams-first-token-real")
    install_model_server()
    sheet.begin(f"the model of make demo, {_TOKENS} tokens, one stream at a time")
    found: list[_Asked] = []
    with tempfile.TemporaryDirectory(prefix="chatd-real-") as folder:
        server, model = start_model_server(Path(folder) / "model.log")
        stack = Stack(Path(folder) / "chatd", {"ollama": model.url})
        try:
            stack.start()
            urls = {"ollama": model.url, "chat": stack.url, "completion": stack.url}
            for number in range(rounds + 1):
                at = number % len(_FORMS)
                topic = _TOPICS[number % len(_TOPICS)]
                for name in (*_FORMS[at:], *_FORMS[:at]):
                    asked = _ask(urls[name], name, model.name, f"What is {topic}? Round {number}.")
                    if number:  # The first round warms it up.
                        found.append(asked)
        finally:
            stack.stop()
            server.stop()
    _show(sheet, found)
    return sheet.end()


def _show(sheet: Sheet, found: list[_Asked]) -> None:
    firsts = {name: [one.first_ms for one in found if one.form == name] for name in _FORMS}
    direct = firsts["ollama"]
    rows = []
    for name, values in firsts.items():
        added = [
            median(values) - median(direct),
            percentile(values, 0.99) - percentile(direct, 0.99),
        ]
        gaps = [one.gap_ms for one in found if one.form == name]
        rows.append(
            (
                name,
                len(values),
                f"{median(values):.1f}",
                f"{percentile(values, 0.99):.1f}",
                *(f"{each:.1f}" for each in added),
                f"{median(gaps):.1f}",
            )
        )
    head = ("form", "streams", "first p50 ms", "p99", "added p50", "p99", "between tokens")
    sheet.table(head, rows)
    verdicts = Counter(one.verdict for one in found)
    by_question: dict[str, set[str]] = {}
    for one in found:
        by_question.setdefault(one.question, set()).add(one.text)
    same = sum(len(texts) == 1 for texts in by_question.values())
    sheet.say("questions with the same text in all forms", f"{same} of {len(by_question)}")
    sheet.rule(f"every stream is whole {dict(verdicts)}", set(verdicts) == {"right"})
    sheet.raw["asked"] = [f"{one}" for one in found]
