"""Commands that ask Redis or `chatd up` itself, and what they end with when neither answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from chat.errors import ConfigError, QueueUnavailable

__all__ = ["INTERRUPTED", "Away", "away_is_3"]

#: The exit code after Ctrl-C.
INTERRUPTED = 130


class Away(click.ClickException):
    """What is asked does not answer, or the configuration cannot be used: nothing is known."""

    exit_code = 3


@contextmanager
def away_is_3() -> Iterator[None]:
    """End the command with one line and exit code 3 when Redis cannot be used."""
    try:
        yield
    except (ConfigError, QueueUnavailable) as error:
        raise Away(str(error)) from error
