"""Where evaluations live below ``data_dir/evaluations``; ``chat.batches.runs`` has what is common.

    <id>/dataset.jsonl   a hard link to the dataset, which may then be deleted
    <id>/index.json      where its samples begin
    <id>/log.jsonl       every answer and verdict so far; all else can be made of it
    <id>/calls-N.jsonl   the calls of round N, the input of its batch
    <id>/retry           there when somebody wants what failed to be asked again
    <id>/results.jsonl, summary.json, report.html, results.csv, junit.xml   at the end of each round
    cache.db             known answers at temperature 0, of all evaluations

They stay until the evaluation goes, so that it can be retried.
"""

from __future__ import annotations

from pathlib import Path

from chat.batches.batch import Status
from chat.batches.runs import RunStore
from chat.errors import EvaluationNotFound
from chat.evaluations.cache import AnswerCache
from chat.evaluations.evaluation import Evaluation, Progress
from chat.types import JSON

__all__ = ["FORMATS", "EvaluationStore"]

#: Each format that a report can be asked for in, and its file.
FORMATS = {
    "html": "report.html",
    "json": "summary.json",
    "jsonl": "results.jsonl",
    "csv": "results.csv",
    "junit": "junit.xml",
}


class EvaluationStore(RunStore[Evaluation, Progress]):
    """The evaluations of one ``data_dir``. Trouble with the disk is an ``OSError``."""

    kind = "evaluation"
    prefix = "eval_"
    path = "/v1/evaluations"
    missing = EvaluationNotFound

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.cache = AnswerCache(root / "cache.db")

    def _read_asked(self, wire: JSON) -> Evaluation:
        return Evaluation.from_wire(wire)

    def _read_progress(self, wire: JSON) -> Progress:
        return Progress.from_wire(wire)

    def create(self, evaluation: Evaluation, dataset: Path) -> None:
        """Make an evaluation of the dataset at ``dataset``; it is there whole or not at all.

        One that is there already stays as it is.
        """
        self._make(evaluation, Progress(), dataset, "dataset.jsonl")

    def get(self, run_id: str, owner: str | None = None) -> tuple[Evaluation, Progress]:
        """An evaluation of ``owner`` and how far it is, ``None`` for anybody's.

        Raises ``EvaluationNotFound``.
        """
        evaluation, progress = super().get(run_id, owner)
        if progress.status.terminal and self.retry_asked(run_id):
            # The keeper has not come to it yet.
            cancelled = self.cancelled_at(run_id) is not None
            progress.status = Status.CANCELLING if cancelled else Status.IN_PROGRESS
        return evaluation, progress

    def retry(self, run_id: str) -> tuple[Evaluation, Progress]:
        """Have what failed of an evaluation that is over asked again.

        Raises ``EvaluationNotFound``.
        """
        _, progress = self.get(run_id)
        if progress.status.terminal:
            # In this order: a cancel that comes later is for the new round.
            (self.folder(run_id) / "cancel").unlink(missing_ok=True)
            (self.folder(run_id) / "retry").touch()
            self._look_after(run_id)
        return self.get(run_id)

    def retry_asked(self, run_id: str) -> bool:
        """Whether somebody wants another round, which has not begun."""
        return (self.folder(run_id) / "retry").exists()

    def retry_begun(self, run_id: str) -> None:
        """Take note that the round that was asked for has begun."""
        (self.folder(run_id) / "retry").unlink(missing_ok=True)

    def save(self, run_id: str, progress: Progress) -> None:
        """Show how far an evaluation is; one that is over is looked after no more."""
        super().save(run_id, progress)
        if progress.status.terminal and self.retry_asked(run_id):
            self._look_after(run_id)  # Somebody saw the end before it was put away.
