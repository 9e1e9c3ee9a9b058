"""Where batches live below ``data_dir/batches``; ``chat.batches.runs`` says what all runs have.

<id>/input.jsonl    a hard link to the input file, which may then be deleted
<id>/open           there while the input of a batch that grows may be appended to
<id>/output.jsonl, <id>/errors.jsonl   results so far; at the end they become files

What a batch is made of is gone when it is over; its results are files then.
"""

from __future__ import annotations

from pathlib import Path

from chat.batches.batch import Batch, Progress
from chat.batches.runs import RunStore
from chat.errors import BatchNotFound
from chat.types import JSON

__all__ = ["BatchStore"]


class BatchStore(RunStore[Batch, Progress]):
    """The batches of one ``data_dir``. Trouble with the disk is an ``OSError``."""

    kind = "batch"
    prefix = "batch_"
    path = "/v1/batches"
    missing = BatchNotFound
    passing = ("input.jsonl", "index.json", "open")

    def _read_asked(self, wire: JSON) -> Batch:
        return Batch(**wire)

    def _read_progress(self, wire: JSON) -> Progress:
        return Progress.from_wire(wire)

    def create(self, batch: Batch, content: Path) -> None:
        """Make a batch out of the input file at ``content``; it is there whole or not at all.

        One that is there already stays as it is.
        """
        self._make(batch, Progress(), content, "input.jsonl", ("open",) if batch.grows else ())

    def extend(self, batch_id: str, size: int) -> None:
        """Say that the input of a batch that grows is ``size`` bytes long, all of them on disk."""
        making = self.folder(batch_id) / "open.new"
        making.write_text(str(size))
        making.rename(self.folder(batch_id) / "open")

    def seal(self, batch_id: str) -> None:
        """Say that nothing more is appended to the input of a batch that grows."""
        (self.folder(batch_id) / "open").unlink(missing_ok=True)

    def size(self, batch_id: str) -> int | None:
        """How many bytes of a batch's input may be read; ``None`` when that is all of it."""
        try:
            return int((self.folder(batch_id) / "open").read_text() or 0)
        except FileNotFoundError:
            return None
