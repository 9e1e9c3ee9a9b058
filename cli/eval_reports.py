"""The commands of ``chatd eval`` for what is over: its report, its table, a comparison of two."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from cli import remote

if TYPE_CHECKING:
    from chat.types import JSON
    from cli.eval_client import EvaluationClient
    from cli.eval_compare import Run

# HTTP and what draws on a terminal are imported where they are used, as in cli.main.

__all__ = ["FORMATS", "compare", "report", "show"]

#: The exit code of a difference that is one to the worse.
_WORSE = 4
#: The formats of a report, and how the names of their files end.
FORMATS = {"html": ".html", "json": ".json", "jsonl": ".jsonl", "csv": ".csv", "junit": ".xml"}


@click.command()
@click.argument("evaluation_id", metavar="ID")
@click.option(
    "--format",
    "kind",
    type=click.Choice(list(FORMATS)),
    default="html",
    show_default=True,
    help="The page, every figure, every answer, the same as a table, or as tests.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write (default: standard output, or NAME-ID in this folder if that is a "
    "terminal).",
)
@remote.url
def report(evaluation_id: str, kind: str, output: Path | None, url: str | None) -> None:
    """Fetch the report of evaluation ID.

    Before its first round is over there is none: the exit code is 1. With -o the file appears when
    it is whole, and not before.
    """
    from cli.eval_client import EvaluationClient
    from cli.eval_ending import report_name
    from cli.files import whole

    client = EvaluationClient(remote.base_url(url))
    if output is None and sys.stdout.isatty():
        # What models have written is for no terminal as it stands.
        name = client.evaluation(evaluation_id).name
        output = report_name(evaluation_id, name, FORMATS[kind])
    try:
        with whole(output) as out:
            client.report(evaluation_id, kind, out)
    except OSError as error:
        if output is None:
            raise
        raise click.ClickException(
            f"{output}: cannot be written ({error.strerror}); choose another file"
        ) from error
    if output is not None:
        click.echo(f"report: {output}", err=True)


@click.command()
@click.argument("evaluation_id", metavar="ID")
@remote.url
def show(evaluation_id: str, url: str | None) -> None:
    """Show the table of evaluation ID, or how far it is."""
    from cli.drawing import width
    from cli.eval_client import EvaluationClient
    from cli.eval_table import table
    from cli.eval_view import ended, hint, standing

    client = EvaluationClient(remote.base_url(url))
    found = client.evaluation(evaluation_id)
    for told in ended(found, url) if found.over else standing(found):
        click.echo(told)
    if not found.over:
        click.echo(f"  {hint('watch', found.id, url)} waits for its end")
    elif found.reported:
        for told in table(client.summary(found.id), columns=width()):
            click.echo(told)


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--scorer", metavar="NAME", help="By this scorer alone (default: all).")
@click.option("--json", "as_json", is_flag=True, help="Print every figure as JSON.")
@click.option(
    "--fail-if-worse",
    is_flag=True,
    help="Exit with 4 if B is worse: the 95 % interval of a difference lies below 0.",
)
@remote.url
def compare(
    a: str,
    b: str,
    scorer: str | None,
    as_json: bool,  # noqa: FBT001 - click names the option after it
    fail_if_worse: bool,  # noqa: FBT001 - click names the option after it
    url: str | None,
) -> None:
    """Compare evaluation B with evaluation A, sample by sample.

    Models of the same name are compared, or the only one of each, on the samples that both have a
    score for. The exit code is 1 if there is nothing to compare; with --fail-if-worse also if that
    is so of one model and scorer.
    """
    from cli.drawing import width
    from cli.eval_client import EvaluationClient
    from cli.eval_compare import Incomparable
    from cli.eval_compare import compare as run_compare
    from cli.overview import plain

    client = EvaluationClient(remote.base_url(url))
    with _fetched(client, a) as run_a, _fetched(client, b) as run_b:
        try:
            found = run_compare(run_a, run_b, scorer)
        except Incomparable as error:
            raise click.ClickException(plain(str(error))) from error
    if as_json:
        click.echo(json.dumps(found.to_wire(), indent=2))
    else:
        for told in found.lines(columns=width()):
            click.echo(told)
    if fail_if_worse:
        for pair in found.worse:
            told = plain(f"{pair['b']}/{pair['scorer']}")
            click.echo(f"{told} is worse (--fail-if-worse)", err=True)
        raise SystemExit(1 if found.unknown else _WORSE if found.worse else 0)


@contextmanager
def _fetched(client: EvaluationClient, evaluation_id: str) -> Iterator[Run]:
    """An evaluation that is over, with its rows in a file of its own as long as it is needed."""
    import tempfile

    from cli.eval_compare import Run

    summary = client.summary(evaluation_id)
    with tempfile.TemporaryFile() as rows:
        client.report(evaluation_id, "jsonl", rows)
        yield Run(summary, lambda: _read(rows))


def _read(rows: IO[bytes]) -> Iterator[JSON]:
    rows.seek(0)
    return map(json.loads, rows)
