"""The figures of an evaluation as tables: its scores, what they took, and how models compare."""

from __future__ import annotations

from collections.abc import Iterator

from chat.types import JSON
from cli.drawing import drawn
from cli.eval_numbers import UNKNOWN, chance, interval, milliseconds, score, signed
from cli.overview import plain
from cli.phrases import errors, money
from cli.runs import most_frequent

__all__ = ["table"]

#: Pairs of models that are shown; of eight models there are 28.
_MOST_PAIRS = 10
_DIFFERENCES = ("difference", "95 % interval", "better", "worse", "same", "p", "samples")


def table(summary: JSON, *, columns: int) -> list[str]:
    """The lines of a summary in so many ``columns`` of text. What is 0 everywhere is left out."""
    blocks = [_scores(summary, columns), _costs(summary, columns)]
    if summary["comparisons"]:
        blocks.append(_comparisons(summary, columns))
    return [line for block in blocks for line in ("", *block)]


def _scores(summary: JSON, columns: int) -> list[str]:
    rows = []
    for model in summary["models"]:
        name = model["name"]
        for one in model["scores"]:
            count = one["samples"]
            rows.append(
                [
                    name,
                    one["scorer"],
                    score(one["mean"], count),
                    interval(one["low"], one["high"], count),
                    str(count),
                    f"{one['scored']}/{model['total']}",
                    _some(one["unparsable"]),
                    _some(one["errored"]),
                ]
            )
            name = ""
    figures = ("mean", "95 % interval", "samples", "scored", "unparsable", "errored")
    return drawn(("model", "scorer"), figures, rows, columns=columns)


def _costs(summary: JSON, columns: int) -> list[str]:
    rows = [row for model in summary["models"] for row in _costs_of(model)]
    figures = (
        *("answered", "cached", "cut off", "tokens", "cost"),
        *("queue p50/p95", "model p50/p95"),
    )
    lines = drawn(("model",), figures, rows, columns=columns)
    for model in summary["models"]:
        lines += errors(most_frequent(model["errors"]), word=f"errors of {plain(model['name'])}")
    return lines


def _costs_of(model: JSON) -> Iterator[list[str]]:
    yield [
        model["name"],
        f"{model['answered']}/{model['total']}",
        _some(model["cached"]),
        _some(model["truncated"]),
        f"{model['input_tokens']} + {model['output_tokens']}",
        _cost(model["cost_usd"]),
        _times(model["queue_ms"]),
        _times(model["model_ms"]),
    ]
    judge = model["judge"]
    if judge["calls"]:
        tokens = f"{judge['input_tokens']} + {judge['output_tokens']}"
        calls = f"{judge['calls']} calls"
        yield ["  its judges", calls, "", "", tokens, _cost(judge["cost_usd"]), "", ""]


def _comparisons(summary: JSON, columns: int) -> list[str]:
    pairs: dict[tuple[str, str], list[JSON]] = {}
    for pair in summary["comparisons"]:
        pairs.setdefault((pair["a"], pair["b"]), []).append(pair)
    lines = ["Differences on the samples that every model has a score for:"]
    for (a, b), compared in list(pairs.items())[:_MOST_PAIRS]:
        lines += ["", plain(f"{b} against {a}")]
        lines += drawn(
            ("scorer",), _DIFFERENCES, [_difference(one) for one in compared], columns=columns
        )
    if len(pairs) > _MOST_PAIRS:
        lines += ["", f"and {len(pairs) - _MOST_PAIRS} pairs of models more, in the report"]
    return lines


def _difference(pair: JSON) -> list[str]:
    return [
        pair["scorer"],
        signed(pair["difference"], samples=pair["samples"]),
        signed(pair["low"], pair["high"], samples=pair["samples"]),
        *(str(pair[name]) for name in ("wins", "losses", "ties")),
        chance(pair["p"]),
        str(pair["samples"]),
    ]


def _some(number: int) -> str:
    return str(number) if number else ""


def _cost(usd: float | None) -> str:
    return "" if usd is None else money(usd)


def _times(percentiles: JSON | None) -> str:
    if percentiles is None:
        return UNKNOWN
    return f"{milliseconds(percentiles['p50'])}/{milliseconds(percentiles['p95'])}"
