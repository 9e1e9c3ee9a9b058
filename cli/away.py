"""Commands that ask Redis itself, and what they end with when it cannot be asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from chat.errors import ConfigError, QueueUnavailable

__all__ = ["Away", "away_is_3"]


class Away(click.ClickException):
    """Redis cannot be used, or the configuration, so that nothing is known."""

    exit_code = 3


@contextmanager
def away_is_3() -> Iterator[None]:
    """End the command with one line and exit code 3 when Redis cannot be used."""
    try:
        yield
    except (ConfigError, QueueUnavailable) as error:
        raise Away(str(error)) from error
