"""How ``chatd batch`` shows a batch: as a line, on a terminal, and when it is over.

Everything here is a pure function. What comes from the server is shown without anything that a
terminal would obey.
"""

from __future__ import annotations

from datetime import datetime

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli.batch_object import Batch
from cli.batch_progress import Progress
from cli.overview import plain
from cli.phrases import count, created, errors, faults, moment, pace, span, spent

__all__ = [
    "counts",
    "detached",
    "ended",
    "hint",
    "left_by_cancel",
    "line",
    "listed",
    "screen",
]

#: Error codes that are shown while a batch runs.
_MOST_ERRORS = 5
_BAR_WIDTH = 40


def line(progress: Progress, *, at: datetime) -> str:
    """The progress in one line; ``at`` is UTC."""
    batch = progress.batch
    facts = [plain(batch.status)]
    if batch.total:
        facts = [f"{facts[0]} {_done(batch)}", f"{batch.failed} failed", *_pace(progress)]
    parts = [", ".join([*facts, *_spent(batch)]), *_errors(batch), *_waiting(batch)]
    return f"{moment(at)} {'; '.join(parts)}"


def screen(progress: Progress, trouble: str = "") -> Group:
    """The progress for a terminal, with ``trouble`` below if there is some."""
    batch = progress.batch
    title = Text(plain(batch.id), style="bold")
    title.append(f"  {plain(batch.status)}  {plain(batch.endpoint)}", style="not bold")
    rows: list[RenderableType] = [title]
    if batch.total:
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=batch.total, completed=batch.done, width=_BAR_WIDTH),
            Text(_done(batch)),
        )
        rows.append(bar)
    rows += [Text(", ".join(facts)) for facts in (_pace(progress), _spent(batch)) if facts]
    if batch.failed:
        failed = "; ".join([f"{batch.failed} failed", *_errors(batch)])
        rows.append(Text(failed, style="red"))
    rows += [Text(waiting, style="yellow") for waiting in _waiting(batch)]
    if trouble:
        rows.append(Text(plain(trouble), style="red"))
    return Group(*rows)


def ended(batch: Batch, url: str | None = None) -> list[str]:
    """What is to be said when the batch is over: the outcome, why, and what can be fetched.

    ``url`` is what --url said, so that the commands that are named lead to the same chatd.
    """
    name = plain(batch.id)
    took = ""
    if batch.began_at is not None and batch.ended_at is not None:
        # Both are of one clock, that of chatd's host.
        took = f" after {span(batch.ended_at - batch.began_at)}"
    outcome = counts(batch)
    if batch.faults and not batch.done:
        outcome = f"{count(len(batch.faults), 'fault')} in its file, nothing was run"
    lines = [f"{name} {plain(batch.status)}{took}: {outcome}", *faults(batch.faults)]
    lines += [f"  {told}" for told in (*errors(batch.errors), ", ".join(_spent(batch))) if told]
    files = (
        (batch.output_file_id, "answers", "-o FILE"),
        (batch.error_file_id, "failed items", "--errors -o FILE"),
    )
    for file_id, word, options in files:
        if file_id is not None:
            lines.append(f"  {word}: {hint('results', batch.id, url, options)}")
    return lines


def counts(batch: Batch) -> str:
    """``12 of 100 items succeeded, 1 failed, 87 not done``; the last only if there are some."""
    if not batch.total:
        return "nothing was run" if batch.over else "its items are not counted yet"
    told = f"{batch.completed} of {count(batch.total, 'item')} succeeded, {batch.failed} failed"
    left = batch.total - batch.done
    return f"{told}, {left} not done" if left > 0 else told


def hint(verb: str, batch_id: str, url: str | None = None, options: str = "") -> str:
    """A command to go on with, in backticks."""
    words = ["chatd batch", verb, batch_id, options, "" if url is None else f"--url {url}"]
    return f"`{plain(' '.join(filter(None, words)))}`"


def detached(batch_id: str, url: str | None = None) -> str:
    """What is said to who leaves a batch that goes on."""
    return (
        f"Detached; {plain(batch_id)} goes on. {hint('watch', batch_id, url)} comes back to it, "
        f"{hint('cancel', batch_id, url)} stops it."
    )


def left_by_cancel(batch: Batch, url: str | None = None) -> list[str]:
    """What a cancel leaves, as soon as it is accepted."""
    lines = [f"{plain(batch.id)} {plain(batch.status)}: {counts(batch)}"]
    if not batch.over:
        lines.append(f"  {hint('watch', batch.id, url)} waits for its end")
    return lines


def listed(batch: Batch) -> str:
    """The batch as a line of a list."""
    facts = f"{batch.done}/{batch.total} done, {batch.failed} failed"
    return f"{created(batch.created_at)}  {plain(batch.id)}  {plain(batch.status):<11}  {facts}"


def _done(batch: Batch) -> str:
    """Rounded down, so that 100 % means all."""
    return f"{batch.done}/{batch.total} ({batch.done * 100 // batch.total}%)"


def _pace(progress: Progress) -> list[str]:
    return pace(progress.per_s, progress.overall_per_s, progress.left_s)


def _spent(batch: Batch) -> list[str]:
    return spent(batch.cost_usd, batch.input_tokens, batch.output_tokens)


def _errors(batch: Batch) -> list[str]:
    return errors(batch.errors, _MOST_ERRORS)


def _waiting(batch: Batch) -> list[str]:
    waiting = () if batch.over else batch.waiting
    told = [f"{plain(provider)} {plain(reason)}" for provider, reason in waiting]
    return [f"waiting: {', '.join(told)}"] if told else []
