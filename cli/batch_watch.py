"""Watching a batch until it is over; see ``cli.watching``."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from cli import watching
from cli.batch_object import Batch
from cli.batch_progress import Meter, Progress
from cli.batch_view import line, screen
from cli.watching import Display

__all__ = ["displayed", "parts", "watch"]


def parts(progress: Progress) -> list[tuple[Batch, str]]:
    """The one line, to be told again when the batch has changed."""
    return [(progress.batch, line(progress, at=datetime.now(UTC)))]


def displayed() -> AbstractContextManager[Display[Progress]]:
    """The display that fits standard output."""
    return watching.displayed(parts, screen)


def watch(
    fetch: Callable[[], Batch],
    display: Display[Progress],
    *,
    patience_s: float,
    interval_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Batch:
    """Show what ``fetch`` gets every ``interval_s`` seconds; the batch, as soon as it is over.

    Raises ``CallError`` when chatd refuses or stays away for longer than ``patience_s``.
    """
    return watching.watch(
        fetch,
        Meter().measure,
        display,
        patience_s=patience_s,
        interval_s=interval_s,
        clock=clock,
        sleep=sleep,
    )
