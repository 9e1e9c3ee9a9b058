"""Watching a batch until it is over: on a terminal a view that is drawn anew, elsewhere lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol, TypeVar

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from cli.batch_client import Unavailable
from cli.batch_object import Batch
from cli.batch_progress import Meter, Progress
from cli.batch_view import line, screen, span

__all__ = ["Display", "Lines", "Patience", "Screen", "displayed", "watch"]

T = TypeVar("T")

#: Seconds until the second look: a small batch is over soon.
_FIRST_PAUSE_S = 0.25
#: Seconds between two lines: a log should not grow with every item.
_LINE_S = 5


class Display(Protocol):
    """Where a watch shows what it sees."""

    def show(self, progress: Progress, at: float) -> None:
        """Show an answer that came at ``at``, seconds of a monotonic clock."""

    def trouble(self, text: str) -> None:
        """Show that there is no answer; called once until there is one again."""


class Lines:
    """A line when something changed, at most one every few seconds, and always the last."""

    def __init__(self) -> None:
        self._last: Batch | None = None
        self._last_at = 0.0

    def show(self, progress: Progress, at: float) -> None:
        """The line, on standard output, unless it has to wait."""
        batch = progress.batch
        first = self._last is None
        if batch.over or first or (batch != self._last and at - self._last_at >= _LINE_S):
            click.echo(line(progress, at=datetime.now(UTC)))
            self._last, self._last_at = batch, at

    def trouble(self, text: str) -> None:
        """The reason, on standard error."""
        click.echo(text, err=True)


class Screen:
    """A view on a terminal, drawn again with each answer; the last one stays."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._last: Progress | None = None

    def show(self, progress: Progress, at: float) -> None:  # noqa: ARG002 - each answer is shown
        """The view in place of the last one."""
        self._last = progress
        self._live.update(screen(progress), refresh=True)

    def trouble(self, text: str) -> None:
        """The reason below the last view, whose numbers are those of before."""
        below = Text(text, style="red") if self._last is None else screen(self._last, text)
        self._live.update(below, refresh=True)


@contextmanager
def displayed() -> Iterator[Display]:
    """The display that fits standard output."""
    console = Console()
    # A pipe or a file gets lines, whatever colours the environment asks for.
    if not sys.stdout.isatty() or console.is_dumb_terminal:
        yield Lines()
        return
    with Live(Text("asking …"), console=console, auto_refresh=False) as live:
        yield Screen(live)


class Patience:
    """Repeats a call while chatd is away, for at most ``seconds`` in a row.

    ``tell`` gets one message when it begins to wait. ``clock`` counts seconds and never goes back.
    """

    def __init__(
        self,
        seconds: float,
        tell: Callable[[str], None],
        *,
        pause_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._seconds = seconds
        self._tell = tell
        self._pause_s = pause_s
        self._clock = clock
        self._sleep = sleep

    def ask(self, call: Callable[[], T]) -> T:
        """What ``call`` returns. Raises its ``Unavailable`` when patience has ended."""
        since: float | None = None
        while True:
            try:
                return call()
            except Unavailable as error:
                now = self._clock()
                if since is None:
                    since = now
                    if self._seconds:
                        self._tell(f"{error} (waiting up to {span(self._seconds)} for it)")
                left = since + self._seconds - now
                if left <= 0:
                    raise
                self._sleep(min(self._pause_s, left))


def watch(
    fetch: Callable[[], Batch],
    display: Display,
    *,
    patience_s: float,
    interval_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Batch:
    """Show what ``fetch`` gets every ``interval_s`` seconds; the batch, as soon as it is over.

    The first looks follow each other faster. Raises ``CallError`` when chatd refuses or stays away
    for longer than ``patience_s``.
    """
    patience = Patience(patience_s, display.trouble, pause_s=interval_s, clock=clock, sleep=sleep)
    meter, pause_s = Meter(), min(_FIRST_PAUSE_S, interval_s)
    while True:
        batch = patience.ask(fetch)
        now = clock()
        display.show(meter.measure(batch, now), now)
        if batch.over:
            return batch
        sleep(pause_s)
        pause_s = min(pause_s * 2, interval_s)
