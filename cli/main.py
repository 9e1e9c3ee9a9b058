"""The ``chatd`` command."""

from __future__ import annotations

import os
import re
import runpy
import sys
from pathlib import Path

import click

from chat.config import ChatdConfig, load_config
from chat.errors import ConfigError, QueueUnavailable
from cli.ask import ask
from cli.audit import audit
from cli.away import INTERRUPTED
from cli.batch import batch
from cli.drain import drain, resume
from cli.eval import evaluations
from cli.gateway import gateway
from cli.keys import keys
from cli.restart import restart

# Redis and HTTP are imported where they are used: a process that becomes the front end has to
# replace blocking sockets before anything holds on to them.

__all__ = ["main"]

#: The number of a worker within its name, written in one way only.
_NUMBER = re.compile("[1-9][0-9]{0,5}")


class _Group(click.Group):
    """Says what is wrong with the configuration in one line instead of a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (ConfigError, QueueUnavailable) as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            # Whatever a command says of it is for what it has begun; this is no verdict of its.
            click.echo("Interrupted", err=True)
            raise SystemExit(INTERRUPTED) from None


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Configuration file (default: $LAKEHOUSE_CONFIG, ./lakehouse.toml, "
    "/etc/lakehouse/lakehouse.toml).",
)
@click.version_option(package_name="chatd")
def main(config_file: Path | None) -> None:
    """A queue-backed gateway to local and cloud language models."""
    if config_file is not None:
        # Whatever this command starts reads the same file.
        os.environ["LAKEHOUSE_CONFIG"] = str(config_file.resolve())


main.add_command(ask)
main.add_command(audit)
main.add_command(batch)
main.add_command(drain)
main.add_command(evaluations)
main.add_command(gateway)
main.add_command(keys)
main.add_command(restart)
main.add_command(resume)


@main.command()
def up() -> None:
    """Run everything on this machine: Redis if none is configured, keeper, workers, front end."""
    from chat.logs import configure
    from cli.up import up as run_up

    config = load_config()
    configure("up", config.log_level, config.log_format)
    raise SystemExit(run_up(config))


def _become(module: str, *arguments: str) -> None:
    """Turn this process into a part of chatd, which lies outside the command's own code."""
    sys.argv = [f"chatd {module}", *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


@main.command()
def api() -> None:
    """Run the HTTP front end."""
    _become("api")


@main.command()
@click.argument("provider")
@click.option("--instance", type=click.IntRange(min=1), help="Number in the worker's name.")
def worker(provider: str, instance: int | None) -> None:
    """Run a worker for PROVIDER: ollama, ollama_cloud, openrouter, opencode or kimi.

    openrouter-2 is a worker of openrouter with --instance 2, as units of systemd are named.
    """
    provider, dash, digits = provider.partition("-")
    if dash and (instance is not None or _NUMBER.fullmatch(digits) is None):
        raise click.BadParameter(
            f'"{provider}-{digits}" has to be a provider, or a provider and a number from 1 on and '
            f"no --instance; write {provider}, {provider}-1 or {provider} --instance 1",
            param_hint="PROVIDER",
        )
    number = digits or instance
    _become("workers", "worker", provider, *(["--instance", str(number)] if number else []))


@main.command()
def keeper() -> None:
    """Run the keeper: lost wake-ups, dead workers, deadlines, retention."""
    _become("workers", "keeper")


@main.command()
def providers() -> None:
    """Say which providers are registered, and why the others are not."""
    from cli.check import provider_rows

    for row in provider_rows(load_config(), os.environ):
        click.echo(row)


@main.command()
def check() -> None:
    """Check configuration, keys and Redis; exit 1 if something is wrong."""
    from cli.check import check as run_check

    config = load_config()
    report = run_check(config, os.environ, lambda: _ping(config))
    for line in report.lines:
        click.echo(line)
    raise SystemExit(0 if report.ok else 1)


def _ping(config: ChatdConfig) -> None:
    from chat.connection import await_redis, check_durability, connect, redis_url

    client = connect(redis_url(config), timeout_s=2, retries=0)
    await_redis(client, timeout_s=0)
    check_durability(client, config.durability)


@main.command()
@click.option(
    "--interval",
    type=click.IntRange(min=1, max=3600),
    default=2,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Look once and exit; 1 without an answer.")
def top(interval: int, once: bool) -> None:  # noqa: FBT001 - click names the option after it
    """Show queues, rates, cool-downs and calls in flight, again and again."""
    from cli.top import asking
    from cli.top import top as run_top

    fetch = asking(load_config().url)
    raise SystemExit(run_top(fetch, interval_s=interval, once=once))
