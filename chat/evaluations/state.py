"""What is known of every answer and verdict of an evaluation, without their texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from chat.evaluations.calls import Task, Trial
from chat.evaluations.scorers import Score
from chat.evaluations.suite import Suite
from chat.routing import Route
from chat.types import JSON

__all__ = ["Known", "State", "Verdict"]


@dataclass(slots=True)
class Verdict:
    """A judge's word on one answer; ``offsets`` are the log's, of every try in every round.

    Without ``score`` the second try is still to come.
    """

    round: int
    offsets: list[int]
    score: Score | None = None


@dataclass(slots=True)
class Known:
    """What came of one task: ``code`` is that of an error. ``offsets`` has one for each round."""

    round: int
    offsets: list[int]
    code: str | None = None
    cached: bool = False
    scores: dict[int, Score] = field(default_factory=dict)
    verdicts: dict[int, Verdict] = field(default_factory=dict)

    def score(self, place: int) -> Score | None:
        """The score of a scorer, if there is one by now."""
        if place in self.scores:
            return self.scores[place]
        verdict = self.verdicts.get(place)
        return None if verdict is None else verdict.score


@dataclass(slots=True)
class _Spent:
    """Calls that were made, and what they cost; cached answers are none."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None

    def add(self, entry: JSON) -> None:
        answer = entry["answer"]
        if entry["cached"] or answer is None:
            return
        self.calls += 1
        self.input_tokens += answer["input_tokens"] or 0
        self.output_tokens += answer["output_tokens"] or 0
        if answer["cost_usd"] is not None:
            self.cost_usd = (self.cost_usd or 0.0) + answer["cost_usd"]

    def shown(self) -> JSON:
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": self.cost_usd,
        }


@dataclass(slots=True)
class _Tally:
    """One model's numbers so far; ``statuses`` and ``sums`` are by the scorer's place."""

    answered: int = 0
    cached: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    statuses: Counter[tuple[int, str]] = field(default_factory=Counter)
    sums: dict[int, float] = field(default_factory=dict)
    spent: _Spent = field(default_factory=_Spent)
    judged: _Spent = field(default_factory=_Spent)


class State:
    """Everything an evaluation knows; made of its log, and told of each new entry."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._known: dict[Task, Known] = {}
        self._tallies = [_Tally() for _ in suite.models]

    def known(self, task: Task) -> Known | None:
        """What came of a task so far."""
        return self._known.get(task)

    def answered(self, task: Task, entry: JSON, offset: int, scores: dict[int, Score]) -> None:
        """Take note of an answer with its scores, or of an error."""
        before = self._known.get(task)
        error = entry["error"]
        known = Known(
            round=entry["round"],
            offsets=[*(before.offsets if before else ()), offset],
            code=None if error is None else error["code"],
            cached=entry["cached"],
            scores=scores,
        )
        self._tallies[task.model].spent.add(entry)
        self._count(task, before, -1)
        self._known[task] = known
        self._count(task, known, 1)

    def judged(self, trial: Trial, entry: JSON, offset: int, score: Score | None) -> None:
        """Take note of what came of a try; with ``None`` the second is wanted."""
        known = self._known[trial.task]
        self._tallies[trial.task.model].judged.add(entry)
        self._count(trial.task, known, -1)
        before = known.verdicts.get(trial.scorer)
        offsets = [*(before.offsets if before else ()), offset]
        known.verdicts[trial.scorer] = Verdict(entry["round"], offsets, score)
        self._count(trial.task, known, 1)

    def wanted(self, task: Task, number: int) -> Iterator[Task | Trial]:
        """The calls that a task needs next in round ``number``, as far as is known.

        What failed in an earlier round is asked for again, what failed in this one is not.
        """
        known = self._known.get(task)
        if known is None or (known.code is not None and known.round < number):
            yield task
        elif known.code is None:
            for place, _ in self._suite.judges:
                verdict = known.verdicts.get(place)
                if verdict is None or _failed_before(verdict, number):
                    yield Trial(task, place, 1)
                elif verdict.score is None:
                    yield Trial(task, place, 2)

    def shown(self, samples: int, routes: Sequence[Route]) -> list[JSON]:
        """Each model's numbers, as the evaluation shows them while it runs."""
        total = samples * self._suite.repeats
        judges = [place for place, _ in self._suite.judges]
        return [
            {
                "name": candidate.label,
                "model": candidate.model,
                "provider": route.provider,
                "upstream_model": route.model,
                "total": total,
                "answered": tally.answered,
                "errored": tally.codes.total(),
                "cached": tally.cached,
                "truncated": None,
                "errors": dict(tally.codes),
                "scores": [self._score(tally, place) for place in range(len(self._suite.scorers))],
                "verdicts": {
                    "total": tally.answered * len(judges),
                    **{
                        status: sum(tally.statuses[place, status] for place in judges)
                        for status in ("scored", "unparsable", "errored")
                    },
                },
                "queue_ms": None,
                "model_ms": None,
                **tally.spent.shown(),
                "judge": {"calls": tally.judged.calls, **tally.judged.shown()},
            }
            for candidate, route, tally in zip(
                self._suite.candidates, routes, self._tallies, strict=True
            )
        ]

    def _score(self, tally: _Tally, place: int) -> JSON:
        scorer, scored = self._suite.scorers[place], tally.statuses[place, "scored"]
        return {
            "scorer": scorer.label,
            "type": scorer.type,
            "mean": tally.sums.get(place, 0.0) / scored if scored else None,
            "stderr": None,
            "low": None,
            "high": None,
            "scored": scored,
            "unparsable": tally.statuses[place, "unparsable"],
            "errored": tally.statuses[place, "errored"],
            "samples": None,
        }

    def _count(self, task: Task, known: Known | None, sign: int) -> None:
        """Add what is known of a task to its model's numbers, or take it away again."""
        if known is None:
            return
        tally = self._tallies[task.model]
        if known.code is not None:
            tally.codes[known.code] += sign
            if not tally.codes[known.code]:
                del tally.codes[known.code]
            return
        tally.answered += sign
        tally.cached += sign * known.cached
        for place in range(len(self._suite.scorers)):
            score = known.score(place)
            if score is not None:
                tally.statuses[place, score.status] += sign
                tally.sums[place] = tally.sums.get(place, 0.0) + sign * (score.score or 0.0)


def _failed_before(verdict: Verdict, number: int) -> bool:
    readable = verdict.score is not None and verdict.score.status == "scored"
    return verdict.round < number and not readable
