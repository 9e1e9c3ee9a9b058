"""``chatd restart``: has the ``chatd up`` of this configuration restart its parts, and watches."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import click

from chat.config import load_config
from cli.away import INTERRUPTED, Away, away_is_3
from cli.instance import Restarts, restarts_of, running_pid

__all__ = ["restart", "watch"]

_GIVEN_UP = 1
#: Seconds between two looks, and seconds within which a `chatd up` has noticed the signal.
_LOOK_S = 0.2
_NOTICED_S = 30.0


@click.command()
def restart() -> None:
    """Restart all parts of a running `chatd up` in turn; nobody is refused meanwhile.

    They read configuration and keys anew. Redis goes on, and so does `chatd up` itself.

    \b
    Exit codes:
      0    done; every part is new, and what the old ones had begun is over
      1    given up; what was not restarted by then runs on
      2    the command line is wrong
      3    no `chatd up` runs with this configuration, or it cannot be used
      130  Ctrl-C; the restart goes on
    """  # noqa: D301 - click wants the character \b itself
    with away_is_3():
        data_dir = load_config().data_dir
    try:
        pid = running_pid(data_dir)
        if pid is None:
            raise Away(
                f"no `chatd up` runs in {data_dir}; start one, or name the configuration of the "
                "one that runs, as in chatd --config FILE restart"
            )
        before = restarts_of(data_dir)
        os.kill(pid, signal.SIGHUP)
        fault = watch(data_dir, pid, before, click.echo)
    except OSError as error:
        raise Away(
            f"the `chatd up` of {data_dir} cannot be reached ({error.strerror}); run this as the "
            "user that runs it"
        ) from error
    except KeyboardInterrupt:
        click.echo("Interrupted; the restart goes on", err=True)
        raise SystemExit(INTERRUPTED) from None
    if fault:
        click.echo(f"Error: {fault}", err=True)
        raise SystemExit(_GIVEN_UP)
    click.echo("restarted")


def watch(
    data_dir: Path,
    pid: int,
    before: Restarts,
    say: Callable[[str], object],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> str:
    """Wait for the end of the first restart that process ``pid`` has begun after ``before``.

    Tells ``say`` each step. Returns why it was given up, or nothing when it is done.
    """
    idle_since, said = clock(), ""
    while running_pid(data_dir) == pid:
        now = restarts_of(data_dir)
        if now.ended > before.begun:
            return now.fault
        if now.begun > now.ended:
            # Perhaps one that was asked for earlier, and goes first.
            idle_since = clock()
        elif clock() - idle_since > _NOTICED_S:
            return (
                f"`chatd up` (pid {pid}) does not begin within {_NOTICED_S:.0f} s, or cannot write "
                "down how it goes, as on a full disk; its log says which"
            )
        if now.doing and now.doing != said:
            said = now.doing
            say(said)
        sleep(_LOOK_S)
    return f"`chatd up` (pid {pid}) has ended meanwhile; its log says why"
