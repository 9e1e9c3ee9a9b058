"""Where batches live: one folder each below ``data_dir/batches``, shared by front ends and keeper.

The truth about a batch is on disk, so that Redis holds no more of it than the jobs on their way:

    <id>/batch.json     what was asked for; never changes
    <id>/progress.json  how far it is; only the keeper writes it, by renaming
    <id>/input.jsonl    a hard link to the input file, which may then be deleted
    <id>/cancel         there when somebody wants the batch to end
    <id>/lock           held by the process that runs the batch
    <id>/output.jsonl, <id>/errors.jsonl   results so far; at the end they become files
    unfinished/<id>     an empty file per batch that the keeper has to look after
    keys/               which batch each Idempotency-Key stands for
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

from chat.batches.batch import Batch, Progress, Status
from chat.disk import read_json, write_json
from chat.errors import BatchNotFound
from chat.idempotency import KeyedNames
from chat.jobs import is_id

__all__ = ["BatchStore", "is_batch_id"]

_DAY_S = 86400.0


def is_batch_id(text: str) -> bool:
    """Whether a text is the id of a batch, so that it may become part of a path."""
    return is_id("batch_", text)


class BatchStore:
    """The batches of one ``data_dir``. Trouble with the disk is an ``OSError``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._unfinished = root / "unfinished"
        self._keys = KeyedNames(root / "keys")

    def of_key(self, key: str, body_hash: str) -> str | None:
        """The batch that an Idempotency-Key has made, whether or not its input file is still there.

        Raises ``IdempotencyMismatch``.
        """
        batch_id = self._keys.find(key, body_hash)
        return batch_id if batch_id is not None and self._made(batch_id) else None

    def claim(self, key: str, body_hash: str, batch_id: str) -> str:
        """The id of the batch that belongs to an Idempotency-Key: ``batch_id`` if it is a new one.

        Raises ``IdempotencyMismatch``.
        """
        return self._keys.claim(key, body_hash, batch_id)

    def create(self, batch: Batch, content: Path) -> None:
        """Make a batch out of the input file at ``content``; it is there whole or not at all.

        One that is there already stays as it is.
        """
        if self.folder(batch.id).exists():
            return
        self._unfinished.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A name of its own: threads of one process may make the same batch, for the same key.
        making = Path(mkdtemp(prefix=f".{batch.id}.", dir=self._root))
        try:
            os.link(content, making / "input.jsonl")
            write_json(making / "batch.json", batch.to_wire())
            write_json(making / "progress.json", Progress().to_wire())
            # The keeper takes a marker without a folder for one that is still being made.
            (self._unfinished / batch.id).touch()
            making.rename(self.folder(batch.id))
        except OSError:
            if not self.folder(batch.id).exists():
                raise
            # Another process was quicker with the same batch.
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def get(self, batch_id: str) -> tuple[Batch, Progress]:
        """A batch and how far it is, as its owner sees it. Raises ``BatchNotFound``."""
        if not is_batch_id(batch_id):
            raise BatchNotFound(
                f"{batch_id[:60]!r} is not a batch id; those are batch_ and 26 characters, as "
                "POST /v1/batches returns them"
            )
        folder = self.folder(batch_id)
        try:
            batch = Batch(**read_json(folder / "batch.json"))
            progress = self.progress(batch_id)
        except FileNotFoundError:
            raise BatchNotFound(f"batch {batch_id}: there is no such batch") from None
        asked = self.cancelled_at(batch_id)
        if asked is not None and progress.status in (Status.VALIDATING, Status.IN_PROGRESS):
            progress.status = Status.CANCELLING
            progress.times.setdefault("cancelling_at", asked)
        return batch, progress

    def progress(self, batch_id: str) -> Progress:
        """How far the keeper is with a batch. Raises ``FileNotFoundError``."""
        return Progress.from_wire(read_json(self.folder(batch_id) / "progress.json"))

    def page(self, after: str | None, limit: int) -> tuple[list[tuple[Batch, Progress]], bool]:
        """Up to ``limit`` batches behind the id ``after``, newest first; and if more follow."""
        names = sorted(name for name in self._names() if after is None or name < after)
        names.reverse()
        found = []
        for name in names[:limit]:
            with suppress(BatchNotFound):  # It was kept long enough just now.
                found.append(self.get(name))
        return found, len(names) > limit

    def cancel(self, batch_id: str) -> tuple[Batch, Progress]:
        """Ask for the end of a batch; one that is over stays as it is. Raises ``BatchNotFound``."""
        _, progress = self.get(batch_id)
        if not progress.status.terminal:
            (self.folder(batch_id) / "cancel").touch()
        return self.get(batch_id)

    def cancelled_at(self, batch_id: str) -> int | None:
        """When somebody asked for the end of a batch (Unix seconds), ``None`` if nobody did."""
        try:
            return int((self.folder(batch_id) / "cancel").stat().st_mtime)
        except FileNotFoundError:
            return None

    def unfinished(self) -> list[str]:
        """The batches that are not over, oldest first."""
        try:
            names = [path.name for path in self._unfinished.iterdir()]
        except FileNotFoundError:
            return []
        return sorted(name for name in names if self._made(name))

    def save(self, batch_id: str, progress: Progress) -> None:
        """Show how far a batch is; one that is over is looked after no more."""
        folder = self.folder(batch_id)
        write_json(folder / "progress.json", progress.to_wire())
        if progress.status.terminal:
            # The marker goes last: who dies before leaves it to the next keeper.
            for name in ("input.jsonl", "index.json"):
                (folder / name).unlink(missing_ok=True)
            (self._unfinished / batch_id).unlink(missing_ok=True)

    def sweep(self, oldest: float, now: float) -> int:
        """Remove batches that were over before ``oldest``, and what dead processes left behind.

        Both are Unix seconds. Returns how many batches went.
        """
        gone = 0
        for batch_id in set(self._names()) - set(self.unfinished()):
            if max(self.progress(batch_id).times.values()) < oldest:
                # It goes at once or not at all: half a batch would look like a damaged one.
                self._keys.forget(batch_id)
                going = self.folder(batch_id).rename(self._root / f".{batch_id}.gone")
                shutil.rmtree(going)
                gone += 1
        markers = [path for path in self._unfinished.glob("*") if not self._made(path.name)]
        for path in (*self._root.glob(".batch_*"), *markers):
            with suppress(FileNotFoundError):  # What was being made just now is made.
                if path.stat().st_mtime < now - _DAY_S:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        return gone

    def folder(self, batch_id: str) -> Path:
        """Where a batch keeps what belongs to it."""
        return self._root / batch_id

    def _made(self, batch_id: str) -> bool:
        return (self.folder(batch_id) / "batch.json").exists()

    def _names(self) -> list[str]:
        try:
            names = [path.name for path in self._root.iterdir()]
        except FileNotFoundError:
            return []
        return [name for name in names if is_batch_id(name)]
