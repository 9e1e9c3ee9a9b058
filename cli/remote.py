"""What the commands have in common that ask chatd over HTTP: options, errors, exit codes."""

from __future__ import annotations

import errno
from collections.abc import Mapping

import click

from chat.addresses import http_url_fault
from chat.config import load_config
from cli.away import INTERRUPTED, Away

# HTTP and what draws on a terminal are imported where they are used, as in cli.main.

__all__ = ["RemoteGroup", "base_url", "interval", "metadata", "patience", "url"]


class RemoteGroup(click.Group):
    """Says what chatd refuses, or that it is away, in one line instead of a traceback.

    ``goes_on`` is what is said to who cannot be shown more: what was begun does not end with that.
    """

    goes_on: str

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        from cli.http import CallError, Unavailable

        try:
            return super().invoke(ctx)
        except CallError as error:
            kind = Away if isinstance(error, Unavailable) else click.ClickException
            raise kind(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click ends quietly when nobody reads on.
            raise click.ClickException(
                f"{error.filename or 'the output'}: {error.strerror or error}; {self.goes_on}"
            ) from error
        except KeyboardInterrupt:
            click.echo("Interrupted", err=True)
            raise SystemExit(INTERRUPTED) from None


def base_url(given: str | None) -> str:
    """Where chatd is: what --url says, else where the configuration binds it."""
    return given or load_config().url


def _checked_url(_ctx: click.Context, _param: click.Parameter, given: str | None) -> str | None:
    fault = None if given is None else http_url_fault(given)
    if fault is not None:
        raise click.BadParameter(f"it {fault}; write it as http://127.0.0.1:3220")
    return given


def _pairs(
    _ctx: click.Context, _param: click.Parameter, written: tuple[str, ...]
) -> Mapping[str, str]:
    pairs: dict[str, str] = {}
    for pair in written:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE")
        if key in pairs:
            raise click.BadParameter(f"{key!r} is given twice; write it once")
        pairs[key] = value
    return pairs


url = click.option(
    "--url",
    callback=_checked_url,
    help="Base URL of chatd (default: where the configuration binds it).",
)
interval = click.option(
    "--interval",
    type=click.IntRange(min=1, max=3600),
    default=2,
    show_default=True,
    help="Seconds between two looks.",
)
patience = click.option(
    "--patience",
    type=click.IntRange(min=0),
    default=300,
    show_default=True,
    help="Seconds to wait for a chatd that is away.",
)
metadata = click.option(
    "--metadata",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_pairs,
    help="Shown with it; may be repeated.",
)
