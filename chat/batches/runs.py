"""Where long runs live, batches and evaluations: one folder each, shared by front ends and keeper.

The truth about a run is on disk, so that Redis holds no more of it than the jobs on their way:

    <id>/<kind>.json    what was asked for; never changes
    <id>/progress.json  how far it is; only the keeper writes it, by renaming
    <id>/cancel         there when somebody wants it to end
    <id>/lock           held by the process that runs it
    unfinished/<id>     an empty file for each that the keeper has to look after
    keys/               which run each Idempotency-Key stands for
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import ClassVar, Generic, Protocol, TypeVar

from chat.batches.batch import Status
from chat.disk import read_json, write_json
from chat.errors import ChatError
from chat.idempotency import KeyedNames
from chat.jobs import is_id
from chat.types import JSON

__all__ = ["RunStore"]

_DAY_S = 86400.0


class _Asked(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def owner(self) -> str: ...

    def to_wire(self) -> JSON: ...


class _Progress(Protocol):
    status: Status
    times: dict[str, int]

    def to_wire(self) -> JSON: ...


A = TypeVar("A", bound=_Asked)
P = TypeVar("P", bound=_Progress)


class RunStore(Generic[A, P]):
    """The runs of one kind in a ``data_dir``. Trouble with the disk is an ``OSError``.

    ``kind`` is their name in messages and files, ``prefix`` that of their ids, ``path`` where they
    are over HTTP.
    """

    kind: ClassVar[str]
    prefix: ClassVar[str]
    path: ClassVar[str]
    missing: ClassVar[type[ChatError]]
    #: What goes once a run is over.
    passing: ClassVar[tuple[str, ...]] = ()

    def __init__(self, root: Path) -> None:
        self._root = root
        self._unfinished = root / "unfinished"
        self._keys = KeyedNames(root / "keys")

    # -- what each kind says for itself

    def _read_asked(self, wire: JSON) -> A:
        raise NotImplementedError

    def _read_progress(self, wire: JSON) -> P:
        raise NotImplementedError

    # -- keys

    def of_key(self, key: str, body_hash: str) -> str | None:
        """The run that an Idempotency-Key has made, whether or not its input is still there.

        Raises ``IdempotencyMismatch``.
        """
        run_id = self._keys.find(key, body_hash)
        return run_id if run_id is not None and self._made(run_id) else None

    def claim(self, key: str, body_hash: str, run_id: str) -> str:
        """The id of the run that belongs to an Idempotency-Key: ``run_id`` if it is a new one.

        Raises ``IdempotencyMismatch``.
        """
        return self._keys.claim(key, body_hash, run_id)

    # -- what there is

    def get(self, run_id: str, owner: str | None = None) -> tuple[A, P]:
        """A run of ``owner`` and how far it is, ``None`` for anybody's.

        Raises the kind's own not-found error.
        """
        if not self.is_id(run_id):
            raise self.missing(
                f"{run_id[:60]!r} is no {self.kind} id; those are {self.prefix} and 26 characters, "
                f"as POST {self.path} returns them"
            )
        folder = self.folder(run_id)
        try:
            asked = self._read_asked(read_json(folder / f"{self.kind}.json"))
            progress = self.progress(run_id)
        except FileNotFoundError:
            raise self._not_there(run_id) from None
        if owner not in (None, asked.owner):
            raise self._not_there(run_id)
        cancelled = self.cancelled_at(run_id)
        if cancelled is not None and progress.status in (Status.VALIDATING, Status.IN_PROGRESS):
            progress.status = Status.CANCELLING
            progress.times.setdefault("cancelling_at", cancelled)
        return asked, progress

    def progress(self, run_id: str) -> P:
        """How far the keeper is with a run. Raises ``FileNotFoundError``."""
        return self._read_progress(read_json(self.folder(run_id) / "progress.json"))

    def page(
        self, after: str | None, limit: int, owner: str | None = None
    ) -> tuple[list[tuple[A, P]], bool]:
        """Up to ``limit`` runs of ``owner`` behind the id ``after``, and whether more follow.

        The newest come first. Without ``owner`` they are anybody's.
        """
        names = sorted(name for name in self._names() if after is None or name < after)
        names.reverse()
        found: list[tuple[A, P]] = []
        for name in names:
            with suppress(self.missing):  # It is somebody else's, or was kept long enough just now.
                run = self.get(name, owner)
                if len(found) == limit:
                    return found, True
                found.append(run)
        return found, False

    def unfinished(self) -> list[str]:
        """The runs that are not over, oldest first."""
        try:
            names = [path.name for path in self._unfinished.iterdir()]
        except FileNotFoundError:
            return []
        return sorted(name for name in names if self._made(name))

    def folder(self, run_id: str) -> Path:
        """Where a run keeps what belongs to it."""
        return self._root / run_id

    @classmethod
    def is_id(cls, text: str) -> bool:
        """Whether a text is the id of such a run, so that it may become part of a path."""
        return is_id(cls.prefix, text)

    # -- changes

    def cancel(self, run_id: str, owner: str | None = None) -> tuple[A, P]:
        """Ask for the end of a run; one that is over stays as it is."""
        _, progress = self.get(run_id, owner)
        if not progress.status.terminal:
            (self.folder(run_id) / "cancel").touch()
        return self.get(run_id)

    def cancelled_at(self, run_id: str) -> int | None:
        """When somebody asked for the end of a run (Unix seconds), ``None`` if nobody did."""
        try:
            return int((self.folder(run_id) / "cancel").stat().st_mtime)
        except FileNotFoundError:
            return None

    def save(self, run_id: str, progress: P) -> None:
        """Show how far a run is; one that is over is looked after no more."""
        folder = self.folder(run_id)
        write_json(folder / "progress.json", progress.to_wire())
        if progress.status.terminal:
            # The marker goes last: who dies before leaves it to the next keeper.
            for name in self.passing:
                (folder / name).unlink(missing_ok=True)
            (self._unfinished / run_id).unlink(missing_ok=True)

    def sweep(self, oldest: float, now: float) -> int:
        """Remove runs that were over before ``oldest``, and what dead processes left behind.

        Both are Unix seconds. Returns how many runs went.
        """
        gone = 0
        for run_id in set(self._names()) - set(self.unfinished()):
            if max(self.progress(run_id).times.values()) < oldest:
                # It goes at once or not at all: half a run would look like a damaged one.
                self._keys.forget(run_id)
                going = self.folder(run_id).rename(self._root / f".{run_id}.gone")
                shutil.rmtree(going)
                gone += 1
        markers = [path for path in self._unfinished.glob("*") if not self._made(path.name)]
        for path in (*self._root.glob(f".{self.prefix}*"), *markers):
            with suppress(FileNotFoundError):  # What was being made just now is made.
                if path.stat().st_mtime < now - _DAY_S:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        return gone

    def _make(
        self, asked: A, progress: P, content: Path, name: str, markers: Iterable[str] = ()
    ) -> None:
        """Make a run out of the file at ``content``, linked to as ``name``; whole or not at all.

        One that is there already stays as it is.
        """
        if self.folder(asked.id).exists():
            return
        self._unfinished.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A name of its own: threads of one process may make the same run, for the same key.
        making = Path(mkdtemp(prefix=f".{asked.id}.", dir=self._root))
        try:
            os.link(content, making / name)
            write_json(making / f"{self.kind}.json", asked.to_wire())
            write_json(making / "progress.json", progress.to_wire())
            for marker in markers:
                (making / marker).touch()
            # The keeper takes a marker without a folder for one that is still being made.
            self._look_after(asked.id)
            making.rename(self.folder(asked.id))
        except OSError:
            if not self.folder(asked.id).exists():
                raise
            # Another process was quicker with the same run.
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def _look_after(self, run_id: str) -> None:
        """Have the keeper look after a run."""
        (self._unfinished / run_id).touch()

    def _not_there(self, run_id: str) -> ChatError:
        return self.missing(f"{self.kind} {run_id}: there is no such {self.kind}")

    def _made(self, run_id: str) -> bool:
        return (self.folder(run_id) / f"{self.kind}.json").exists()

    def _names(self) -> list[str]:
        try:
            names = [path.name for path in self._root.iterdir()]
        except FileNotFoundError:
            return []
        return [name for name in names if self.is_id(name)]
