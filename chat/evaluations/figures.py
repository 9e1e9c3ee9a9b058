"""From rows to figures: what the summary of an evaluation says, and how two of them compare.

An error is in no mean. Each sample counts once, by the mean of its repeats. Models are compared on
the samples that all of them have a score for.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import combinations

from chat.evaluations.stats import mean_and_error, paired, percentiles, wilson
from chat.types import JSON

__all__ = ["Figures", "comparison_of_two"]

#: What a timeline may be divided into: the first width (seconds) that makes few enough parts.
_WIDTHS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
_MOST_PARTS = 120
_TOO_MANY = 429


@dataclass(slots=True)
class _Means:
    """One model's scores by one scorer, by sample: their sum and count over its repeats."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)

    def add(self, sample: str, score: JSON) -> None:
        self.statuses[score["status"]] += 1
        if score["status"] == "scored":
            self.sums[sample] = self.sums.get(sample, 0.0) + score["score"]
            self.counts[sample] += 1

    def means(self) -> dict[str, float]:
        return {sample: total / self.counts[sample] for sample, total in self.sums.items()}


@dataclass(slots=True)
class _Usage:
    """Tokens and known costs of some calls."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None

    def add(self, part: JSON, calls: int) -> None:
        self.calls += calls
        self.input_tokens += part["input_tokens"] or 0
        self.output_tokens += part["output_tokens"] or 0
        if part["cost_usd"] is not None:
            self.cost_usd = (self.cost_usd or 0.0) + part["cost_usd"]

    def shown(self) -> JSON:
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": self.cost_usd,
        }


@dataclass(slots=True)
class _Model:
    """What the rows of one model add up to. ``ended`` and ``refused`` are Unix seconds."""

    provider: str | None = None
    upstream_model: str | None = None
    total: int = 0
    answered: int = 0
    cached: int = 0
    truncated: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    scores: dict[str, _Means] = field(default_factory=dict)
    queue_ms: array[int] = field(default_factory=lambda: array("q"))
    model_ms: array[int] = field(default_factory=lambda: array("q"))
    ended: array[float] = field(default_factory=lambda: array("d"))
    refused: array[float] = field(default_factory=lambda: array("d"))
    usage: _Usage = field(default_factory=_Usage)
    judge: _Usage = field(default_factory=_Usage)


class Figures:
    """Is fed rows one by one, and keeps no text of them but the samples' ids.

    ``models`` are the labels in their order, ``scorers`` label and type of each. 50,000 samples of
    8 models with two scorers take about 150 MB.
    """

    def __init__(self, models: Sequence[str], scorers: Sequence[tuple[str, str]]) -> None:
        self._scorers = list(scorers)
        self._models = {
            name: _Model(scores={scorer: _Means() for scorer, _ in scorers}) for name in models
        }

    def add(self, row: JSON) -> None:
        """Take in one row of the results."""
        model = self._models[row["model"]]
        model.total += 1
        if row["status"] == "errored":
            model.errors[row["error"]["code"]] += 1
        else:
            model.answered += 1
            model.cached += row["cached"]
            model.truncated += row["finish_reason"] == "length"
            model.provider = row["provider"] or model.provider
            model.upstream_model = row["upstream_model"] or model.upstream_model
            for times, name in ((model.queue_ms, "queue_ms"), (model.model_ms, "latency_ms")):
                if row[name] is not None and not row["cached"]:
                    times.append(row[name])
            if not row["cached"]:
                model.usage.add(row, 1)
        self._look_back(model, row["attempts"])
        for name, score in row["scores"].items():
            model.scores[name].add(row["sample"], score)
            judge = score.get("judge")
            if judge is not None:
                model.judge.add(judge, len(judge["job_ids"]))
                self._look_back(model, judge["attempts"])

    def summary(self) -> JSON:
        """Models, comparisons, timeline and totals, as the summary has them."""
        models = [self._shown(name, model) for name, model in self._models.items()]
        return {
            "models": models,
            "comparisons": [
                comparison for scorer, _ in self._scorers for comparison in self._compared(scorer)
            ],
            "timeline": self._timeline(),
            "totals": {
                "rows": sum(model["total"] for model in models),
                **{
                    name: sum(model[name] for model in models)
                    for name in ("answered", "errored", "cached", "input_tokens", "output_tokens")
                },
                "cost_usd": _known_sum(model["cost_usd"] for model in models),
                "judge_calls": sum(model["judge"]["calls"] for model in models),
                "judge_cost_usd": _known_sum(model["judge"]["cost_usd"] for model in models),
            },
        }

    def means(self, model: str, scorer: str) -> dict[str, float]:
        """One model's scores by sample, each the mean of its repeats."""
        return self._models[model].scores[scorer].means()

    @staticmethod
    def _look_back(model: _Model, attempts: Iterable[JSON]) -> None:
        for attempt in attempts:
            if attempt["ended_at"] is None:
                continue
            at = datetime.fromisoformat(attempt["ended_at"]).timestamp()
            if attempt["outcome"] == "succeeded":
                model.ended.append(at)
            elif attempt["upstream_status"] == _TOO_MANY:
                model.refused.append(at)

    def _shown(self, name: str, model: _Model) -> JSON:
        return {
            "name": name,
            "provider": model.provider,
            "upstream_model": model.upstream_model,
            "total": model.total,
            "answered": model.answered,
            "errored": model.errors.total(),
            "cached": model.cached,
            "truncated": model.truncated,
            "errors": dict(model.errors.most_common()),
            "scores": [self._score(model, scorer, kind) for scorer, kind in self._scorers],
            "queue_ms": percentiles(model.queue_ms),
            "model_ms": percentiles(model.model_ms),
            **model.usage.shown(),
            "judge": {"calls": model.judge.calls, **model.judge.shown()},
        }

    @staticmethod
    def _score(model: _Model, scorer: str, kind: str) -> JSON:
        scores = model.scores[scorer]
        means = list(scores.means().values())
        mean, stderr = mean_and_error(means)
        low, high = (None, None) if mean is None else wilson(mean, len(means))
        return {
            "scorer": scorer,
            "type": kind,
            "mean": mean,
            "stderr": stderr,
            "low": low,
            "high": high,
            "scored": scores.statuses["scored"],
            "unparsable": scores.statuses["unparsable"],
            "errored": scores.statuses["errored"],
            "samples": len(means),
        }

    def _compared(self, scorer: str) -> list[JSON]:
        """Every two models on the samples that all of them have a score for."""
        means = {name: model.scores[scorer].means() for name, model in self._models.items()}
        common = [
            sample
            for sample in next(iter(means.values()))
            if all(sample in each for each in means.values())
        ]
        return [
            {"scorer": scorer, "a": a, "b": b, **paired(means[a], means[b], common).to_wire()}
            for a, b in combinations(means, 2)
        ]

    def _timeline(self) -> JSON | None:
        moments = [
            moment
            for model in self._models.values()
            for moments in (model.ended, model.refused)
            for moment in moments
        ]
        if not moments:
            return None
        begins = int(min(moments))
        span = max(moments) - begins
        width = next((w for w in _WIDTHS if span / w < _MOST_PARTS), _WIDTHS[-1])
        parts = int(span // width) + 1

        def counted(times: Iterable[float]) -> list[int]:
            counts = Counter(int((moment - begins) // width) for moment in times)
            return [counts[part] for part in range(parts)]

        return {
            "begins": begins,
            "step_s": width,
            "answered": {name: counted(model.ended) for name, model in self._models.items()},
            "refused": {name: counted(model.refused) for name, model in self._models.items()},
        }


def comparison_of_two(
    rows_a: Iterable[JSON], rows_b: Iterable[JSON], scorer: str | None = None
) -> list[JSON]:
    """Two runs against each other: models and scorers that both have, on their common samples.

    If each run has one model, those two are compared whatever they are called. Each comparison has
    ``scorer``, ``a`` and ``b`` (labels), ``mean_a`` and ``mean_b`` on the common samples, what
    ``paired`` says, and the ids of the samples that are ``worse`` and ``better`` in the second.
    """
    a, b = _means_of(rows_a), _means_of(rows_b)
    if len(a) == len(b) == 1:
        pairs = [(next(iter(a)), next(iter(b)))]
    else:
        pairs = [(name, name) for name in a if name in b]
    found = []
    for name_a, name_b in pairs:
        for name in a[name_a]:
            if name not in b[name_b] or scorer not in (None, name):
                continue
            means_a, means_b = a[name_a][name].means(), b[name_b][name].means()
            common = [sample for sample in means_a if sample in means_b]
            found.append(
                {
                    "scorer": name,
                    "a": name_a,
                    "b": name_b,
                    "mean_a": mean_and_error([means_a[sample] for sample in common])[0],
                    "mean_b": mean_and_error([means_b[sample] for sample in common])[0],
                    **paired(means_a, means_b, common).to_wire(),
                    "worse": [s for s in common if means_b[s] < means_a[s]],
                    "better": [s for s in common if means_b[s] > means_a[s]],
                }
            )
    return found


def _means_of(rows: Iterable[JSON]) -> dict[str, dict[str, _Means]]:
    """Scores by model and scorer."""
    found: dict[str, dict[str, _Means]] = {}
    for row in rows:
        scorers = found.setdefault(row["model"], {})
        for name, score in row["scores"].items():
            scorers.setdefault(name, _Means()).add(row["sample"], score)
    return found


def _known_sum(costs: Iterable[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if known else None
