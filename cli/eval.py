"""``chatd eval``: evaluations are started, watched, compared and fetched over HTTP."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chat.config import load_config
from cli import remote
from cli.eval_options import changing, following
from cli.eval_reports import compare, report, show

if TYPE_CHECKING:
    from cli.eval_client import EvaluationClient
    from cli.eval_ending import Follower
    from cli.eval_gate import Gate
    from cli.eval_suite import Changes, Ready

# HTTP and what draws on a terminal are imported where they are used, as in cli.main.

__all__ = ["evaluations"]

_FAILED = 1
#: What --report says for a report that is not to be saved.
_NOWHERE = "-"


class _Evaluations(remote.RemoteGroup):
    goes_on = "an evaluation that was started goes on, `chatd eval list` shows it"

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a threshold that is for nothing is a fault of the command line."""
        from cli.eval_gate import Unknown

        try:
            return super().invoke(ctx)
        except Unknown as error:
            raise click.BadParameter(str(error), param_hint="'--fail-under'") from error


class _Faulty(click.ClickException):
    """What is wrong with a suite or a dataset, a line for each fault, as compilers tell it."""

    exit_code = 2

    def show(self, file: object = None) -> None:  # noqa: ARG002 - as click has it
        """Tell it on standard error."""
        click.echo(self.message, err=True)


@click.group("eval", cls=_Evaluations)
def evaluations() -> None:
    """Ask a dataset of several models, score the answers, compare.

    \b
    Exit codes:
      0    done; for run, watch and retry: completed, enough is scored, and no
           mean is under --fail-under
      1    refused or broken off; for run, watch and retry: failed, expired,
           cancelled, or less is scored than --min-coverage; for compare:
           there is nothing to compare
      2    the command line, the suite or the dataset is wrong
      3    chatd does not answer, or not now
      4    a mean is under --fail-under, or B is worse (--fail-if-worse)
      130  Ctrl-C; an evaluation that was started goes on
    """  # noqa: D301 - click wants the character \b itself


for _command in (report, show, compare):
    evaluations.add_command(_command)

_suite = click.argument(
    "suite", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="SUITE.toml"
)
_evaluation_id = click.argument("evaluation_id", metavar="ID")


@evaluations.command()
@_suite
@changing
@remote.metadata
@click.option("--detach", is_flag=True, help="Print the evaluation's id and do not watch.")
@click.option(
    "--report",
    "page",
    metavar="FILE",
    help="Where the report goes; - for nowhere (default: NAME-ID.html in this folder).",
)
@following
def run(
    *,
    suite: Path,
    changes: Changes,
    metadata: Mapping[str, str],
    detach: bool,
    page: str | None,
    follower: Follower,
    gate: Gate,
) -> None:
    """Check SUITE.toml and its dataset, start the evaluation, watch it, save its report.

    The evaluation's id is the first line of the output. Ctrl-C leaves it running. What is wrong
    with suite or dataset is told before anything is sent. The exit codes stand in
    `chatd eval --help`.
    """
    from cli.eval_ending import report_name

    if detach and (page is not None or gate.thresholds):
        raise click.UsageError("--detach does not wait for the end: drop it, or what needs the end")
    if page not in (None, _NOWHERE) and not Path(page).absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder for {page}; make it", param_hint="'--report'")
    with _ready(suite, changes, follower.url) as found:
        gate.check(
            [candidate.label for candidate in found.suite.candidates],
            [scorer.label for scorer in found.suite.scorers],
        )
        made_id, over = _start(follower, found, metadata)
    click.echo(made_id)
    if not detach or over:
        name = report_name(made_id, found.suite.name) if page is None else Path(page)
        saved = None if page == _NOWHERE else name
        raise SystemExit(follower.to_the_end(made_id, gate, saved))


def _start(follower: Follower, found: Ready, metadata: Mapping[str, str]) -> tuple[str, bool]:
    """Upload the dataset and start the evaluation: its id, and whether it is over already."""
    from cli.files import upload
    from cli.http import Unavailable

    file_id = upload(follower.client, found.dataset)
    # One key for all attempts: the answer to the first may be lost although it was started.
    create = partial(
        follower.client.create,
        found.wire,
        file_id,
        metadata=metadata,
        key=f"chatd-eval-{uuid.uuid4().hex}",
    )
    try:
        made = follower.patience.ask(create)
    except (Unavailable, KeyboardInterrupt):
        click.echo(
            f"the dataset is stored as {file_id}, but whether an evaluation was started is not "
            "known; `chatd eval list` tells.",
            err=True,
        )
        raise
    return made.id, made.over


@evaluations.command()
@_suite
@changing
def check(*, suite: Path, changes: Changes) -> None:
    """Check SUITE.toml and its dataset, and send nothing.

    Whether its models exist is not looked at. The exit code is 2 if something is wrong.
    """
    from cli.phrases import count

    with _ready(suite, changes, None) as found:
        verdicts = found.answers * len(found.suite.judges)
        judged = f" and {count(verdicts, 'verdict')}" if verdicts else ""
        click.echo(
            f"{suite}: {count(found.samples, 'sample')} x "
            f"{count(len(found.suite.models), 'model')} x "
            f"{count(found.suite.repeats, 'repeat')}: {count(found.answers, 'answer')}{judged}"
        )


@evaluations.command()
@_evaluation_id
@following
def watch(*, evaluation_id: str, follower: Follower, gate: Gate) -> None:
    """Show how evaluation ID goes, and its table at the end; Ctrl-C leaves it running.

    The exit codes stand in `chatd eval --help`.
    """
    raise SystemExit(follower.to_the_end(evaluation_id, gate, None))


@evaluations.command()
@_evaluation_id
@click.option("--detach", is_flag=True, help="Do not watch.")
@following
def retry(*, evaluation_id: str, detach: bool, follower: Follower, gate: Gate) -> None:
    """Ask again what has failed of evaluation ID, and watch it.

    That is what has no answer, or no verdict that can be read; the rest stays. The exit code is 1
    if there is nothing of that kind.
    """
    from cli.eval_view import standing

    asked = follower.client.retry(evaluation_id)
    if not detach:
        raise SystemExit(follower.to_the_end(asked.id, gate, None))
    for told in standing(asked):
        click.echo(told)


@evaluations.command()
@_evaluation_id
@remote.url
def cancel(evaluation_id: str, url: str | None) -> None:
    """Cancel evaluation ID; what has been answered stays, and is reported.

    The exit code is 1 if it was over before.
    """
    from cli.eval_view import hint, standing

    found = _client(url).cancel(evaluation_id)
    for told in standing(found):
        click.echo(told)
    if not found.over:
        click.echo(f"  {hint('watch', found.id, url)} waits for its end")
    raise SystemExit(_FAILED if found.over and found.status != "cancelled" else 0)


@evaluations.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--after", metavar="ID", help="Go on behind this evaluation.")
@remote.url
def list_evaluations(limit: int, after: str | None, url: str | None) -> None:
    """List evaluations, the newest first."""
    from cli.eval_view import listed

    found, more = _client(url).evaluations(limit=limit, after=after)
    for one in found:
        click.echo(listed(one))
    if found and more:
        click.echo(f"There are more: add --after {found[-1].id}", err=True)


@evaluations.command()
def schema() -> None:
    """Print the JSON Schema of a suite, as editors take it."""
    from chat.evaluations.suite import suite_schema

    click.echo(json.dumps(suite_schema(), indent=2))


@evaluations.command()
@click.option("--clear", is_flag=True, help="Forget them.")
@remote.url
def cache(clear: bool, url: str | None) -> None:  # noqa: FBT001 - click names the option after it
    """Show how many answers at temperature 0 are known."""
    from cli.phrases import count, created

    client = _client(url)
    if clear:
        click.echo(f"{count(client.clear_cache(), 'answer')} forgotten")
        return
    kept = client.cache()
    oldest = kept["oldest_at"]
    since = "" if oldest is None else f", the oldest of {created(oldest)}"
    click.echo(f"{count(kept['answers'], 'answer')} known, {kept['bytes'] / 1e6:.1f} MB{since}")


def _client(url: str | None) -> EvaluationClient:
    from cli.eval_client import EvaluationClient

    return EvaluationClient(remote.base_url(url))


@contextmanager
def _ready(suite: Path, changes: Changes, url: str | None) -> Iterator[Ready]:
    """The suite and its dataset, checked. Ends the command if something is wrong with them."""
    from cli.eval_suite import Limits, SuiteFault, ready

    # What another chatd takes is for it to say.
    limits = Limits() if url is not None else Limits.of(load_config())
    try:
        with ready(suite, changes, limits) as found:
            yield found
    except SuiteFault as error:
        raise _Faulty(str(error)) from error
