"""What the models of a run answer: a function of model and sample, and of nothing else.

So it is known in advance what every row and every figure has to be, whatever is killed meanwhile.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

from bench.limits import Refusal
from bench.upstream import Upstream, wire_answer

__all__ = ["JUDGE", "MODELS", "Script", "question"]

#: Label of each model, and its provider; each has an upstream of its own.
MODELS = {"alpha": "ollama", "openrouter/x/beta": "openrouter", "kimi/gamma": "kimi"}
JUDGE = "opencode/wise"

_QUESTION = re.compile(r"What is the value of sample ([0-9]+)\?")
_ANSWER = re.compile(r"(alpha|beta|gamma) says of sample ([0-9]+)")
#: Of a thousand: how many are right, by model; answers that are refused for good, and those that
#: fail once; verdicts that pass, that need a second try, that never come, that are refused.
_RIGHT = {"alpha": 600, "beta": 700, "gamma": 720}
_REFUSED, _SHAKY = 20, 30
_PASS, _MUTE_ONCE, _MUTE, _UNJUDGED = 800, 40, 15, 15


def question(number: int) -> str:
    """What is asked of every model about a sample."""
    return f"What is the value of sample {number}?"


@dataclass(slots=True)
class Script:
    """The models and the judge. When ``mended`` they refuse nothing any more.

    ``gamma`` is right on the samples in ``better`` as well.
    """

    mended: bool = False
    better: set[int] = field(default_factory=set)

    # -- what is so

    def is_right(self, model: str, number: int) -> bool:
        """Whether a model's number is the expected one."""
        if model == "gamma" and number in self.better:
            return True
        return _chance("right", model, number) < _RIGHT[model]

    def is_refused(self, model: str, number: int) -> bool:
        """Whether a question is refused for good."""
        return not self.mended and _chance("refused", model, number) < _REFUSED

    def is_shaky(self, model: str, number: int) -> bool:
        """Whether the first call fails."""
        return _chance("shaky", model, number) < _SHAKY

    def verdict(self, model: str, number: int) -> str:
        """``pass``, ``fail``, ``unparsable`` or ``errored``; what the judge comes to."""
        luck = _chance("judge", model, number)
        if not self.mended and luck < _UNJUDGED:
            return "errored"
        if not self.mended and luck < _UNJUDGED + _MUTE:
            return "unparsable"
        return "pass" if _chance("verdict", model, number) < _PASS else "fail"

    def needs_second_try(self, model: str, number: int) -> bool:
        """Whether the first reply has no verdict."""
        luck = _chance("judge", model, number)
        return _UNJUDGED <= luck < _UNJUDGED + _MUTE + _MUTE_ONCE

    def answer(self, model: str, number: int) -> str:
        """What a model says."""
        value = number if self.is_right(model, number) else number + 1
        return f"{model} says of sample {number}: {value}"

    # -- as an upstream

    def serve(self, upstream: Upstream) -> None:
        """Let an upstream answer by the script."""

        def reply(path: str, body: dict[str, Any]) -> tuple[int, Any]:
            messages = body["messages"]
            text = "\n".join(message["content"] for message in messages)
            judged = _ANSWER.search(text)
            if judged is not None:
                return self._judge(path, body, judged[1], int(judged[2]))
            asked = _QUESTION.search(text)
            assert asked is not None, text
            calls = upstream.calls[messages[-1]["content"]]
            return self._answer(path, body, int(asked[1]), calls)

        upstream.reply = reply

    def _answer(self, path: str, body: dict[str, Any], number: int, calls: int) -> tuple[int, Any]:
        model = body["model"].rpartition("/")[2]
        if self.is_refused(model, number):
            return 400, Refusal(400, "this question is not answered").body(path)
        if self.is_shaky(model, number) and calls == 1:
            return 503, Refusal(503, "overloaded").body(path)
        return 200, wire_answer(path, body["model"], self.answer(model, number))

    def _judge(self, path: str, body: dict[str, Any], model: str, number: int) -> tuple[int, Any]:
        verdict = self.verdict(model, number)
        if verdict == "errored":
            return 400, Refusal(400, "this answer is not judged").body(path)
        first = len(body["messages"]) == 2 and "No verdict" not in body["messages"][-1]["content"]
        if verdict == "unparsable" or (first and self.needs_second_try(model, number)):
            return 200, wire_answer(path, body["model"], "I rather like it.")
        reply = f'{{"reason": "so it is", "verdict": "{verdict}"}}'
        return 200, wire_answer(path, body["model"], reply)


def _chance(what: str, model: str, number: int) -> int:
    """A number from 0 to 999 that is always the same."""
    digest = hashlib.sha256(f"{what}:{model}:{number}".encode()).digest()
    return int.from_bytes(digest[:4]) % 1000
