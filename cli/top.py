"""``chatd top``: asks ``GET /v1/chat/providers`` again and again, and shows what is going on.

On a terminal it is a view that is drawn anew, elsewhere lines for other programs. How both look is
told in ``cli.overview``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

import click
import requests
from rich.console import Console
from rich.live import Live
from rich.text import Text

from chat.types import JSON
from cli.overview import lines, plain, view
from cli.session import new_session

__all__ = ["NoAnswer", "asking", "fetch_overview", "top", "watch"]

#: Seconds one poll may take; a front end whose Redis is away needs a few to say so.
_TIMEOUT_S = 15


class NoAnswer(Exception):
    """There is nothing to show; the message says why and what to do."""


class Display(Protocol):
    """Where the polls go."""

    def show(self, now: JSON, before: JSON | None, seconds: float) -> None:
        """Show an answer; ``before`` is the one ``seconds`` earlier."""

    def trouble(self, text: str) -> None:
        """Show that there was no answer."""


def fetch_overview(session: requests.Session, base: str) -> JSON:
    """The answer of ``GET /v1/chat/providers`` at ``base``. Raises ``NoAnswer``."""
    try:
        answer = session.get(
            f"{base}/v1/chat/providers", timeout=_TIMEOUT_S, allow_redirects=False
        ).json()
    except requests.JSONDecodeError as error:
        raise NoAnswer(_stranger(base)) from error
    except requests.RequestException as error:
        raise NoAnswer(
            f"not reachable: {base} does not answer ({type(error).__name__}); "
            "is `chatd up` running?"
        ) from error
    match answer:
        case {"error": {"code": str(code), "message": str(message)}}:
            raise NoAnswer(plain(f"{base} answers {code}: {message}"))
        case {"providers": list(), "jobs": dict()}:
            return dict(answer)
    raise NoAnswer(_stranger(base))


def _stranger(base: str) -> str:
    return f"{base} answers, but is not a chatd of this version; look at bind in lakehouse.toml"


def asking(base: str) -> partial[JSON]:
    """What asks the chatd at ``base``, over one connection."""
    session = new_session(base)
    return partial(fetch_overview, session, base)


def top(fetch: Callable[[], JSON], *, interval_s: float, once: bool) -> int:
    """Show what ``fetch`` gets on standard output, until Ctrl-C or once; returns the exit code."""
    console = Console()
    try:
        # A pipe or a file gets lines, whatever colours the environment asks for.
        if not sys.stdout.isatty() or console.is_dumb_terminal:
            return watch(fetch, Lines(), interval_s=interval_s, once=once)
        if once:
            return watch(fetch, Once(console), interval_s=interval_s, once=True)
        with Live(Text("asking …"), console=console, auto_refresh=False) as live:
            return watch(fetch, Screen(live), interval_s=interval_s)
    except KeyboardInterrupt:
        return 0


def watch(
    fetch: Callable[[], JSON],
    display: Display,
    *,
    interval_s: float,
    once: bool = False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Poll every ``interval_s`` seconds for ever, or once; returns the exit code of that.

    Without an answer a single poll is 1, and any other is only shown. ``clock`` counts seconds and
    never goes back.
    """
    before, earlier = None, 0.0
    while True:
        began = clock()
        try:
            now = fetch()
        except NoAnswer as error:
            display.trouble(str(error))
            if once:
                return 1
        else:
            display.show(now, before, began - earlier)
            if once:
                return 0
            before, earlier = now, began
        sleep(max(0.0, began + interval_s - clock()))


class Lines:
    """A poll as lines of ``key=value``; trouble goes to standard error."""

    def show(self, now: JSON, before: JSON | None, seconds: float) -> None:
        """One line per budget, and one for the totals."""
        for line in lines(now, before, seconds, at=datetime.now(UTC)):
            click.echo(line)

    def trouble(self, text: str) -> None:
        """The reason, in one line."""
        click.echo(f"Error: {text}", err=True)


class Once(Lines):
    """One view on a terminal, which stays there."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, now: JSON, before: JSON | None, seconds: float) -> None:
        """The table."""
        self._console.print(view(now, before, seconds))


class Screen:
    """A view on a terminal, drawn again with each poll."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, now: JSON, before: JSON | None, seconds: float) -> None:
        """The table in place of the last one."""
        self._live.update(view(now, before, seconds), refresh=True)

    def trouble(self, text: str) -> None:
        """The reason in place of numbers that are no longer true."""
        self._live.update(Text(text, style="red"), refresh=True)
