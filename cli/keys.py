"""``chatd keys``: keys for those who call chatd."""

from __future__ import annotations

import click

from chat.access import hash_of, new_key
from chat.config import is_key_name

__all__ = ["keys"]


@click.group()
def keys() -> None:
    """Make keys for those who call chatd."""


@keys.command()
@click.argument("name")
@click.option("--admin", is_flag=True, help="It sees and may do everything.")
def new(name: str, admin: bool) -> None:  # noqa: FBT001 - click names the option after it
    """Make a key for NAME, who will own what is made with it.

    The key goes to standard output, this once; what lakehouse.toml needs, to standard error.
    """
    if not is_key_name(name):
        raise click.BadParameter(
            f"{name!r} is not 1 to 64 letters, digits, '.', '_' and '-'", param_hint="NAME"
        )
    key = new_key()
    click.echo(
        f"# Put this into lakehouse.toml and run `chatd restart` (or start it anew).\n"
        f"[[chatd.keys]]\n"
        f'name = "{name}"\n'
        f'sha256 = "{hash_of(key)}"' + ("\nadmin = true" if admin else "") + "\n\n"
        f"# The key itself, which is stored nowhere: it is for {name} alone.",
        err=True,
    )
    click.echo(key)
