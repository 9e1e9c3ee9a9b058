"""What a run has to reach for a CI system to go on: its coverage, and scores under a threshold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chat.types import JSON
from cli.eval_numbers import interval
from cli.overview import plain
from cli.phrases import count, quoted

__all__ = ["Gate", "Threshold", "Unknown"]

#: What a sum of fractions may be off.
_ROUNDING = 1e-9


class Unknown(ValueError):
    """A threshold cannot be read, or is for what the evaluation does not have."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """``text`` as it was written, ``name`` what stands before the number."""

    text: str
    name: str
    least: float

    @classmethod
    def read(cls, text: str) -> Threshold:
        """``0.8``, ``SCORER=0.8`` or ``MODEL/SCORER=0.8``. Raises ``Unknown``."""
        name, equals, number = text.rpartition("=")
        try:
            least = float(number)
        except ValueError:
            least = -1
        if not 0 <= least <= 1 or (equals and not name):
            raise Unknown(f"{text!r} is not 0.8, SCORER=0.8 or MODEL/SCORER=0.8; correct it")
        return cls(text, name, least)

    def places(self, models: Sequence[str], scorers: Sequence[str]) -> list[tuple[str, str]]:
        """The models and scorers that it is for: all models unless it names one, one scorer.

        Names may have slashes of their own. Raises ``Unknown``.
        """
        if not self.name or self.name in scorers:
            return [(model, self.name or scorers[0]) for model in models]
        found = [
            (model, scorer)
            for model in models
            for scorer in scorers
            if self.name == f"{model}/{scorer}"
        ]
        if not found:
            raise Unknown(
                f"{self.text!r} is for no score of this suite; its scorers are "
                f"{quoted(scorers)}, its models {quoted(models)}"
            )
        return found


@dataclass(frozen=True, slots=True)
class Gate:
    """The thresholds of scores, and the least share of questions that need a score, from 0 to 1."""

    thresholds: tuple[Threshold, ...]
    min_coverage: float

    def check(self, models: Sequence[str], scorers: Sequence[str]) -> None:
        """That each threshold is for something. Raises ``Unknown``."""
        for threshold in self.thresholds:
            threshold.places(models, scorers)

    def uncovered(self, summary: JSON) -> list[str]:
        """Where too little is known: answers are missing, or verdicts on them."""
        return [
            f"{plain(model['name'])}/{plain(score['scorer'])}: {score['scored']} of "
            f"{count(model['total'], 'question')} scored, a coverage of "
            f"{_under(score['scored'] / model['total'], self.min_coverage)}, which is under "
            f"{self.min_coverage:g} (--min-coverage)"
            for model in summary["models"]
            for score in model["scores"]
            if score["scored"] < self.min_coverage * model["total"] - _ROUNDING
        ]

    def missed(self, summary: JSON) -> list[str]:
        """The scores that are under a threshold. Raises ``Unknown``."""
        return [told for threshold in self.thresholds for told in _missed(summary, threshold)]


def _missed(summary: JSON, threshold: Threshold) -> Iterator[str]:
    found = {
        (model["name"], score["scorer"]): score
        for model in summary["models"]
        for score in model["scores"]
    }
    models = [model["name"] for model in summary["models"]]
    scorers = [score["scorer"] for score in summary["models"][0]["scores"]]
    for model, scorer in threshold.places(models, scorers):
        score = found[model, scorer]
        told, rule = f"{plain(model)}/{plain(scorer)}", f"{threshold.least:g} (--fail-under)"
        if score["mean"] is None:
            yield f"{told}: there is no score, so that it cannot reach {rule}"
        elif score["mean"] < threshold.least - _ROUNDING:
            between = interval(score["low"], score["high"], score["samples"])
            yield (
                f"{told}: {_under(score['mean'], threshold.least)} (95 % interval {between}, "
                f"{count(score['samples'], 'sample')}) is under {rule}"
            )


def _under(value: float, least: float) -> str:
    """A value below ``least``, with as many digits as it takes to see that; at least two."""
    for digits in range(2, 9):
        text = f"{value:.{digits}f}"
        if float(text) < least:
            return text
    return repr(value)
