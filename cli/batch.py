"""``chatd batch``: files of requests, handed in, watched and fetched over HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import remote
from cli.away import INTERRUPTED

if TYPE_CHECKING:
    from cli.batch_client import BatchClient
    from cli.batch_object import Batch

# HTTP and what draws on a terminal are imported where they are used, as in cli.main.

__all__ = ["batch"]

_FAILED = 1


class _Batch(remote.RemoteGroup):
    goes_on = "a batch that was submitted goes on, `chatd batch list` shows it"


@click.group(cls=_Batch)
def batch() -> None:
    """Hand in files of requests, watch them, fetch the answers.

    \b
    Exit codes:
      0    done; for submit and watch: completed, and no item failed
      1    refused or broken off; for submit and watch: items failed, or the
           batch failed, expired or was cancelled
      2    the command line is wrong
      3    chatd does not answer, or not now
      130  Ctrl-C; a batch that was submitted goes on
    """  # noqa: D301 - click wants the character \b itself


_batch_id = click.argument("batch_id", metavar="ID")


@batch.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--endpoint",
    default="/v1/chat/completions",
    show_default=True,
    help="What the lines are requests for.",
)
@click.option("--window", default="24h", show_default=True, help="Time until it expires.")
@remote.metadata
@click.option("--detach", is_flag=True, help="Print the batch's id and do not watch.")
@remote.interval
@remote.patience
@remote.url
def submit(
    file: Path,
    endpoint: str,
    window: str,
    metadata: Mapping[str, str],
    detach: bool,  # noqa: FBT001 - click names the option after it
    interval: int,
    patience: int,
    url: str | None,
) -> None:
    """Submit FILE, one request per line, and watch it.

    The batch's id is the first line of the output. Ctrl-C leaves the batch running. The exit code
    is 0 if every item succeeded; the others stand in `chatd batch --help`.
    """
    from cli.files import upload
    from cli.http import Unavailable
    from cli.watching import Patience

    if not file.is_file() or not file.stat().st_size:
        raise click.BadParameter(f"{file}: is empty or not a regular file", param_hint="FILE")
    client = _client(url)
    file_id = upload(client, file)
    # One key for all attempts: the answer to the first may be lost although a batch was made.
    create = partial(
        client.create,
        file_id,
        endpoint=endpoint,
        window=window,
        metadata=metadata,
        key=f"chatd-batch-{uuid.uuid4().hex}",
    )
    try:
        tell = partial(click.echo, err=True)
        made = Patience(patience, tell, pause_s=interval).ask(create)
    except (Unavailable, KeyboardInterrupt):
        click.echo(
            f"{file} is stored as {file_id}, but whether a batch was made of it is not known; "
            "`chatd batch list` tells.",
            err=True,
        )
        raise
    click.echo(made.id)
    if not detach or made.over:
        over = _watch(client, made.id, interval_s=interval, patience_s=patience, url=url)
        raise SystemExit(0 if over.clean else _FAILED)


@batch.command()
@_batch_id
@remote.interval
@remote.patience
@remote.url
def watch(batch_id: str, interval: int, patience: int, url: str | None) -> None:
    """Show how batch ID goes; Ctrl-C leaves it running.

    The exit code is 0 if every item succeeded; the others stand in `chatd batch --help`.
    """
    over = _watch(_client(url), batch_id, interval_s=interval, patience_s=patience, url=url)
    raise SystemExit(0 if over.clean else _FAILED)


@batch.command()
@_batch_id
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write (default: standard output).",
)
@click.option("--errors", is_flag=True, help="Fetch the items that failed instead.")
@remote.url
def results(
    batch_id: str,
    output: Path | None,
    errors: bool,  # noqa: FBT001 - click names the option after it
    url: str | None,
) -> None:
    """Fetch the answers of batch ID, as JSON lines.

    A batch that is not over has none yet: the exit code is 1. With -o the file appears when it is
    whole, and not before.
    """
    from cli.batch_view import counts, ended, hint
    from cli.files import whole

    client = _client(url)
    found = client.batch(batch_id)
    if not found.over:
        raise click.ClickException(
            f"{found.id} is not over: {found.status}, {counts(found)}; "
            f"{hint('watch', found.id, url)} waits for it"
        )
    file_id = found.error_file_id if errors else found.output_file_id
    nothing_failed = errors and found.clean
    if file_id is None and not nothing_failed:
        wanted = "errors" if errors else "answers"
        raise click.ClickException("\n".join([f"there are no {wanted}", *ended(found, url)]))
    if found.status != "completed" or file_id is None:
        click.echo(f"{found.id} {found.status}: {counts(found)}", err=True)
    try:
        with whole(output) as out:
            if file_id is not None:
                client.download(file_id, out)
    except OSError as error:
        if output is None:
            raise
        raise click.ClickException(
            f"{output}: cannot be written ({error.strerror}); choose another file"
        ) from error


@batch.command()
@_batch_id
@click.option("--wait", is_flag=True, help="Watch until it is over.")
@remote.interval
@remote.patience
@remote.url
def cancel(
    batch_id: str,
    wait: bool,  # noqa: FBT001 - click names the option after it
    interval: int,
    patience: int,
    url: str | None,
) -> None:
    """Cancel batch ID; what is done stays.

    The exit code is 1 if it was over before.
    """
    from cli.batch_view import left_by_cancel

    client = _client(url)
    found = client.cancel(batch_id)
    if wait and not found.over:
        found = _watch(client, found.id, interval_s=interval, patience_s=patience, url=url)
    else:
        for told in left_by_cancel(found, url):
            click.echo(told)
    raise SystemExit(_FAILED if found.over and found.status != "cancelled" else 0)


@batch.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--after", metavar="ID", help="Go on behind this batch.")
@remote.url
def list_batches(limit: int, after: str | None, url: str | None) -> None:
    """List batches, the newest first."""
    from cli.batch_view import listed

    found, more = _client(url).batches(limit=limit, after=after)
    for one in found:
        click.echo(listed(one))
    if found and more:
        click.echo(f"There are more: add --after {found[-1].id}", err=True)


def _client(url: str | None) -> BatchClient:
    from cli.batch_client import BatchClient

    return BatchClient(remote.base_url(url))


def _watch(
    client: BatchClient, batch_id: str, *, interval_s: float, patience_s: float, url: str | None
) -> Batch:
    """Watch until the batch is over, and say how it ended; Ctrl-C ends the command."""
    from cli.batch_view import detached, ended, hint
    from cli.batch_watch import displayed
    from cli.batch_watch import watch as run_watch
    from cli.http import Unavailable

    fetch = partial(client.batch, batch_id)
    try:
        with displayed() as display:
            over = run_watch(fetch, display, patience_s=patience_s, interval_s=interval_s)
    except KeyboardInterrupt:
        click.echo(detached(batch_id, url), err=True)
        raise SystemExit(INTERRUPTED) from None
    except Unavailable as error:
        raise Unavailable(f"{error}; {hint('watch', batch_id, url)} comes back to it") from error
    for told in ended(over, url):
        click.echo(told)
    return over
