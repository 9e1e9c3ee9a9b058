"""Following an evaluation to its end: the watch, the table, the report, the exit code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from chat.types import JSON
from cli import watching
from cli.away import INTERRUPTED
from cli.drawing import width
from cli.eval_client import EvaluationClient
from cli.eval_gate import Gate
from cli.eval_object import Evaluation
from cli.eval_progress import Meter
from cli.eval_table import table
from cli.eval_view import detached, ended, hint, parts, screen
from cli.files import whole
from cli.http import Unavailable
from cli.watching import Patience, displayed

__all__ = ["FAILED", "UNDER", "Follower", "report_name"]

FAILED = 1
#: The exit code of a score under its threshold.
UNDER = 4


@dataclass(frozen=True, slots=True)
class Follower:
    """How evaluations are followed; ``url`` is what --url said, for the commands that are named."""

    client: EvaluationClient
    interval_s: float
    patience_s: float
    url: str | None

    @property
    def patience(self) -> Patience:
        """For a call beside the watch, whose trouble is told on standard error."""
        tell = partial(click.echo, err=True)
        return Patience(self.patience_s, tell, pause_s=self.interval_s)

    def to_the_end(self, evaluation_id: str, gate: Gate, report: Path | None) -> int:
        """Watch until it is over, and tell how it ended; the exit code.

        The page of the report goes to ``report``. Ctrl-C ends the command. Raises ``CallError``,
        ``OSError``, and ``Unknown`` for a threshold that is for nothing.
        """
        over = self.watch(evaluation_id, gate)
        for told in ended(over, self.url):
            click.echo(told)
        if not over.reported:
            return FAILED
        summary = self.patience.ask(partial(self.client.summary, over.id))
        for told in table(summary, columns=width()):
            click.echo(told)
        self._report(over, report)
        return _judged(over, summary, gate)

    def watch(self, evaluation_id: str, gate: Gate) -> Evaluation:
        """Watch until it is over."""

        def fetch() -> Evaluation:
            found = self.client.evaluation(evaluation_id)
            if found.models:
                scorers = [score.scorer for score in found.models[0].scores]
                gate.check([model.name for model in found.models], scorers)
            return found

        try:
            with displayed(parts, screen) as display:
                return watching.watch(
                    fetch,
                    Meter().measure,
                    display,
                    patience_s=self.patience_s,
                    interval_s=self.interval_s,
                )
        except KeyboardInterrupt:
            click.echo(detached(evaluation_id, self.url), err=True)
            raise SystemExit(INTERRUPTED) from None
        except Unavailable as error:
            back = hint("watch", evaluation_id, self.url)
            raise Unavailable(f"{error}; {back} comes back to it") from error

    def _report(self, over: Evaluation, path: Path | None) -> None:
        click.echo()
        if path is None:
            click.echo(f"report: {hint('report', over.id, self.url, '-o FILE')}")
            return
        self.patience.ask(partial(self._save, over.id, path))
        click.echo(f"report: {path}")

    def _save(self, evaluation_id: str, path: Path) -> None:
        with whole(path) as out:
            self.client.report(evaluation_id, "html", out)


def report_name(evaluation_id: str, name: str, suffix: str = ".html") -> Path:
    """A file in this folder for the report of the evaluation of that name."""
    stem = re.sub(r"[^\w-]+", "-", f"{name}-{evaluation_id}")
    return Path(f"{stem.lstrip('-')}{suffix}")


def _judged(over: Evaluation, summary: JSON, gate: Gate) -> int:
    """The exit code; what it is for is told on standard error."""
    if over.status != "completed":
        return FAILED
    uncovered, missed = gate.uncovered(summary), gate.missed(summary)
    for told in (*uncovered, *missed):
        click.echo(told, err=True)
    if uncovered:
        return FAILED
    return UNDER if missed else 0
