"""The files that a round of an evaluation ends with: results, summary, report and exports."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chat.batches.batch import Status
from chat.disk import write_json
from chat.evaluations.evaluation import Evaluation
from chat.evaluations.exports import junit, rows_to_csv
from chat.evaluations.figures import Figures
from chat.evaluations.folder import FORMATS
from chat.evaluations.record import Record
from chat.evaluations.report import write_report
from chat.evaluations.rows import rows
from chat.types import JSON

__all__ = ["Ended", "write_reports"]


@dataclass(frozen=True, slots=True)
class Ended:
    """A round that is over: how, when (Unix seconds), and the error of what has no result."""

    evaluation: Evaluation
    round: int
    status: Status
    ended_at: int
    missing: JSON


def write_reports(folder: Path, ended: Ended, record: Record) -> JSON:
    """Write every file of ``FORMATS`` into ``folder``, each in place of the last round's.

    Returns the summary.
    """
    suite, evaluation = record.suite, ended.evaluation
    figures = Figures(
        [candidate.label for candidate in suite.candidates],
        [(scorer.label, scorer.type) for scorer in suite.scorers],
    )
    results = folder / FORMATS["jsonl"]
    with _replaced(results) as path, path.open("wb") as out:
        for row in rows(suite, record.dataset, record.state, record.log, ended.missing):
            # Only escapes can carry half of a surrogate pair, which models do answer with.
            out.write(json.dumps(row).encode() + b"\n")
            figures.add(row)
    told = figures.summary()
    # What was asked for is not in the rows.
    told["models"] = [
        {"name": candidate.label, "model": candidate.model, **model}
        for candidate, model in zip(suite.candidates, told["models"], strict=True)
    ]
    summary: JSON = {
        "evaluation": {
            "id": evaluation.id,
            "name": suite.name,
            "description": suite.description,
            "status": ended.status.value,
            "created_at": evaluation.created_ms // 1000,
            "ended_at": ended.ended_at,
            "metadata": evaluation.metadata,
            "round": ended.round,
        },
        "suite": suite.to_wire(),
        "samples": len(record.dataset),
        "repeats": suite.repeats,
        **told,
    }
    with (
        _replaced(folder / FORMATS["csv"]) as path,
        path.open("w", newline="", encoding="utf-8") as text,
    ):
        rows_to_csv(_read(results), [scorer.label for scorer in suite.scorers], text)
    with _replaced(folder / FORMATS["junit"]) as path, path.open("w", encoding="utf-8") as text:
        junit(summary, _read(results), text)
    with _replaced(folder / FORMATS["html"]) as path:
        write_report(path, summary, _read(results))
    write_json(folder / FORMATS["json"], summary)
    return summary


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """Where to write what then takes the place of ``path``, once it is on disk."""
    making = path.with_name(f"{path.name}.new")
    yield making
    with making.open("rb") as stream:
        os.fsync(stream.fileno())
    making.rename(path)


def _read(results: Path) -> Iterator[JSON]:
    with results.open("rb") as stream:
        for raw in stream:
            yield json.loads(raw)
