"""One round of an evaluation: the first asks everything, each further one what failed.

A round is one batch. Its lines are the answers that are wanted and, as these come in, the verdicts
on them. What comes back goes into the record before anything is asked because of it.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

from chat.batches.batch import Batch, Status
from chat.batches.folder import BatchStore
from chat.batches.scan import Routes
from chat.errors import BatchNotFound, ChatError, FileNotFound, StorageUnavailable
from chat.evaluations.cache import AnswerCache
from chat.evaluations.calls import Task, Trial, cache_key, line, tasks
from chat.evaluations.log import entry_of
from chat.evaluations.record import Record
from chat.evaluations.tail import Tail
from chat.files import FileStore
from chat.formats.chat import read_chat
from chat.types import JSON

__all__ = ["Round"]

_log = logging.getLogger(__name__)


class Round:
    """Round ``number`` of an evaluation; ``calls`` is the file that its batch grows from.

    ``open`` are the calls without a result, each with the key by which the cache may have it.
    """

    def __init__(
        self,
        number: int,
        batch: Batch,
        calls: Path,
        *,
        record: Record,
        batches: BatchStore,
        files: FileStore,
        routes: Routes,
        cache: AnswerCache | None,
    ) -> None:
        self._number, self._batch, self._path = number, batch, calls
        self._record, self._batches, self._files = record, batches, files
        self._routes, self._cache = routes, cache
        self._lines = bytearray()  # Those that are not on disk yet.
        self._unsynced = False
        self._asked: set[str] = set()
        self.open: dict[str, str | None] = {}
        self._to_ask: Iterator[Task] | None = tasks(record.suite, len(record.dataset))
        calls.touch()
        batches.create(batch, calls)
        for name, body in _read_calls(calls):
            self._asked.add(name)
            if not record.ended(name, number):
                self.open[name] = self._key(name, body)
        if not self.status().terminal:
            self._unsynced = True
            self._sync()
        self._tails = [
            Tail(partial(self._places, name, file_id))
            for name, file_id in (
                ("output.jsonl", batch.output_file_id),
                ("errors.jsonl", batch.error_file_id),
            )
        ]

    def status(self) -> Status:
        """Where its batch stands."""
        try:
            return self._batches.get(self._batch.id)[1].status
        except BatchNotFound:
            return Status.EXPIRED  # No keeper ran for as long as batches are kept.

    def cancel(self) -> None:
        """Ask for the end of its batch."""
        self._batches.cancel(self._batch.id)

    def ask(self, in_time: Callable[[], bool]) -> bool:
        """Ask for what was not looked at yet, as long as it is ``in_time``.

        When nothing more can be wanted, the batch is told so. Returns whether anything happened.
        """
        if self._to_ask is None:
            return False
        for task in self._to_ask:
            self._ask_for(task)
            if not in_time():
                self._sync()
                return True
        happened = self._unsynced
        self._sync()
        if self.open:
            return happened
        self._to_ask = None
        self._batches.seal(self._batch.id)
        return True

    def collect(self, in_time: Callable[[], bool], *, ask: bool) -> bool:
        """Take in what has ended, as long as it is ``in_time``; returns whether anything had.

        With ``ask`` the verdicts are asked for that it makes possible.
        """
        touched: dict[Task, None] = {}
        kept: dict[str, JSON] = {}
        for raw in chain.from_iterable(tail.lines() for tail in self._tails):
            result = json.loads(raw)
            name = result["custom_id"]
            if name not in self.open:
                continue  # A batch that lost its last lines in a power failure has them twice.
            entry = entry_of(result, self._number)
            self._record.enter(entry)
            key = self.open.pop(name)
            if key is not None and self._record.worth_keeping(entry):
                kept[key] = entry["answer"]
            trial = Trial.named(name)
            touched[Task.named(name) if trial is None else trial.task] = None
            if not in_time():
                break
        if not touched:
            return False
        self._record.log.sync()
        self._keep(kept)
        if ask:
            for task in touched:
                self._ask_for(task)
            self._sync()
        return True

    def close(self) -> None:
        """Let go of the files."""
        for tail in self._tails:
            tail.close()

    def _ask_for(self, task: Task) -> None:
        """Ask for what a task needs next; what the cache has needs not be asked."""
        wanted = partial(self._record.state.wanted, task, self._number)
        pending = deque(wanted())
        while pending:
            call = pending.popleft()
            name = str(call)
            if name in self._asked:
                continue
            body = self._record.body(call)
            key = self._key(name, body)
            answer = self._kept(key)
            if answer is None:
                self._lines += line(name, body, self._batch.metadata or {})
                self._unsynced = True
                self._asked.add(name)
                self.open[name] = key
            else:
                self._record.enter(
                    {
                        "call": name,
                        "round": self._number,
                        "cached": True,
                        "job_id": None,
                        "answer": answer,
                        "error": None,
                        "attempts": [],
                    }
                )
                self._unsynced = True
                pending.extend(wanted())

    def _sync(self) -> None:
        """Have on disk what was asked for, and before it what led there."""
        if not self._unsynced:
            return
        self._unsynced = False
        self._record.log.sync()
        with self._path.open("ab") as stream:
            stream.write(self._lines)
            stream.flush()
            os.fsync(stream.fileno())
            size = stream.tell()
        self._lines.clear()
        self._batches.extend(self._batch.id, size)

    def _places(self, name: str, file_id: str) -> Iterator[Path]:
        """Where the batch's results are while it runs, and when it is over."""
        yield self._batches.folder(self._batch.id) / name
        try:
            yield self._files.path(file_id)
        except FileNotFound:
            return  # There are none, or somebody has deleted them.

    # -- the cache

    def _key(self, name: str, body: JSON) -> str | None:
        """By what the answer to a call is known again; ``None`` if it is not to be."""
        if self._cache is None:
            return None
        # One answer deserves one verdict, however often it was given.
        repeat = Task.named(name).repeat if Trial.named(name) is None else 0
        try:
            call = read_chat(body, max_timeout_s=float("inf"))
            route = self._routes.route(call.request.model)
            return cache_key(call.request, route, repeat, self._batch.owner)
        except ChatError:
            return None  # The batch says what is wrong with it.

    def _kept(self, key: str | None) -> JSON | None:
        if self._cache is None or key is None:
            return None
        try:
            return self._cache.get(key)
        except StorageUnavailable as error:
            self._do_without_cache(error)
            return None

    def _keep(self, answers: dict[str, JSON]) -> None:
        if self._cache is not None:
            try:
                self._cache.put(answers)
            except StorageUnavailable as error:
                self._do_without_cache(error)

    def _do_without_cache(self, error: StorageUnavailable) -> None:
        """It saves calls, and is no reason not to make them."""
        _log.warning("this evaluation goes on without the cache: %s", error)
        self._cache = None


def _read_calls(path: Path) -> Iterator[tuple[str, JSON]]:
    """The calls that were asked for; one that was cut off is taken away."""
    with path.open("r+b") as stream:
        end = 0
        for raw in stream:
            if not raw.endswith(b"\n"):
                stream.truncate(end)
                return
            end += len(raw)
            request = json.loads(raw)
            yield request["custom_id"], request["body"]
