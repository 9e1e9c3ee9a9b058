"""Answers at temperature 0 that are known already, by the exact request.

An SQLite database below ``data_dir``, for any number of processes of one host. Errors are never
kept. Texts of questions are not either: only their hash.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from chat.errors import StorageUnavailable
from chat.types import JSON

__all__ = ["AnswerCache", "Kept"]

#: Seconds to wait for another process that writes.
_BUSY_S = 10.0
_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, made_at INTEGER NOT NULL, model TEXT NOT NULL, answer BLOB NOT NULL
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """What the cache has: how many answers, their bytes, and when the oldest came (Unix s)."""

    answers: int
    bytes: int
    oldest_at: int | None


class AnswerCache:
    """The cache at ``path``. Trouble with it is a ``StorageUnavailable``.

    ``wall`` is Unix time in seconds.
    """

    def __init__(self, path: Path, *, wall: Callable[[], float] = time.time) -> None:
        self._path, self._wall = path, wall

    def get(self, key: str) -> JSON | None:
        """The answer to a request that was asked before."""
        if not self._path.exists():
            return None
        with self._open() as database:
            row = database.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        answer: JSON | None = None if row is None else json.loads(row[0])
        return answer

    def put(self, answers: dict[str, JSON]) -> None:
        """Keep answers by their keys, each as ``ChatResponse.to_wire`` has it.

        Those that are there already stay.
        """
        if not answers:
            return
        now = int(self._wall())
        rows = [
            (key, now, f"{answer['provider']}/{answer['upstream_model']}", json.dumps(answer))
            for key, answer in answers.items()
        ]
        with self._open() as database:
            database.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", rows)

    def kept(self) -> Kept:
        """How much there is."""
        if not self._path.exists():
            return Kept(0, 0, None)
        with self._open() as database:
            row = database.execute(
                "SELECT count(*), coalesce(sum(length(answer)), 0), min(made_at) FROM answers"
            ).fetchone()
        return Kept(*row)

    def clear(self) -> int:
        """Forget every answer; returns how many there were."""
        if not self._path.exists():
            return 0
        with self._open() as database:
            gone = database.execute("DELETE FROM answers").rowcount
        with self._open() as database:
            database.execute("VACUUM")
        return gone

    def sweep(self, oldest: float) -> int:
        """Forget answers that came before ``oldest`` (Unix seconds); returns how many."""
        if not self._path.exists():
            return 0
        with self._open() as database:
            return database.execute("DELETE FROM answers WHERE made_at < ?", (oldest,)).rowcount

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one piece of work, which is done whole or not at all."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.touch(mode=0o600)
            database = sqlite3.connect(self._path, timeout=_BUSY_S)
            with closing(database), database:
                database.execute(_TABLE)
                yield database
        except (sqlite3.Error, OSError) as error:
            raise StorageUnavailable(
                f"the cache of answers at {self._path.name} cannot be used ({error}); see that "
                "data_dir has room, or remove the file"
            ) from error
