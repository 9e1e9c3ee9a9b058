"""Files that callers upload and that batches write; ``chat.file_folder`` has them on disk."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from chat.disk import disk_errors, new_file, write_all
from chat.errors import FileNotFound
from chat.file_folder import FileFolder, Purpose, StoredFile, is_file_id
from chat.formats.strict_json import shown
from chat.jobs import new_id

__all__ = [
    "LIFETIMES_S",
    "MOST_LISTED",
    "FileStore",
    "Incoming",
    "Purpose",
    "StoredFile",
    "is_file_id",
]

#: The most files that one page has, and the least and the most seconds that the caller of an upload
#: can ask it to be kept, as in OpenAI's API reference (List files, Upload file).
MOST_LISTED = 10_000
LIFETIMES_S = (3600, 2_592_000)

_WRITING = "the file cannot be stored"


class Incoming:
    """Content on its way in, from ``FileStore.incoming``; ``bytes`` says how much came so far."""

    def __init__(
        self, folder: FileFolder, draft: Path, file: FileIO, now: Callable[[], float]
    ) -> None:
        self._folder = folder
        self._draft = draft
        self._file = file
        self._now = now
        self._digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> None:
        """Append to the content. Raises ``StorageUnavailable``."""
        with disk_errors(_WRITING):
            write_all(self._file, data)
        self._digest.update(data)
        self.bytes += len(data)

    def commit(
        self,
        filename: str,
        purpose: Purpose,
        lifetime_s: int | None = None,
        key: str | None = None,
        owner: str = "",
    ) -> StoredFile:
        """Make a file of what was written, once and at the end; it is on disk when this returns.

        Without ``lifetime_s`` it never expires. With an Idempotency-Key, which has to say whose it
        is and for what, the file of an earlier call with the same content, name and purpose is
        returned instead.

        Raises ``IdempotencyMismatch`` and ``StorageUnavailable``; there is no new file then.
        """
        now = self._now()
        stored = StoredFile(
            id=new_id("file-", int(now * 1000)),
            filename=filename,
            purpose=purpose,
            bytes=self.bytes,
            created_at=int(now),
            expires_at=None if lifetime_s is None else int(now) + lifetime_s,
            sha256=self._digest.hexdigest(),
            owner=owner,
        )
        try:
            with disk_errors(_WRITING):
                os.fsync(self._file.fileno())
                self._draft.rename(self._folder.content(stored.id))
            self._folder.publish(stored)
            first = stored if key is None else self._holder(stored, key)
        except BaseException:
            self._folder.remove(stored.id)
            raise
        if first.id != stored.id:
            self._folder.remove(stored.id)
        return first

    def _holder(self, stored: StoredFile, key: str) -> StoredFile:
        """The file that has the key: ``stored`` if there was none, else that of an equal call.

        It comes after publishing: a key then never stands for a file that may not come to be.
        """
        content = json.dumps([stored.sha256, stored.filename, stored.purpose])
        body_hash = hashlib.sha256(content.encode()).hexdigest()
        first = self._folder.keys.claim(key, body_hash, stored.id)
        found = self._folder.read(first)
        if found is None or found.expired(stored.created_at):
            # Whoever removed it has not come to its key.
            self._folder.keys.forget(first)
            first = self._folder.keys.claim(key, body_hash, stored.id)
            found = self._folder.read(first)
        return found or stored


class FileStore:
    """The files below ``root``, for any number of processes of one host at once.

    ``now`` is the wall clock, in seconds since the epoch. Every method raises
    ``StorageUnavailable`` when the disk does not do what it is told.
    """

    def __init__(self, root: Path, *, now: Callable[[], float] = time.time) -> None:
        self._folder = FileFolder(root)
        self._now = now

    @contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A new file to be written in pieces; without ``commit`` nothing stays of it."""
        draft = self._folder.draft()
        with disk_errors(_WRITING):
            file = new_file(draft)
        try:
            yield Incoming(self._folder, draft, file, self._now)
        finally:
            # What cannot be removed now is removed by a later `sweep`.
            with suppress(OSError):
                draft.unlink(missing_ok=True)
                file.close()

    def adopt(
        self,
        path: Path,
        file_id: str,
        filename: str,
        purpose: Purpose,
        lifetime_s: int | None = None,
        owner: str = "",
    ) -> StoredFile:
        """Make a file of ``data_dir`` the content of file ``file_id``; ``path`` is then gone.

        It may be repeated after a crash, and done by two processes: what was adopted first stays.
        Raises ``FileNotFound`` for what is no id, and when there is nothing at ``path``.
        """
        stored = self._folder.read(_checked(file_id))
        if stored is None:
            stored = self._take_in(path, file_id, filename, purpose, lifetime_s, owner)
        with disk_errors(_WRITING):
            path.unlink(missing_ok=True)
        return stored

    def get(self, file_id: str, owner: str | None = None) -> StoredFile:
        """What is known about a file of ``owner``, ``None`` for anybody's.

        Raises ``FileNotFound``.
        """
        stored = self._folder.read(_checked(file_id))
        if stored is None or stored.expired(self._now()) or owner not in (None, stored.owner):
            raise _not_there(file_id)
        return stored

    def path(self, file_id: str) -> Path:
        """Where the content is; it may be linked to, but not written. Raises ``FileNotFound``."""
        return self._folder.content(self.get(file_id).id)

    def open(self, file_id: str) -> BinaryIO:
        """The content, which can be read to its end even if the file is deleted meanwhile.

        Raises ``FileNotFound``.
        """
        path = self.path(file_id)
        with disk_errors("the file cannot be read"):
            try:
                return path.open("rb")
            except FileNotFoundError as error:
                raise _not_there(file_id) from error

    def page(
        self,
        *,
        after: str | None = None,
        limit: int = MOST_LISTED,
        purpose: Purpose | None = None,
        newest_first: bool = True,
        owner: str | None = None,
    ) -> tuple[list[StoredFile], bool]:
        """Up to ``limit`` files in the order of their ids, and whether more follow.

        Ids sort by the time of their making. The page begins behind ``after``, which need not be
        there any more. With ``owner`` it has the files of that one.
        """
        found: list[StoredFile] = []
        now = self._now()
        for file_id in sorted(self._folder.ids(), reverse=newest_first):
            if after is not None and (file_id >= after if newest_first else file_id <= after):
                continue
            stored = self._folder.read(file_id)
            if stored is None or stored.expired(now) or purpose not in (None, stored.purpose):
                continue
            if owner not in (None, stored.owner):
                continue
            if len(found) == limit:
                return found, True
            found.append(stored)
        return found, False

    def delete(self, file_id: str, owner: str | None = None) -> None:
        """Remove a file and give up its Idempotency-Key. Raises ``FileNotFound``."""
        if not self._folder.remove(self.get(file_id, owner).id):
            raise _not_there(file_id)

    def sweep(self, now: float) -> int:
        """Remove expired files, and what processes left behind that died a day ago.

        Returns how many files had expired. Two processes may sweep at the same time.
        """
        removed = 0
        for file_id in self._folder.ids():
            stored = self._folder.read(file_id)
            if stored is not None and stored.expired(now):
                removed += self._folder.remove(file_id)
        self._folder.tidy(now)
        return removed

    def _take_in(
        self,
        path: Path,
        file_id: str,
        filename: str,
        purpose: Purpose,
        lifetime_s: int | None,
        owner: str,
    ) -> StoredFile:
        self._folder.make()
        with disk_errors(_WRITING):
            try:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                    size = file.tell()
                    os.fsync(file.fileno())
                    os.fchmod(file.fileno(), 0o600)
                # The old name stays until the file exists: a crash in between can be made good.
                with suppress(FileExistsError):
                    os.link(path, self._folder.content(file_id))
            except FileNotFoundError:
                # Another process may just have done it; else there never was anything.
                return self.get(file_id)
        now = int(self._now())
        return self._folder.publish(
            StoredFile(
                id=file_id,
                filename=filename,
                purpose=purpose,
                bytes=size,
                created_at=now,
                expires_at=None if lifetime_s is None else now + lifetime_s,
                sha256=digest,
                owner=owner,
            )
        )


def _checked(file_id: str) -> str:
    """Refuse what cannot be a file's id before it becomes part of a path."""
    if not is_file_id(file_id):
        raise FileNotFound(
            f"{shown(file_id)} is not a file id; those are file- and 26 characters, as POST "
            "/v1/files answers them"
        )
    return file_id


def _not_there(file_id: str) -> FileNotFound:
    return FileNotFound(
        f"file {file_id}: there is no such file, or it was deleted or has expired; "
        "GET /v1/files lists those that are there"
    )
