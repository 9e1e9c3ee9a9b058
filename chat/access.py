"""Who may call chatd: keys that callers have, of which the configuration has the hashes.

A key is 256 bits of chance, so that its plain SHA-256 tells nothing that could be tried out.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from chat.settings import KeyConfig

__all__ = ["ANYBODY", "Caller", "Keyring", "hash_of", "new_key"]

#: What a key begins with, so that whoever finds one knows what it is for.
_PREFIX = "chatd-"
_RANDOM_BYTES = 32


@dataclass(frozen=True, slots=True)
class Caller:
    """Who made a call; ``name`` is the owner of what it makes, limits are None without a bound."""

    name: str
    admin: bool = False
    requests_per_minute: int | None = None
    concurrency: int | None = None

    @property
    def sees(self) -> str | None:
        """The owner whose jobs, files and runs are shown; ``None``: everybody's."""
        return None if self.admin else self.name

    @property
    def limited(self) -> bool:
        """Whether there is a bound on its calls."""
        return self.requests_per_minute is not None or self.concurrency is not None


#: Who calls a chatd without keys: somebody on this machine, who may do everything.
ANYBODY = Caller("", admin=True)


class Keyring:
    """The keys of a configuration."""

    def __init__(self, keys: Sequence[KeyConfig]) -> None:
        self._callers = [
            (
                bytes.fromhex(digest),
                Caller(key.name, key.admin, key.requests_per_minute, key.concurrency),
            )
            for key in keys
            for digest in (key.sha256, key.previous_sha256)
            if digest
        ]

    def __bool__(self) -> bool:
        return bool(self._callers)

    def caller(self, key: str) -> Caller | None:
        """Whose key it is. However near a wrong one comes, to refuse it takes the same time."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        found = None
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        return found


def new_key() -> str:
    """A key that nobody has."""
    return _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def hash_of(key: str) -> str:
    """What the configuration has of a key."""
    return hashlib.sha256(key.encode()).hexdigest()
