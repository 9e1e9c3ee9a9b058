"""Options that several commands of ``chatd eval`` have, each group of them as one value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from cli import remote

__all__ = ["changing", "following"]

_Command = Callable[..., Any]


def _thresholds(
    _ctx: click.Context, _param: click.Parameter, written: tuple[str, ...]
) -> tuple[Any, ...]:
    from cli.eval_gate import Threshold, Unknown

    try:
        return tuple(Threshold.read(text) for text in written)
    except Unknown as error:
        raise click.BadParameter(str(error)) from error


_FOLLOWING = (
    click.option(
        "--fail-under",
        "thresholds",
        metavar="SCORE",
        multiple=True,
        callback=_thresholds,
        help="Exit with 4 if a mean is lower: 0.8 (the first scorer, every model), SCORER=0.8 or "
        "MODEL/SCORER=0.8; may be repeated.",
    ),
    click.option(
        "--min-coverage",
        type=click.FloatRange(0, 1),
        default=1.0,
        show_default=True,
        help="Exit with 1 if a smaller share of a model's questions has a score.",
    ),
    remote.interval,
    remote.patience,
    remote.url,
)

_CHANGING = (
    click.option(
        "--dataset",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="The dataset, in place of the suite's.",
    ),
    click.option(
        "--limit", type=click.IntRange(min=1), help="Ask the first so many samples alone."
    ),
    click.option(
        "--model",
        "models",
        metavar="MODEL",
        multiple=True,
        help="Ask this model in place of the suite's, with its settings if it is one of them by "
        "its name there; may be repeated.",
    ),
    click.option("--name", help="What it is called, in place of the suite's name."),
    click.option("--no-cache", is_flag=True, help="Neither use nor keep known answers."),
)


def following(command: _Command) -> _Command:
    """The options of a watch; the command gets a ``Follower`` and a ``Gate`` made of them."""

    @wraps(command)
    def wrapped(
        *,
        thresholds: tuple[Any, ...],
        min_coverage: float,
        interval: int,
        patience: int,
        url: str | None,
        **others: Any,
    ) -> Any:
        from cli.eval_client import EvaluationClient
        from cli.eval_ending import Follower
        from cli.eval_gate import Gate

        client = EvaluationClient(remote.base_url(url))
        follower = Follower(client, interval, patience, url)
        return command(follower=follower, gate=Gate(thresholds, min_coverage), **others)

    return _with(_FOLLOWING, wrapped)


def changing(command: _Command) -> _Command:
    """The options in place of what a suite file has; the command gets ``Changes``."""

    @wraps(command)
    def wrapped(
        *,
        dataset: Path | None,
        limit: int | None,
        models: tuple[str, ...],
        name: str | None,
        no_cache: bool,
        **others: Any,
    ) -> Any:
        from cli.eval_suite import Changes

        changes = Changes(dataset, models, name, cache=not no_cache, limit=limit)
        return command(changes=changes, **others)

    return _with(_CHANGING, wrapped)


def _with(options: Sequence[Callable[[_Command], _Command]], command: _Command) -> _Command:
    """The command with the options, which the help shows in their order."""
    for option in reversed(options):
        command = option(command)
    return command
