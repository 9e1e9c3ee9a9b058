"""Watching something until it is over: on a terminal a view that is drawn anew, elsewhere lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

import click
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from cli.http import Unavailable
from cli.phrases import span

__all__ = ["Display", "Lines", "Patience", "Screen", "displayed", "watch"]

#: Seconds until the second look: something small is over soon.
_FIRST_PAUSE_S = 0.25
#: Seconds between two lines: a log should not grow with every item.
_LINE_S = 5


class _Passing(Protocol):
    """Something that will be over."""

    @property
    def over(self) -> bool: ...


T = TypeVar("T")
#: What is looked at, and what is shown of it.
W = TypeVar("W", bound=_Passing)
P = TypeVar("P", bound=_Passing)
Shown_contra = TypeVar("Shown_contra", contravariant=True)


class Display(Protocol[Shown_contra]):
    """Where a watch shows what it sees."""

    def show(self, progress: Shown_contra, at: float) -> None:
        """Show an answer that came at ``at``, seconds of a monotonic clock."""

    def trouble(self, text: str) -> None:
        """Show that there is no answer; called once until there is one again."""


class Lines(Generic[P]):
    """Lines for what has changed, every few seconds at most, and always the last.

    ``parts`` gives what each line is about, and the line: it is told again when that has changed.
    """

    def __init__(self, parts: Callable[[P], Sequence[tuple[Hashable, str]]]) -> None:
        self._parts = parts
        self._told: list[Hashable] = []
        self._last_at: float | None = None

    def show(self, progress: P, at: float) -> None:
        """The lines, on standard output, unless they have to wait."""
        if not (progress.over or self._last_at is None or at - self._last_at >= _LINE_S):
            return
        parts = self._parts(progress)
        changed = [line for about, line in parts if about not in self._told]
        for line in changed:
            click.echo(line)
        if changed:
            self._told, self._last_at = [about for about, _ in parts], at

    def trouble(self, text: str) -> None:
        """The reason, on standard error."""
        click.echo(text, err=True)


class Screen(Generic[P]):
    """A view on a terminal, drawn again with each answer; the last one stays.

    ``view`` draws one, with a text about trouble below it if there is some.
    """

    def __init__(self, live: Live, view: Callable[[P, str], RenderableType]) -> None:
        self._live = live
        self._view = view
        self._last: P | None = None

    def show(self, progress: P, at: float) -> None:  # noqa: ARG002 - each answer is shown
        """The view in place of the last one."""
        self._last = progress
        self._live.update(self._view(progress, ""), refresh=True)

    def trouble(self, text: str) -> None:
        """The reason below the last view, whose numbers are those of before."""
        below = Text(text, style="red") if self._last is None else self._view(self._last, text)
        self._live.update(below, refresh=True)


@contextmanager
def displayed(
    parts: Callable[[P], Sequence[tuple[Hashable, str]]], view: Callable[[P, str], RenderableType]
) -> Iterator[Display[P]]:
    """The display that fits standard output."""
    console = Console()
    # A pipe or a file gets lines, whatever colours the environment asks for.
    if not sys.stdout.isatty() or console.is_dumb_terminal:
        yield Lines(parts)
        return
    with Live(Text("asking …"), console=console, auto_refresh=False) as live:
        yield Screen(live, view)


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
    fetch: Callable[[], W],
    measure: Callable[[W, float], P],
    display: Display[P],
    *,
    patience_s: float,
    interval_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> W:
    """Show what ``fetch`` gets every ``interval_s`` seconds; the last, as soon as it is over.

    ``measure`` makes what is shown of it and of the time it came at. The first looks follow each
    other faster. Raises ``CallError`` when chatd refuses or stays away for longer than
    ``patience_s``.
    """
    patience = Patience(patience_s, display.trouble, pause_s=interval_s, clock=clock, sleep=sleep)
    pause_s = min(_FIRST_PAUSE_S, interval_s)
    while True:
        found = patience.ask(fetch)
        now = clock()
        display.show(measure(found, now), now)
        if found.over:
            return found
        sleep(pause_s)
        pause_s = min(pause_s * 2, interval_s)
