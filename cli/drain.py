"""``chatd drain`` and ``chatd resume``: no new calls of one provider, and then again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from chat.config import load_config
from chat.errors import QueueUnavailable
from chat.jobs import rfc3339
from chat.routing import PROVIDERS
from cli.away import INTERRUPTED, Away, away_is_3

if TYPE_CHECKING:
    from chat.store import JobStore

# Redis is imported where it is used, as in cli.main.

__all__ = ["drain", "resume", "wait_for_calls"]

_RESUMED = 1
#: Seconds between two looks at the calls in flight.
_LOOK_S = 0.2


@click.command()
@click.argument("provider", type=click.Choice(PROVIDERS), metavar="PROVIDER")
@click.option("--no-wait", is_flag=True, help="Do not wait for the calls in flight.")
def drain(provider: str, no_wait: bool) -> None:  # noqa: FBT001 - click names the option after it
    """Start no new call of PROVIDER, and wait until none is in flight.

    Jobs and batches are queued as ever, and wait. It holds for every worker, whatever is restarted,
    until `chatd resume PROVIDER`.

    \b
    Exit codes:
      0    drained; with --no-wait: no new call begins
      1    somebody resumed it meanwhile
      2    the command line is wrong
      3    Redis cannot be used, or the configuration
      130  Ctrl-C; the provider stays drained
    """  # noqa: D301 - click wants the character \b itself
    with away_is_3():
        store = _store()
        since, is_new = store.drain(provider)
        said = "no new call begins" if is_new else f"drained since {rfc3339(since)}"
        in_flight = len(store.calls(provider))
        click.echo(f"{provider}: {said}, {_calls(in_flight)}")
        if no_wait:
            return
        try:
            ended = wait_for_calls(store, provider, in_flight, lambda: time.sleep(_LOOK_S))
        except KeyboardInterrupt:
            click.echo(
                f"Interrupted; {provider} stays drained until `chatd resume {provider}`", err=True
            )
            raise SystemExit(INTERRUPTED) from None
        except QueueUnavailable as error:
            raise Away(f"{provider} stays drained; its calls cannot be counted: {error}") from error
    if not ended:
        click.echo(f"{provider} was resumed meanwhile", err=True)
        raise SystemExit(_RESUMED)
    click.echo("drained")


@click.command()
@click.argument("provider", type=click.Choice(PROVIDERS), metavar="PROVIDER")
def resume(provider: str) -> None:
    """Let calls of PROVIDER begin again after `chatd drain`.

    \b
    Exit codes:
      0    calls begin, whether or not the provider was drained
      2    the command line is wrong
      3    Redis cannot be used, or the configuration
    """  # noqa: D301 - click wants the character \b itself
    with away_is_3():
        since = _store().resume(provider)
    if since is None:
        click.echo(f"{provider} is not drained")
    else:
        click.echo(f"{provider}: calls begin again, after it was drained since {rfc3339(since)}")


def wait_for_calls(
    store: JobStore, provider: str, in_flight: int, pause: Callable[[], object]
) -> bool:
    """Wait until no call of a drained provider is in flight, of ``in_flight`` at first.

    False when somebody resumes it before that. A line tells of each change; ``pause`` is called
    between two looks. Raises ``QueueUnavailable``.
    """
    while in_flight:
        pause()
        before, in_flight = in_flight, len(store.calls(provider))
        if not store.drained([provider]):
            return False
        if in_flight not in (0, before):
            click.echo(_calls(in_flight))
    return True


def _calls(count: int) -> str:
    return f"{count} call{'' if count == 1 else 's'} in flight"


def _store() -> JobStore:
    """The job store of the configured Redis. Raises ``ConfigError`` and ``QueueUnavailable``."""
    from chat.connection import await_redis, connect, redis_url
    from chat.store import JobStore

    config = load_config()
    client = connect(redis_url(config), timeout_s=10)
    await_redis(client, timeout_s=0)
    return JobStore(client, config)
