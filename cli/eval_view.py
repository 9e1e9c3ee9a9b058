"""How ``chatd eval`` shows an evaluation: as lines, on a terminal, and when it is over.

Everything here is a pure function. What comes from the server is shown without anything that a
terminal would obey.
"""

from __future__ import annotations

from collections.abc import Hashable
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli.eval_numbers import score
from cli.eval_object import Evaluation, Model
from cli.eval_progress import Progress
from cli.overview import plain
from cli.pace import UNKNOWN, Pace
from cli.phrases import count, created, errors, faults, moment, money, pace, span, spent

__all__ = ["counts", "detached", "ended", "hint", "listed", "parts", "screen", "standing"]

#: Error codes of a model that are shown while it runs.
_MOST_ERRORS = 5
_BAR_WIDTH = 40


def parts(progress: Progress, *, at: datetime | None = None) -> list[tuple[Hashable, str]]:
    """A line for the whole and one for each model, each with what it is about; ``at`` is UTC.

    Of one model alone the whole says no more than the status.
    """
    evaluation = progress.evaluation
    stamp = moment(at or datetime.now(UTC))
    facts = [plain(evaluation.status) + _round(evaluation)]
    about: Hashable = (evaluation.status, evaluation.round)
    if evaluation.total:
        facts = [f"{facts[0]} {_done(evaluation)}"]
    if len(evaluation.models) > 1:
        about = evaluation
        facts += [f"{evaluation.errored} errored", *pace(*progress.pace), *_spent(evaluation)]
    models = [
        (model, f"{stamp}   {_model(model, progress.by_model.get(model.name, UNKNOWN))}")
        for model in evaluation.models
    ]
    return [(about, f"{stamp} {', '.join(facts)}"), *models]


def standing(evaluation: Evaluation) -> list[str]:
    """How far it is, for who looks once."""
    title = f"{plain(evaluation.id)}  {plain(evaluation.name)}  {plain(evaluation.status)}"
    told = f"{title}: {counts(evaluation)}"
    return [told, *(f"  {_model(model, UNKNOWN)}" for model in evaluation.models)]


def screen(progress: Progress, trouble: str = "") -> Group:
    """The progress for a terminal, with ``trouble`` below if there is some."""
    evaluation = progress.evaluation
    title = Text(plain(evaluation.name), style="bold")
    status = plain(evaluation.status) + _round(evaluation)
    title.append(f"  {plain(evaluation.id)}  {status}", style="not bold")
    rows: list[RenderableType] = [title]
    if evaluation.total:
        bar = Table.grid(padding=(0, 2))
        whole = evaluation.done + evaluation.left
        bar.add_row(
            ProgressBar(total=whole, completed=evaluation.done, width=_BAR_WIDTH),
            Text(_done(evaluation)),
        )
        rows.append(bar)
    told = (pace(*progress.pace), _spent(evaluation))
    rows += [Text(", ".join(facts)) for facts in told if facts]
    if evaluation.models:
        rows += [Text(), _models(progress)]
    if trouble:
        rows.append(Text(plain(trouble), style="red"))
    return Group(*rows)


def ended(evaluation: Evaluation, url: str | None = None) -> list[str]:
    """What is to be said when it is over: the outcome, why, and what can be done about it.

    ``url`` is what --url said, so that the commands that are named lead to the same chatd.
    """
    took = ""
    if evaluation.began_at is not None and evaluation.ended_at is not None:
        # Both are of one clock, that of chatd's host.
        took = f" after {span(evaluation.ended_at - evaluation.began_at)}"
    outcome = counts(evaluation)
    if evaluation.faults:
        outcome = f"{count(len(evaluation.faults), 'fault')} in its dataset, nothing was asked"
    lines = [f"{plain(evaluation.id)} {plain(evaluation.status)}{took}: {outcome}"]
    lines += faults(evaluation.faults)
    if evaluation.reported and evaluation.errored + evaluation.unjudged:
        lines.append(f"  what failed is asked again by {hint('retry', evaluation.id, url)}")
    return lines


def counts(evaluation: Evaluation) -> str:
    """``38 of 40 questions answered, 2 errored, 1 verdict missing``."""
    if not evaluation.total:
        return "nothing was asked" if evaluation.over else "its questions are not counted yet"
    asked = count(evaluation.total, "question")
    told = f"{evaluation.answered} of {asked} answered, {evaluation.errored} errored"
    if evaluation.unjudged:
        told += f", {count(evaluation.unjudged, 'verdict')} missing"
    return told


def hint(verb: str, evaluation_id: str, url: str | None = None, options: str = "") -> str:
    """A command to go on with, in backticks."""
    words = ["chatd eval", verb, evaluation_id, options, "" if url is None else f"--url {url}"]
    return f"`{plain(' '.join(filter(None, words)))}`"


def detached(evaluation_id: str, url: str | None = None) -> str:
    """What is said to who leaves an evaluation that goes on."""
    return (
        f"Detached; {plain(evaluation_id)} goes on. {hint('watch', evaluation_id, url)} comes back "
        f"to it, {hint('cancel', evaluation_id, url)} stops it."
    )


def listed(evaluation: Evaluation) -> str:
    """The evaluation as a line of a list."""
    facts = f"{evaluation.answered}/{evaluation.total} answered, {evaluation.errored} errored"
    return (
        f"{created(evaluation.created_at)}  {plain(evaluation.id)}  "
        f"{plain(evaluation.status):<11}  {facts}  {plain(evaluation.name)}"
    )


def _round(evaluation: Evaluation) -> str:
    return f" (round {evaluation.round})" if evaluation.round > 1 else ""


def _done(evaluation: Evaluation) -> str:
    """The percentage is of answers and verdicts, rounded down, so that 100 % means all."""
    share = evaluation.done * 100 // (evaluation.done + evaluation.left)
    return f"{share}%, {evaluation.answered}/{evaluation.total} answered"


def _spent(evaluation: Evaluation) -> list[str]:
    return spent(evaluation.cost_usd, evaluation.input_tokens, evaluation.output_tokens)


def _model(model: Model, rates: Pace) -> str:
    facts = [f"{model.answered}/{model.total} answered", f"{model.errored} errored"]
    facts += [f"{model.cached} cached"] if model.cached else []
    facts += [f"{_verdicts(model)} verdicts"] if model.verdicts else []
    facts += [_scores(model)] if _scores(model) else []
    facts += pace(rates.per_s, left_s=rates.left_s)
    facts += [] if model.cost_usd is None else [money(model.cost_usd)]
    return "; ".join(
        [f"{plain(model.name)}: {', '.join(facts)}", *errors(model.errors, _MOST_ERRORS)]
    )


def _verdicts(model: Model) -> str:
    """``11/19``, and how many of them are none: ``11/19 (2 unparsable, 1 errored)``."""
    lost = [f"{model.unparsable} unparsable"] if model.unparsable else []
    lost += [f"{model.failed} errored"] if model.failed else []
    return f"{model.judged}/{model.verdicts}" + (f" ({', '.join(lost)})" if lost else "")


def _scores(model: Model) -> str:
    return ", ".join(
        f"{plain(one.scorer)} {score(one.mean, one.scored)}" for one in model.scores if one.scored
    )


def _models(progress: Progress) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("model", overflow="fold")
    for heading in ("answered", "errored", "verdicts"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("scores so far", overflow="fold")
    for heading in ("rate", "left", "cost"):
        table.add_column(heading, justify="right", no_wrap=True)
    for model in progress.evaluation.models:
        rates = progress.by_model.get(model.name, UNKNOWN)
        lost = model.unparsable + model.failed
        table.add_row(
            Text(plain(model.name), style="bold"),
            f"{model.answered}/{model.total}",
            Text(str(model.errored), style="red" if model.errored else ""),
            Text(f"{model.judged}/{model.verdicts}" if model.verdicts else "", "red" * bool(lost)),
            Text(_scores(model)),
            ", ".join(pace(rates.per_s)),
            "" if rates.left_s is None else span(rates.left_s),
            "" if model.cost_usd is None else money(model.cost_usd),
        )
    return table
