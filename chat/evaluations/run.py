"""Running one evaluation: its dataset is checked, its rounds are run, its report is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from chat.batches.batch import Batch, Fault, Status
from chat.batches.folder import BatchStore
from chat.batches.scan import Routes
from chat.errors import ChatError
from chat.evaluations.dataset import Dataset
from chat.evaluations.folder import EvaluationStore
from chat.evaluations.log import Log
from chat.evaluations.record import Record
from chat.evaluations.reports import Ended, write_reports
from chat.evaluations.round import Round
from chat.evaluations.scan import scan
from chat.files import FileStore
from chat.jobs import new_id
from chat.routing import Route
from chat.settings import ChatdConfig

__all__ = ["EvaluationRun"]

#: Seconds that one step works before others get their turn.
_STEP_S = 0.25
#: Seconds between two writes of the progress while nothing but numbers change.
_SHOW_S = 0.5
#: What becomes of calls that have no result when the batch of the last round is over.
_ENDINGS = {
    Status.CANCELLED: ("batch_cancelled", "the evaluation was cancelled before this was answered"),
    Status.EXPIRED: ("batch_expired", "the evaluation's window ended before this was answered"),
}
_LOST = ("result_missing", "the results of its batch were deleted before they were read")


class EvaluationRun:
    """One evaluation from its dataset to its report; ``step`` until ``over``.

    All its memory can be made again from its folder and its batches. Whoever has one must hold the
    evaluation's lock. ``wall`` is Unix time and ``clock`` monotonic, both in seconds.
    """

    def __init__(
        self,
        evaluation_id: str,
        store: EvaluationStore,
        batches: BatchStore,
        files: FileStore,
        routes: Routes,
        config: ChatdConfig,
        *,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._id, self._store, self._batches, self._files = evaluation_id, store, batches, files
        self._routes, self._config = routes, config
        self._wall, self._clock = wall, clock
        self._evaluation, _ = store.get(evaluation_id)
        self._suite = self._evaluation.suite
        self._folder = store.folder(evaluation_id)
        # What is shown of one that was to be cancelled is not how far it is.
        self._progress = store.progress(evaluation_id)
        self._record: Record | None = None
        self._round: Round | None = None
        self._dataset = Dataset(self._folder / "dataset.jsonl")
        self._scan: Iterator[None] | None = None
        self._next_show = 0.0
        self._resume()

    @property
    def over(self) -> bool:
        """Whether the evaluation has reached its end."""
        return self._progress.status.terminal

    def step(self) -> bool:
        """Go on a little; returns whether anything happened.

        Raises ``OSError`` and ``StorageUnavailable``; a run that is made anew goes on from there.
        """
        if self._progress.status is Status.VALIDATING:
            return self._validate()
        if self._round is not None:
            return self._go_on(self._round)
        if self._progress.status is Status.FINALIZING:
            self._finish()
            return True
        return False

    def close(self) -> None:
        """Let go of the files."""
        if self._round is not None:
            self._round.close()
        if self._record is not None:
            self._record.close()

    # -- the beginning

    def _resume(self) -> None:
        """Take up an evaluation where whoever had it before has left it."""
        status = self._progress.status
        if status is Status.VALIDATING:
            return
        again = status.terminal and self._store.retry_asked(self._id) and self._progress.samples
        if not status.terminal or again:
            dataset = Dataset.load(self._dataset.path, self._index)
            self._record = self._recalled(dataset)
        if again:
            self._begin_round()
        elif status in (Status.IN_PROGRESS, Status.CANCELLING):
            self._round = self._taken_up()
        self._store.retry_begun(self._id)
        if self.over:
            self._show()  # It died before it had put everything away.

    def _recalled(self, dataset: Dataset) -> Record:
        record = Record(self._suite, dataset, Log(self._folder / "log.jsonl"))
        record.recall()
        return record

    def _validate(self) -> bool:
        if self._store.cancelled_at(self._id) is not None:
            self._progress.times["cancelling_at"] = int(self._wall())
            self._become(Status.CANCELLED)
            return True
        if self._scan is None:
            self._dataset = Dataset(self._dataset.path)
            self._progress.faults = self._lost_models()
            self._scan = scan(
                self._dataset,
                self._suite,
                faults=self._progress.faults,
                most_calls=self._config.batch_max_lines,
                longest_line=self._config.body_limit,
                max_timeout_s=self._config.max_timeout_s,
            )
        in_time = self._in_time()
        for _ in self._scan:
            if not in_time():
                return True
        self._scan = None
        if self._progress.faults:
            self._become(Status.FAILED)
            return True
        self._dataset.save(self._index)
        self._progress.samples = len(self._dataset)
        self._record = self._recalled(self._dataset)
        self._begin_round()
        return True

    def _lost_models(self) -> list[Fault]:
        """What is wrong with the models that the suite names, now that they are to be asked."""
        named = [
            (f"models[{place}]", candidate.model)
            for place, candidate in enumerate(self._suite.candidates)
        ]
        named += [(f"scorers[{place}]", judge.model) for place, judge in self._suite.judges]
        faults = []
        for where, model in named:
            try:
                self._routes.route(model)
            except ChatError as error:
                faults.append(Fault(error.code, f"{where}.model: {error.message}", param=where))
        return faults

    def _begin_round(self) -> None:
        now = self._wall()
        batch = Batch(
            id=new_id("batch_"),
            input_file_id=self._evaluation.input_file_id,
            endpoint="/v1/chat",
            completion_window=self._suite.completion_window,
            created_ms=int(now * 1000),
            expires_at=int(now) + self._evaluation.window_s,
            output_file_id=new_id("file-"),
            error_file_id=new_id("file-"),
            metadata={"evaluation": self._id, "name": self._suite.name},
            grows=True,
            owner=self._evaluation.owner,
        )
        self._progress.rounds.append(batch)
        self._progress.times = {}
        self._become(Status.IN_PROGRESS)
        self._round = self._taken_up()

    def _taken_up(self) -> Round:
        assert self._record is not None  # noqa: S101 - it is made before any round
        return Round(
            len(self._progress.rounds),
            self._progress.rounds[-1],
            self._calls,
            record=self._record,
            batches=self._batches,
            files=self._files,
            routes=self._routes,
            cache=self._store.cache if self._suite.cache else None,
        )

    # -- on the way

    def _go_on(self, this: Round) -> bool:
        # Asked first: what the batch wrote before its end is read after it.
        status = this.status()
        happened = this.collect(self._in_time(), ask=not status.terminal and self._wanted)
        if status.terminal:
            while this.collect(self._in_time(), ask=False):
                pass
            this.close()
            self._round = None
            self._become(Status.FINALIZING)
            return True
        if not self._wanted:
            if self._progress.status is not Status.CANCELLING:
                this.cancel()
                self._become(Status.CANCELLING)
            return happened
        happened |= this.ask(self._in_time())
        if happened and self._clock() >= self._next_show:
            self._show()
        return happened

    @property
    def _wanted(self) -> bool:
        """Whether nobody has asked for its end."""
        return self._store.cancelled_at(self._id) is None

    def _in_time(self) -> Callable[[], bool]:
        until = self._clock() + _STEP_S
        return lambda: self._clock() < until

    # -- the end

    def _finish(self) -> None:
        """Make the files of the round; they are all there before the evaluation is over."""
        assert self._record is not None  # noqa: S101 - see `_resume`
        status = self._batch_status()
        code, message = _ENDINGS.get(status, _LOST)
        self._show_models()
        ended = Ended(
            self._evaluation,
            len(self._progress.rounds),
            status,
            int(self._wall()),
            {"code": code, "message": message},
        )
        summary = write_reports(self._folder, ended, self._record)
        self._progress.models = [
            {
                **live,
                **final,
                "provider": live["provider"],
                "upstream_model": live["upstream_model"],
            }
            for live, final in zip(self._progress.models, summary["models"], strict=True)
        ]
        self._record.close()
        self._calls.unlink(missing_ok=True)
        self._become(status)

    def _batch_status(self) -> Status:
        """How the last round's batch has ended."""
        try:
            return self._batches.get(self._progress.rounds[-1].id)[1].status
        except ChatError:
            return Status.EXPIRED

    def _become(self, status: Status) -> None:
        self._progress.status = status
        self._progress.times.setdefault(f"{status.value}_at", int(self._wall()))
        self._show()

    def _show(self) -> None:
        self._next_show = self._clock() + _SHOW_S
        if not self.over:
            self._show_models()
        self._store.save(self._id, self._progress)

    def _show_models(self) -> None:
        if self._record is not None:
            routes = [self._route(candidate.model) for candidate in self._suite.candidates]
            self._progress.models = self._record.state.shown(self._progress.samples, routes)

    def _route(self, model: str) -> Route:
        try:
            return self._routes.route(model)
        except ChatError:
            return Route("", model)  # Its key was taken away since; its calls say so.

    @property
    def _index(self) -> Path:
        return self._folder / "index.json"

    @property
    def _calls(self) -> Path:
        return self._folder / f"calls-{len(self._progress.rounds)}.jsonl"
