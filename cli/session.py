"""HTTP to a chatd, as every command speaks it: which key is sent, and which proxy is used."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import click
import requests

from chat.addresses import is_loopback

__all__ = ["KEY_VARIABLE", "new_session"]

#: Where the commands find the key that chatd asks them for.
KEY_VARIABLE = "CHATD_API_KEY"

_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]{1,255}")


class _Key(requests.auth.AuthBase):
    """Sends a key; without it, requests would send what ``.netrc`` has for the host."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def new_session(base: str, environ: Mapping[str, str] = os.environ) -> requests.Session:
    """A session for calls at the chatd at ``base``; they must not follow redirects.

    Raises ``click.ClickException`` for a key that cannot be sent.
    """
    key = environ.get(KEY_VARIABLE, "").strip()
    if key and _VISIBLE_ASCII.fullmatch(key) is None:
        raise click.ClickException(
            f"${KEY_VARIABLE} has {len(key)} characters, but must be 1 to 255 visible ASCII "
            "characters; give it the key as `chatd keys new` has printed it"
        )
    session = requests.Session()
    # The environment's proxy is for the way out, not for this machine.
    session.trust_env = not is_loopback(urlsplit(base).hostname or "")
    session.auth = _Key(key)
    return session
