"""``chatd audit``: whether anything was lost, asked of Redis itself."""

from __future__ import annotations

import json
import time

import click

from chat.config import load_config
from cli.away import Away, away_is_3

# Redis is imported where it is used, as in cli.main.

__all__ = ["audit"]

_BROKEN = 1


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object for programs.")
@click.option(
    "--limit",
    type=click.IntRange(min=1, max=5000),
    default=20,
    show_default=True,
    help="How many breaches and attempts to name; all are counted.",
)
def audit(as_json: bool, limit: int) -> None:  # noqa: FBT001 - click names the option after it
    """Prove that nothing was lost, or name what was; jobs may go on meanwhile.

    \b
    Exit codes:
      0    no breach
      1    a breach of a rule; each is named with its job
      2    the command line is wrong
      3    Redis cannot be used, or the configuration; nothing is known
      130  Ctrl-C
    """  # noqa: D301 - click wants the character \b itself
    from chat.audit import Auditor, orphans_of
    from chat.connection import await_redis, connect, redis_url
    from cli.audit_view import lines

    try:
        with away_is_3():
            config = load_config()
            client = connect(redis_url(config), timeout_s=10)
            await_redis(client, timeout_s=0)
            orphans = orphans_of(config.data_dir, time.time())
            report = Auditor(client, config).audit(orphans=orphans, limit=limit)
    except OSError as error:
        raise Away(
            f"{error.filename}: cannot be read ({error.strerror}); run it as the user that runs "
            "the workers"
        ) from error
    if as_json:
        click.echo(json.dumps(report.to_wire(), ensure_ascii=False))
    else:
        for line in lines(report):
            click.echo(line)
    raise SystemExit(0 if report.clean else _BROKEN)
