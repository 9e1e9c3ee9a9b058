"""How fast an evaluation goes, all of it and model by model; see ``cli.pace``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from cli import pace
from cli.eval_object import Evaluation
from cli.pace import Pace

__all__ = ["Meter", "Progress"]

#: The states whose counts come from calls.
_RUNNING = ("in_progress", "finalizing", "completed")


@dataclass(frozen=True, slots=True)
class Progress:
    """An evaluation at one moment. Rates count answers and verdicts alike."""

    evaluation: Evaluation
    pace: Pace
    by_model: Mapping[str, Pace]

    @property
    def over(self) -> bool:
        """Whether the evaluation is."""
        return self.evaluation.over


class Meter:
    """Takes one evaluation's counts as they come, and knows the rates between them."""

    def __init__(self) -> None:
        self._all = pace.Meter()
        self._models: defaultdict[str, pace.Meter] = defaultdict(pace.Meter)

    def measure(self, evaluation: Evaluation, at: float) -> Progress:
        """The progress at ``at``, seconds of a monotonic clock at which ``evaluation`` came."""
        if evaluation.status not in _RUNNING:
            # While the dataset is looked at nothing can be done; with a cancel or an expiry
            # thousands fail at once that were never called.
            return Progress(evaluation, pace.UNKNOWN, {})
        running = evaluation.status == "in_progress"
        return Progress(
            evaluation,
            self._all.measure(evaluation.done, evaluation.left if running else 0, at),
            {
                model.name: self._models[model.name].measure(
                    model.done, model.left if running else 0, at
                )
                for model in evaluation.models
            },
        )
