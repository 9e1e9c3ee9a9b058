"""The calls of an evaluation: their names, their bodies, and by what two of them are the same.

An answer is asked for as ``m2-s17-r1``: second model, seventeenth sample, first repeat. The verdict
of the third scorer on it is asked for as ``m2-s17-r1-j3-t1``, and as ``…-t2`` if no verdict can be
read in the first reply. These are the ``custom_id`` of the lines of the evaluation's batches.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel

from chat.evaluations.dataset import Sample, fill, question
from chat.evaluations.judge import judge_messages, repair_messages, verdict_format
from chat.evaluations.suite import Candidate, Judge, Suite
from chat.formats.support import dropped
from chat.routing import Route
from chat.types import JSON, ChatRequest

__all__ = [
    "Task",
    "Trial",
    "answer_body",
    "cache_key",
    "line",
    "repair_body",
    "tasks",
    "trial_body",
]

_TASK = re.compile(r"m([0-9]+)-s([0-9]+)-r([0-9]+)")
_TRIAL = re.compile(r"(.+)-j([0-9]+)-t([12])")


@dataclass(frozen=True, slots=True)
class Task:
    """One question to one model; model and sample are places, counted from 0, ``repeat`` from 1."""

    model: int
    sample: int
    repeat: int

    def __str__(self) -> str:
        return f"m{self.model + 1}-s{self.sample + 1}-r{self.repeat}"

    @classmethod
    def named(cls, text: str) -> Self:
        """The task of a name. Raises ``ValueError``."""
        found = _TASK.fullmatch(text)
        if found is None:
            raise ValueError(text)
        return cls(int(found[1]) - 1, int(found[2]) - 1, int(found[3]))


@dataclass(frozen=True, slots=True)
class Trial:
    """One try to get a verdict on a task's answer; ``scorer`` is a place, counted from 0."""

    task: Task
    scorer: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.task}-j{self.scorer + 1}-t{self.attempt}"

    @classmethod
    def named(cls, text: str) -> Self | None:
        """The trial of a name; ``None`` for that of a task."""
        found = _TRIAL.fullmatch(text)
        return found and cls(Task.named(found[1]), int(found[2]) - 1, int(found[3]))


def tasks(suite: Suite, samples: int) -> Iterator[Task]:
    """Every task, one model after the other, so that a local machine need not swap them."""
    for model in range(len(suite.models)):
        for sample in range(samples):
            for repeat in range(1, suite.repeats + 1):
                yield Task(model, sample, repeat)


def answer_body(suite: Suite, candidate: Candidate, sample: Sample) -> JSON:
    """The body of ``POST /v1/chat`` that asks a model a question."""
    return {
        "model": candidate.model,
        "messages": question(suite, candidate, sample),
        **_set(suite.parameters),
        **_set(candidate.parameters),
    }


def trial_body(judge: Judge, asked: list[JSON], answer: str, sample: Sample) -> JSON:
    """The body that asks a judge for its verdict on an answer to ``asked``."""
    messages = judge_messages(
        judge,
        question=asked,
        answer=answer,
        expected=sample.expected,
        rubric=fill(judge.rubric, sample.values),
    )
    return {**_judge_settings(judge), "format": verdict_format(judge), "messages": messages}


def repair_body(judge: Judge, first: JSON, reply: str | None) -> JSON:
    """The body that asks once more; ``first`` is the one before, ``reply`` what came of it.

    It goes without ``format``: a provider that does not hold its answers to a schema may have been
    the trouble.
    """
    messages = repair_messages(judge, first["messages"], reply)
    return {**_judge_settings(judge), "messages": messages}


def line(custom_id: str, body: JSON, metadata: Mapping[str, str]) -> bytes:
    """The line of a batch that makes a call; ``metadata`` is shown in the job's record."""
    body = {**body, "metadata": {**metadata, "call": custom_id}}
    request = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat", "body": body}
    return json.dumps(request).encode() + b"\n"


def cache_key(request: ChatRequest, route: Route, repeat: int, owner: str = "") -> str | None:
    """By what an answer is known again; ``None`` for one that chance has a part in.

    It is the whole request as it reaches the provider. Repeats are there to see what differs, so
    that each has a key of its own; so has each ``owner``, who is not to be told what others asked.
    """
    if request.temperature != 0 or "temperature" in dropped(route.provider, route.model, request):
        return None
    asked = {**request.to_wire(), "model": route.model}
    whose = [owner] if owner else []
    exact = json.dumps([route.provider, asked, repeat, *whose], sort_keys=True)
    return hashlib.sha256(exact.encode()).hexdigest()


def _judge_settings(judge: Judge) -> JSON:
    return {
        "model": judge.model,
        "temperature": 0,
        **_set(judge.parameters),
        "max_tokens": judge.max_tokens,
    }


def _set(parameters: BaseModel | None) -> JSON:
    return {} if parameters is None else parameters.model_dump(exclude_unset=True)
