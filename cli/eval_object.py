"""The evaluation object of ``GET /v1/evaluations/<id>`` as a value; see docs/evaluations.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from chat.types import JSON
from cli.runs import OVER, Fault, ended_at, faults, most_frequent

__all__ = ["Evaluation", "Model", "Score"]


@dataclass(frozen=True, slots=True)
class Score:
    """One scorer's mean so far, and how many answers it is of."""

    scorer: str
    type: str
    mean: float | None
    scored: int


@dataclass(frozen=True, slots=True)
class Model:
    """How far one model is.

    ``errors`` has the codes of the questions without an answer, the most frequent first. Of the
    verdicts that judges owe, ``judged`` are there, ``unparsable`` and ``failed`` ones among them.
    The cost is that of answers and verdicts together, as far as it is known.
    """

    name: str
    total: int
    answered: int
    errored: int
    cached: int
    errors: tuple[tuple[str, int], ...]
    scores: tuple[Score, ...]
    judged: int
    unparsable: int
    failed: int
    cost_usd: float | None

    @classmethod
    def from_wire(cls, wire: JSON) -> Self:
        """An entry of ``models``. Raises ``KeyError`` and the like when it is none."""
        verdicts = wire["verdicts"]
        costs = [part["cost_usd"] for part in (wire, wire["judge"]) if part["cost_usd"] is not None]
        return cls(
            name=wire["name"],
            total=wire["total"],
            answered=wire["answered"],
            errored=wire["errored"],
            cached=wire["cached"],
            errors=most_frequent(wire["errors"]),
            scores=tuple(
                Score(score["scorer"], score["type"], score["mean"], score["scored"])
                for score in wire["scores"]
            ),
            judged=verdicts["scored"] + verdicts["unparsable"] + verdicts["errored"],
            unparsable=verdicts["unparsable"],
            failed=verdicts["errored"],
            cost_usd=sum(costs) if costs else None,
        )

    @property
    def asked(self) -> int:
        """Questions that are over, whichever way."""
        return self.answered + self.errored

    @property
    def verdicts(self) -> int:
        """The verdicts that there will be, if no further question fails."""
        judges = sum(score.type == "judge" for score in self.scores)
        return (self.total - self.errored) * judges

    @property
    def done(self) -> int:
        """Answers and verdicts that are over, whichever way."""
        return self.asked + self.judged

    @property
    def left(self) -> int:
        """Answers and verdicts that are still to come."""
        return self.total + self.verdicts - self.done


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation object. Times are seconds of the Unix epoch on the clock of chatd's host."""

    id: str
    name: str
    status: str
    created_at: int
    began_at: int | None
    ended_at: int | None
    round: int
    samples: int
    repeats: int
    faults: tuple[Fault, ...]
    models: tuple[Model, ...]
    cost_usd: float | None
    input_tokens: int
    output_tokens: int

    @classmethod
    def from_wire(cls, wire: JSON) -> Self:
        """What ``GET /v1/evaluations/<id>`` answers.

        Raises ``KeyError`` and the like when it is no evaluation object.
        """
        usage = wire["usage"]
        return cls(
            id=wire["id"],
            name=wire["name"],
            status=wire["status"],
            created_at=wire["created_at"],
            began_at=wire["in_progress_at"],
            ended_at=ended_at(wire),
            round=wire["round"],
            samples=wire["samples"],
            repeats=wire["repeats"],
            faults=faults(wire),
            models=tuple(Model.from_wire(model) for model in wire["models"]),
            cost_usd=usage["cost_usd"],
            input_tokens=usage["input_tokens"],
            output_tokens=usage["output_tokens"],
        )

    @property
    def over(self) -> bool:
        """Whether it has reached a state that only a retry changes."""
        return self.status in OVER

    @property
    def reported(self) -> bool:
        """Whether there is a report, once it is over: its dataset was good, and it was begun."""
        return self.round > 0

    @property
    def total(self) -> int:
        """Questions of all models."""
        return sum(model.total for model in self.models)

    @property
    def answered(self) -> int:
        """Answers of all models."""
        return sum(model.answered for model in self.models)

    @property
    def errored(self) -> int:
        """Questions of all models that have no answer."""
        return sum(model.errored for model in self.models)

    @property
    def unjudged(self) -> int:
        """Verdicts on all models that could not be had or not be read."""
        return sum(model.unparsable + model.failed for model in self.models)

    @property
    def done(self) -> int:
        """Answers and verdicts that are over, whichever way."""
        return sum(model.done for model in self.models)

    @property
    def left(self) -> int:
        """Answers and verdicts that are still to come."""
        return sum(model.left for model in self.models)
