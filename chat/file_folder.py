"""The folder ``data_dir/files``, and how a file comes to be in it and leaves it.

    <id>.jsonl   the content
    <id>.json    what is known about it; the file exists once this does, and no longer
    .<random>    content or facts that are still being written
    keys/        which file an Idempotency-Key stands for

The folder is all there is: front ends and keeper of a host work on it at once and without locks,
since whatever appears in it appears whole, by a rename or a link.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from chat.disk import create, disk_errors, sync_folder
from chat.idempotency import KeyedNames
from chat.jobs import is_id
from chat.types import JSON

__all__ = ["FileFolder", "Purpose", "StoredFile", "is_file_id"]

_log = logging.getLogger(__name__)

Purpose = Literal["batch", "batch_output"]
"""What a file is for: the input of a batch, or what became of one."""

#: Seconds after which something half-written is one of a process that died, not of one at work.
_LEFT_OVER_S = 86400

_READING = "the stored files cannot be read"


def is_file_id(text: str) -> bool:
    """Whether ``text`` has the form of a file's id; nothing else becomes part of a path."""
    return is_id("file-", text)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """What is known about a file; times in s since the epoch, by this host's clock.

    ``owner`` is the name of the key that it came with, if there is one.
    """

    id: str
    filename: str
    purpose: Purpose
    bytes: int
    created_at: int
    expires_at: int | None
    sha256: str
    owner: str = ""

    def expired(self, now: float) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now

    def to_wire(self) -> JSON:
        """OpenAI's file object (API reference, Files)."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        }


class FileFolder:
    """One such folder. Ids given to it have passed ``is_file_id``.

    Every method raises ``StorageUnavailable`` when the disk does not do what it is told.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.keys = KeyedNames(root / "keys")

    def make(self) -> None:
        """Make the folder if there is none, for its owner only."""
        with disk_errors("the folder for files cannot be made"):
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def draft(self) -> Path:
        """A name in it for something that is to be written and then given a name of its own."""
        self.make()
        return self._root / f".{os.urandom(12).hex()}"

    def content(self, file_id: str) -> Path:
        """Where the content of a file belongs."""
        return self._root / f"{file_id}.jsonl"

    def read(self, file_id: str) -> StoredFile | None:
        """What is known about a file, expired or not; ``None`` if there is none."""
        path = self._facts(file_id)
        with disk_errors(_READING):
            try:
                return StoredFile(**json.loads(path.read_bytes()))
            except FileNotFoundError:
                return None
            except (TypeError, ValueError) as error:
                _log.warning("%s cannot be read (%s); the file is left out", path, error)
                return None

    def ids(self) -> list[str]:
        """The ids of all files, expired ones as well, in no order."""
        with disk_errors(_READING):
            try:
                paths = list(self._root.iterdir())
            except FileNotFoundError:  # Nothing was stored yet.
                return []
        return [path.stem for path in paths if path.suffix == ".json" and is_file_id(path.stem)]

    def publish(self, stored: StoredFile) -> StoredFile:
        """Let a file exist whose content is in place; of two with one id the first stays."""
        draft = self.draft()
        with disk_errors("the file cannot be stored"):
            try:
                create(draft, json.dumps(asdict(stored)).encode())
                os.link(draft, self._facts(stored.id))
            except FileExistsError:
                return self.read(stored.id) or stored
            finally:
                draft.unlink(missing_ok=True)
            sync_folder(self._root)
        return stored

    def remove(self, file_id: str) -> bool:
        """Remove a file and give up its Idempotency-Key; False if it was not there any more."""
        with disk_errors("the file cannot be deleted"):
            try:
                self._facts(file_id).unlink()
                existed = True
            except FileNotFoundError:
                existed = False
            self.content(file_id).unlink(missing_ok=True)
        self.keys.forget(file_id)
        return existed

    def tidy(self, now: float) -> None:
        """Remove what processes left here that died a day ago, and keys whose file is gone."""
        for file_id in self.keys.ids():
            # A file is there before its key.
            if not self._facts(file_id).exists():
                self.keys.forget(file_id)
        with disk_errors("what is left over cannot be removed"):
            for path in [*self._root.glob(".*"), *self._root.glob("file-*.jsonl")]:
                with suppress(FileNotFoundError):  # Whoever wrote it was quicker.
                    old = now - path.stat().st_ctime > _LEFT_OVER_S
                    if old and not path.with_suffix(".json").exists():
                        path.unlink()

    def _facts(self, file_id: str) -> Path:
        return self._root / f"{file_id}.json"
