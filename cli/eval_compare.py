"""Two evaluations held against each other, sample by sample.

Compared are the samples of both that expect the same. What else is not the same in both is told:
a difference may come from there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from chat.evaluations.figures import comparison_of_two
from chat.types import JSON
from cli.drawing import drawn
from cli.eval_numbers import chance, score, signed
from cli.overview import plain
from cli.phrases import count, quoted

__all__ = ["Comparison", "Incomparable", "Run", "compare"]

#: Samples that are named in a list.
_MOST_NAMED = 10
_FIGURES = ("A", "B", "B - A", "95 % interval", "better", "worse", "same", "p", "samples")


class Incomparable(Exception):
    """The two have nothing that can be compared; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Run:
    """An evaluation that is over: its summary, and its rows as often as they are wanted."""

    summary: JSON
    rows: Callable[[], Iterator[JSON]]

    @property
    def id(self) -> str:
        """Its id."""
        found: str = self.summary["evaluation"]["id"]
        return found

    @property
    def models(self) -> list[str]:
        """The names of its models."""
        return [model["name"] for model in self.summary["models"]]

    @property
    def scorers(self) -> dict[str, JSON]:
        """Its scorers with their settings, by name."""
        return {
            scorer.get("name") or scorer["type"]: scorer
            for scorer in self.summary["suite"]["scorers"]
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """How ``b`` does against ``a``; ``common`` samples were compared.

    ``notes`` are sentences; ``unknown`` are models and scorers without a score in both.
    """

    a: Run
    b: Run
    common: int
    notes: list[str]
    pairs: list[JSON]
    unknown: list[str]

    @property
    def worse(self) -> list[JSON]:
        """Where the interval of the difference lies below 0."""
        return [pair for pair in self.pairs if pair["high"] is not None and pair["high"] < 0]

    def to_wire(self) -> JSON:
        """JSON-ready form."""
        return {
            "a": self.a.summary["evaluation"],
            "b": self.b.summary["evaluation"],
            "common": self.common,
            "notes": self.notes,
            "comparisons": self.pairs,
        }

    def lines(self, *, columns: int) -> list[str]:
        """The comparison for people, in so many ``columns`` of text."""
        models = dict.fromkeys((pair["a"], pair["b"]) for pair in self.pairs)
        return [
            *(_headed(letter, run) for letter, run in (("A", self.a), ("B", self.b))),
            f"{count(self.common, 'common sample')}",
            *(f"note: {plain(note)}" for note in self.notes),
            *(line for a, b in models for line in self._lines_of(a, b, columns)),
        ]

    def _lines_of(self, a: str, b: str, columns: int) -> list[str]:
        """One model, or two of them, by every scorer."""
        pairs = [pair for pair in self.pairs if (pair["a"], pair["b"]) == (a, b)]
        return [
            "",
            plain(_both(a, b)),
            *drawn(("scorer",), _FIGURES, [_row(pair) for pair in pairs], columns=columns),
            *(line for pair in pairs for line in _changes(pair)),
        ]


def compare(a: Run, b: Run, scorer: str | None = None) -> Comparison:
    """``b`` against ``a``, by one scorer or by all that both have. Raises ``Incomparable``."""
    scorers, models = _scorers(a, b, scorer), _models(a, b)
    asked_a = _asked(a.rows(), [name for name, _ in models])
    asked_b = _asked(b.rows(), [name for _, name in models])
    both = [sample for sample in asked_a if sample in asked_b]
    if not both:
        raise Incomparable(
            f"{a.id} and {b.id} have no common samples: they asked other datasets, or ids have "
            "changed; run both with the same dataset"
        )
    common = {sample for sample in both if asked_a[sample].expected == asked_b[sample].expected}
    if not common:
        raise Incomparable(
            f"{a.id} and {b.id} have {count(len(both), 'sample')} of the same ids, but expect "
            "something else of each: they asked other datasets; run both with the same one"
        )
    pairs = comparison_of_two(_of(a.rows(), common), _of(b.rows(), common), scorer)
    notes = [*_ended(a), *_ended(b), *_settings(a, b, scorers), *_alone(a, b, models)]
    only_one = len(asked_a) + len(asked_b) - 2 * len(both)
    if only_one:
        notes.append(f"{count(only_one, 'sample')} asked in one of them alone, left out")
    if len(common) < len(both):
        left_out = count(len(both) - len(common), "sample")
        notes.append(f"{left_out} left out, of which the two expect something else")
    changed = sum(asked_a[sample].question != asked_b[sample].question for sample in common)
    if changed:
        notes.append(f"the question is another one in {count(changed, 'common sample')}")
    compared = {(pair["a"], pair["b"], pair["scorer"]) for pair in pairs if pair["samples"]}
    unknown = [
        f"{_both(*model)}/{name}"
        for model in models
        for name in scorers
        if (*model, name) not in compared
    ]
    if unknown:
        notes.append(f"no sample has a score in both, so nothing is known: {quoted(unknown)}")
    return Comparison(a, b, len(common), notes, pairs, unknown)


@dataclass(slots=True)
class _Asked:
    """What was expected, and asked of the models that are compared, as digests."""

    expected: int
    question: int = 0


def _asked(rows: Iterable[JSON], models: list[str]) -> dict[str, _Asked]:
    found: dict[str, _Asked] = {}
    for row in rows:
        asked = found.setdefault(row["sample"], _Asked(_digest(row["expected"])))
        if row["repeat"] == 1 and row["model"] in models:
            # A system message is a setting and no question. The order of the rows is no matter.
            question = [message for message in row["messages"] if message["role"] != "system"]
            asked.question ^= _digest([models.index(row["model"]), question])
    return found


def _digest(value: object) -> int:
    text = json.dumps(value, sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest())


def _of(rows: Iterable[JSON], samples: set[str]) -> Iterator[JSON]:
    return (row for row in rows if row["sample"] in samples)


def _scorers(a: Run, b: Run, scorer: str | None) -> list[str]:
    """The scorers that are compared."""
    common = [name for name in a.scorers if name in b.scorers]
    if not common:
        raise Incomparable(
            f"{a.id} and {b.id} have no scorer in common: {quoted(a.scorers)} and "
            f"{quoted(b.scorers)}; give them the same names in their suites"
        )
    if scorer is not None and scorer not in common:
        raise Incomparable(
            f'there is no scorer "{scorer}" in both; they have {quoted(common)} in common'
        )
    return common if scorer is None else [scorer]


def _models(a: Run, b: Run) -> list[tuple[str, str]]:
    """The models that are compared: those of the same name, or the only one of each."""
    if len(a.models) == len(b.models) == 1:
        return [(a.models[0], b.models[0])]
    common = [(name, name) for name in a.models if name in b.models]
    if not common:
        raise Incomparable(
            f"{a.id} and {b.id} have no model in common: {quoted(a.models)} and "
            f"{quoted(b.models)}; give them the same names in their suites"
        )
    return common


def _ended(run: Run) -> Iterator[str]:
    status = run.summary["evaluation"]["status"]
    if status != "completed":
        yield f"{run.id} was {status} before its end, so that a part of it is missing"


def _settings(a: Run, b: Run, scorers: list[str]) -> Iterator[str]:
    for name in scorers:
        if a.scorers[name] != b.scorers[name]:
            yield f'the scorer "{name}" has other settings in each, which may make the difference'


def _alone(a: Run, b: Run, models: list[tuple[str, str]]) -> Iterator[str]:
    compared = {name for pair in models for name in pair}
    alone = [name for name in (*a.models, *b.models) if name not in compared]
    if alone:
        yield f"models of one of them alone, left out: {quoted(alone)}"


def _headed(letter: str, run: Run) -> str:
    evaluation = run.summary["evaluation"]
    size = f"{run.summary['samples']} samples x {count(len(run.models), 'model')}"
    told = f"{evaluation['id']}  {evaluation['name']}  {evaluation['status']}"
    return f"{letter}  {plain(told)}  {size} x {count(run.summary['repeats'], 'repeat')}"


def _row(pair: JSON) -> list[str]:
    return [
        pair["scorer"],
        score(pair["mean_a"], pair["samples"]),
        score(pair["mean_b"], pair["samples"]),
        signed(pair["difference"], samples=pair["samples"]),
        signed(pair["low"], pair["high"], samples=pair["samples"]),
        *(str(pair[name]) for name in ("wins", "losses", "ties")),
        chance(pair["p"]),
        str(pair["samples"]),
    ]


def _both(a: str, b: str) -> str:
    return a if a == b else f"{a} -> {b}"


def _changes(pair: JSON) -> Iterator[str]:
    for word in ("worse", "better"):
        samples = pair[word]
        if samples:
            more = len(samples) - _MOST_NAMED
            rest = f" and {more} more" if more > 0 else ""
            named = plain(", ".join(samples[:_MOST_NAMED]))
            yield f"{plain(pair['scorer'])} {word}: {named}{rest}"
