"""The rows of an evaluation's results: one for each model, sample and repeat."""

from __future__ import annotations

from collections.abc import Iterator

from chat.evaluations.calls import Task, tasks
from chat.evaluations.dataset import Dataset, Sample, question
from chat.evaluations.log import Log
from chat.evaluations.scorers import Score
from chat.evaluations.state import Known, State, Verdict
from chat.evaluations.suite import Suite
from chat.types import JSON

__all__ = ["rows"]

_USAGE = ("input_tokens", "output_tokens", "cost_usd", "queue_ms", "latency_ms")


def rows(suite: Suite, dataset: Dataset, state: State, log: Log, ending: JSON) -> Iterator[JSON]:
    """Every row, one model after the other.

    ``ending`` is the error of what was asked for and has no answer, since the evaluation ended.
    """
    for task in tasks(suite, len(dataset)):
        yield _row(suite, dataset.sample(task.sample), task, state.known(task), log, ending)


def _row(
    suite: Suite, sample: Sample, task: Task, known: Known | None, log: Log, ending: JSON
) -> JSON:
    candidate = suite.candidates[task.model]
    entries = [log.read(offset) for offset in known.offsets] if known else []
    entry = entries[-1] if entries else None
    answer = (entry["answer"] if entry else None) or {}
    error = entry["error"] if entry else ending
    scores = {}
    if known is not None and error is None:
        scores = {
            scorer.label: _score(known.score(place), known.verdicts.get(place), log, ending)
            for place, scorer in enumerate(suite.scorers)
        }
    usage = {name: answer.get(name) for name in _USAGE}
    if known is not None and known.cached:
        # It cost nothing, and took no time, this time.
        usage = dict.fromkeys(_USAGE)
    return {
        "sample": sample.id,
        "model": candidate.label,
        "repeat": task.repeat,
        "status": "answered" if error is None else "errored",
        "cached": known is not None and known.cached,
        "messages": question(suite, candidate, sample),
        "expected": sample.expected,
        "answer": answer.get("content"),
        "reasoning": answer.get("reasoning"),
        "finish_reason": answer.get("finish_reason"),
        "error": error,
        "scores": scores,
        "provider": answer.get("provider"),
        "upstream_model": answer.get("upstream_model"),
        **usage,
        "job_id": entry["job_id"] if entry else None,
        "round": entry["round"] if entry else None,
        "attempts": [attempt for each in entries for attempt in each["attempts"]],
    }


def _score(score: Score | None, verdict: Verdict | None, log: Log, ending: JSON) -> JSON:
    """A score as the row has it; a verdict that is still to come when all is over is an error."""
    if score is None:
        score = Score("errored", None, ending["message"], ending["code"])
    return {
        "status": score.status,
        "score": score.score,
        "reason": score.reason,
        "code": score.code,
        "judge": None if verdict is None else _judge(verdict, log),
    }


def _judge(verdict: Verdict, log: Log) -> JSON:
    """What the judge said, and what all its tries took."""
    entries = [log.read(offset) for offset in verdict.offsets]
    last = entries[-1]["answer"]
    made = [entry["answer"] for entry in entries if entry["answer"] and not entry["cached"]]
    costs = [answer["cost_usd"] for answer in made if answer["cost_usd"] is not None]
    return {
        "reply": last and last["content"],
        "tries": len(entries),
        "cached": all(entry["cached"] for entry in entries),
        **{
            name: sum(answer[name] or 0 for answer in made)
            for name in ("input_tokens", "output_tokens", "queue_ms", "latency_ms")
        },
        "cost_usd": sum(costs) if costs else None,
        "job_ids": [entry["job_id"] for entry in entries if entry["job_id"]],
        "attempts": [attempt for entry in entries for attempt in entry["attempts"]],
    }
