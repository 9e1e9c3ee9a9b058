"""Evaluations as ``GET /v1/evaluations/<id>`` answers them, and rows and summaries of theirs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from chat.evaluations.figures import Figures
from chat.types import JSON
from cli.eval_object import Evaluation

__all__ = ["ID", "OTHER_ID", "evaluation", "evaluation_object", "model", "row", "summary_of"]

ID = "eval_01m8k014qmgeaatvf6xvfzqg9e"
OTHER_ID = "eval_01m8k1fncg5x9wd5w2hw8yfn14"

_OBJECT: JSON = {
    "id": ID,
    "object": "evaluation",
    "name": "sums",
    "description": None,
    "errors": None,
    "input_file_id": "file-in",
    "created_at": 1_795_000_000,
    "expires_at": 1_795_086_400,
    "in_progress_at": 1_795_000_002,
    "finalizing_at": None,
    "completed_at": None,
    "failed_at": None,
    "expired_at": None,
    "cancelling_at": None,
    "cancelled_at": None,
    "round": 1,
    "batch_ids": ["batch_1"],
    "samples": 20,
    "repeats": 1,
    "metadata": None,
}

#: What the end of an evaluation sets besides its status.
_ENDS: dict[str, JSON] = {
    "completed": {"completed_at": 1_795_000_725},
    "failed": {"failed_at": 1_795_000_003, "in_progress_at": None, "round": 0, "samples": 0},
    "expired": {"expired_at": 1_795_086_402},
    "cancelled": {"cancelled_at": 1_795_000_009},
    "validating": {"in_progress_at": None, "round": 0, "samples": 0},
}


def model(
    name: str = "small",
    answered: int = 20,
    errors: JSON | None = None,
    *,
    total: int = 20,
    means: JSON | None = None,
    judged: tuple[int, int, int] | None = None,
    cost_usd: float | None = None,
) -> JSON:
    """One model's numbers. ``judged`` are verdicts: scored, unparsable, errored; of one judge."""
    scores = [
        {
            "scorer": scorer,
            "type": "judge" if scorer == "polite" else "numeric",
            "mean": mean,
            "scored": answered if judged is None or scorer != "polite" else judged[0],
        }
        for scorer, mean in (means or {"numeric": 0.85}).items()
    ]
    scored, unparsable, errored = judged or (0, 0, 0)
    return {
        "name": name,
        "total": total,
        "answered": answered,
        "errored": sum((errors or {}).values()),
        "cached": 0,
        "errors": errors or {},
        "scores": scores,
        "verdicts": {
            "total": answered,
            "scored": scored,
            "unparsable": unparsable,
            "errored": errored,
        },
        "cost_usd": cost_usd,
        "judge": {"calls": sum(judged or ()), "cost_usd": None},
    }


def evaluation_object(status: str = "in_progress", *models: JSON, **fields: Any) -> JSON:
    """An evaluation of these models with that status; ``fields`` are put over it."""
    return {
        **_OBJECT,
        "status": status,
        "models": list(models),
        "usage": {"input_tokens": 0, "output_tokens": 0, "cost_usd": None},
        **_ENDS.get(status, {}),
        **fields,
    }


def evaluation(*arguments: Any, **fields: Any) -> Evaluation:
    """The same as a value."""
    return Evaluation.from_wire(evaluation_object(*arguments, **fields))


def row(
    sample: str, score: float | None = 1.0, model: str = "small", *, expected: Any = 42, **over: Any
) -> JSON:
    """A line of the results; without ``score`` it is an error. ``over`` is put over it."""
    answered = score is not None
    scored = {"status": "scored", "score": score, "reason": None, "code": None, "judge": None}
    return {
        "sample": sample,
        "model": model,
        "repeat": 1,
        "status": "answered" if answered else "errored",
        "cached": False,
        "messages": [{"role": "user", "content": f"What is {sample}?"}],
        "expected": expected,
        "finish_reason": "stop" if answered else None,
        "error": None if answered else {"code": "upstream_rejected", "message": "no"},
        "scores": {"numeric": scored} if answered else {},
        "provider": "ollama" if answered else None,
        "upstream_model": model if answered else None,
        "input_tokens": 12 if answered else None,
        "output_tokens": 3 if answered else None,
        "cost_usd": 0.002 if answered else None,
        "queue_ms": 5 if answered else None,
        "latency_ms": 1234 if answered else None,
        "attempts": [],
        **over,
    }


def summary_of(
    rows: Iterable[JSON],
    *models: str,
    scorers: Sequence[tuple[str, str]] = (("numeric", "numeric"),),
    **evaluation: Any,
) -> JSON:
    """The summary of rows, with the figures that chatd makes of them."""
    names, figures = models or ("small",), Figures(models or ("small",), scorers)
    samples = set()
    for one in rows:
        figures.add(one)
        samples.add(one["sample"])
    return {
        "evaluation": {"id": ID, "name": "sums", "status": "completed", **evaluation},
        "suite": {
            "models": list(names),
            "scorers": [{"type": kind, "name": name} for name, kind in scorers],
        },
        "samples": len(samples),
        "repeats": 1,
        **figures.summary(),
    }
