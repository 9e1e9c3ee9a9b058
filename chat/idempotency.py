"""What each Idempotency-Key stands for, where that is something on disk and not a job."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from chat.disk import create, disk_errors, sync_folder
from chat.errors import IdempotencyMismatch
from chat.types import JSON

__all__ = ["KeyedNames"]

_TROUBLE = "the Idempotency-Key cannot be kept"


class KeyedNames:
    """Keys and the ids they were given to; any number of processes may claim at once.

    Each pair is one small file under two names, so that either leads to the other: the hash of the
    key with ``.key`` and the id with ``.id``. Keys themselves are not written: they may be secrets
    of their callers. Ids become names of files, so they have to be of our own making.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str, body_hash: str) -> str | None:
        """The id that has ``key``, for the same body; ``None`` if none has it.

        Raises ``IdempotencyMismatch`` and ``StorageUnavailable``.
        """
        held = _read(self._by_key(key))
        if held is None:
            return None
        if held["body_hash"] != body_hash:
            raise IdempotencyMismatch(
                f"this Idempotency-Key belongs to {held['id']}, which had another body; "
                "send the same body or another key"
            )
        earlier: str = held["id"]
        return earlier

    def claim(self, key: str, body_hash: str, new_id: str) -> str:
        """``new_id`` if nobody has ``key`` yet; else the id that has it, for the same body.

        ``key`` has to say whose and for what it is as well: caller, method, path. Of processes that
        claim one key at the same time, one gets its own id and all others get that one. The caller
        makes what ``new_id`` stands for beforehand, and takes it back if it gets another.

        Raises ``IdempotencyMismatch`` and ``StorageUnavailable``.
        """
        by_key, by_id = self._by_key(key), self._by_id(new_id)
        pair = {"key": by_key.stem, "id": new_id, "body_hash": body_hash}
        while (earlier := self.find(key, body_hash)) is None:
            with disk_errors(_TROUBLE):
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                create(by_id, json.dumps(pair).encode())
                try:
                    # A link appears whole, and only if there is nothing of that name.
                    os.link(by_id, by_key)
                except FileExistsError:
                    by_id.unlink()
                else:
                    sync_folder(self._folder)
                    return new_id
        return earlier

    def forget(self, name: str) -> None:
        """Give up the key of an id, if it has one. Raises ``StorageUnavailable``."""
        by_id = self._by_id(name)
        pair = _read(by_id)
        if pair is None:
            return
        by_key = self._folder / f"{pair['key']}.key"
        with disk_errors(_TROUBLE):
            with suppress(FileNotFoundError):  # Another process was quicker, or it was never had.
                if by_key.samefile(by_id):
                    by_key.unlink()
            by_id.unlink(missing_ok=True)

    def ids(self) -> list[str]:
        """Every id that has a key."""
        return [path.stem for path in self._folder.glob("*.id")]

    def _by_key(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.key"

    def _by_id(self, name: str) -> Path:
        return self._folder / f"{name}.id"


def _read(path: Path) -> JSON | None:
    with disk_errors(_TROUBLE):
        try:
            pair: JSON = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
    return pair
