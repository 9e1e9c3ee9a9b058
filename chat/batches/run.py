"""Running one batch: its lines go out as jobs, a window at a time, and come back as results."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

from chat.batches.batch import Progress, Status
from chat.batches.folder import BatchStore
from chat.batches.growth import Growth
from chat.batches.lines import Line, custom_id_in, job_id_of, result_of, unsent
from chat.batches.reading import Input
from chat.batches.results import Results
from chat.batches.scan import Index, Routes, scan
from chat.errors import (
    ChatError,
    DeadlineExceeded,
    FileNotFound,
    JobNotFound,
    QueueFull,
    QueueUnavailable,
    ResultExpired,
)
from chat.files import FileStore
from chat.jobs import JobRecord, JobState, NewJob
from chat.settings import ChatdConfig
from chat.store import Admitted
from chat.types import Lane

__all__ = ["BatchRun", "Jobs"]

#: Jobs of one batch and provider that are on their way at a time: enough that no worker waits for
#: the next look, and few enough that a batch is cancelled soon and another one gets its share. For
#: a provider of many permits they are twice as many as those.
_WINDOW = 200
#: Seconds that one step reads lines, be they few and long or many and empty: others wait meanwhile.
_STEP_S = 0.25
_RECORDS_AT_ONCE = 50
#: Lines that are sent in one round trip, and the bytes from which on no further one joins them:
#: Redis does nothing else meanwhile.
_SENT_AT_ONCE = 20
_BYTES_AT_ONCE = 2**20
#: Seconds between two writes of the progress while nothing but numbers change.
_SHOW_S = 0.5
_FULL_S = 5.0


class Jobs(Protocol):
    """What a batch asks of the job store; ``chat.store.JobStore`` says more of each."""

    def admit_all(self, jobs: Sequence[NewJob]) -> list[Admitted | ChatError]:
        """Accept jobs, or say why not; a second time is the same."""

    def over(self, job_ids: Sequence[str]) -> list[str]:
        """Of these, those that have ended or have no record."""

    def states(self, job_ids: Sequence[str]) -> list[JobState | None]:
        """Where each job stands; ``None`` for one without a record."""

    def records(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """Their records, answers included."""

    def settle(self, job_ids: Sequence[str]) -> int:
        """Remove the records of jobs that are over."""

    def cancel(self, job_id: str) -> JobState:
        """Cancel a job; its state afterwards."""


@dataclass(slots=True)
class _Feed:
    """One provider's lines of a batch: those to come, and until when its queue is full.

    ``window`` is how many may be on their way.
    """

    pending: deque[int]
    window: int
    flying: int = 0
    pause_until: float = 0.0


@dataclass(frozen=True, slots=True)
class _Ending:
    """Why the rest of a batch has no results."""

    code: str
    message: str


_CANCELLED = _Ending("batch_cancelled", "the batch was cancelled before this request had an answer")
_EXPIRED = _Ending(
    "batch_expired", "the batch's completion window ended before this request had an answer"
)


class BatchRun:
    """One batch from validation to its files; ``step`` until ``over``.

    All its memory can be made again from the batch's folder and Redis. Whoever has one must hold
    the batch's lock. ``wall`` is Unix time and ``clock`` monotonic, both in seconds.
    """

    def __init__(
        self,
        batch_id: str,
        store: BatchStore,
        files: FileStore,
        jobs: Jobs,
        routes: Routes,
        config: ChatdConfig,
        *,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._files, self._jobs = store, files, jobs
        self._routes, self._config = routes, config
        self._wall, self._clock = wall, clock
        self._batch, _ = store.get(batch_id)
        self._folder = store.folder(batch_id)
        self._path = self._folder / "input.jsonl"
        self._input = Input(self._path)
        # What is shown of a batch that was to be cancelled is not how far it is.
        self._progress = store.progress(batch_id)
        self._results = Results(self._folder)
        self._index = Index()
        self._growth: Growth | None = None
        self._feeds: dict[str, _Feed] = {}
        self._flying: dict[str, tuple[str, int]] = {}  # job -> provider, its line's place
        self._told: set[str] = set()  # Jobs that were told to stop.
        self._settled_next: list[str] = []
        self._ending: _Ending | None = None
        self._scan: Iterator[None] | None = None
        self._next_show = 0.0
        self._resume()

    @property
    def over(self) -> bool:
        """Whether the batch has reached its end."""
        return self._progress.status.terminal

    def step(self) -> bool:
        """Go on a little; returns whether anything happened.

        Raises ``QueueUnavailable`` and ``OSError``; the next step goes on from there.
        """
        status = self._progress.status
        if status.terminal:
            return False
        if status is Status.VALIDATING:
            return self._validate()
        if status is Status.FINALIZING:
            self._finalize()
            return True
        happened = self._grow()
        self._look_for_the_end()
        self._settle()
        happened |= self._collect()
        happened |= self._feed() if self._ending is None else self._wind_up(self._ending)
        if self._complete():
            self._finalize()
        elif happened and self._clock() >= self._next_show:
            self._show()
        return happened

    def close(self) -> None:
        """Let go of the files."""
        self._results.close()
        self._input.close()

    # -- the beginning

    def _resume(self) -> None:
        """Take up a batch where whoever had it before has left it."""
        status = self._progress.status
        if status.terminal:
            self._end(status)  # It died before it had put everything away.
            return
        if status in (Status.VALIDATING, Status.FINALIZING):
            return
        if not self._batch.grows:
            self._index = Index.load(self._folder / "index.json")
        # The results are counted, since what was shown last may be older than they are.
        self._progress = Progress(
            self._progress.status, self._progress.times, total=len(self._index)
        )
        self._settled_next = self._results.recall(self._progress)
        self._line_up()

    def _validate(self) -> bool:
        if self._store.cancelled_at(self._batch.id) is not None:
            self._progress.times["cancelling_at"] = int(self._wall())
            self._end(Status.CANCELLED)
            return True
        if self._batch.grows:
            self._become(Status.IN_PROGRESS)
            self._line_up()
            return True
        if self._scan is None:
            self._index = Index()
            self._progress.faults = []
            self._scan = scan(
                self._path,
                self._routes,
                index=self._index,
                faults=self._progress.faults,
                most_lines=self._config.batch_max_lines,
                longest_line=self._config.body_limit,
                max_timeout_s=self._config.max_timeout_s,
            )
        until = self._clock() + _STEP_S
        for _ in self._scan:
            if self._clock() >= until:
                return True
        self._scan = None
        if self._progress.faults:
            self._end(Status.FAILED)
            return True
        self._index.save(self._folder / "index.json")
        self._progress.total = len(self._index)
        self._become(Status.IN_PROGRESS)
        self._line_up()
        return True

    def _line_up(self) -> None:
        if self._batch.grows:
            size = partial(self._store.size, self._batch.id)
            self._growth = Growth(self._path, self._index, self._routes, size)
        done = self._results.done
        for provider in self._index.providers:
            places = self._index.places(provider)
            self._feeds[provider] = self._new_feed(
                provider, (place for place in places if self._index.numbers[place] not in done)
            )

    def _new_feed(self, provider: str, places: Iterable[int] = ()) -> _Feed:
        settings = self._config.providers.get(provider)  # None: its lines lead nowhere.
        permits = settings.concurrency if settings is not None else 0
        return _Feed(deque(places), max(_WINDOW, 2 * permits))

    # -- on the way

    def _grow(self) -> bool:
        """Line up what was appended to the input since the last look."""
        if self._growth is None or self._growth.all:
            return False
        before, until = len(self._index), self._clock() + _STEP_S
        for place, provider in self._growth.read():
            if provider not in self._feeds:
                self._feeds[provider] = self._new_feed(provider)
            feed = self._feeds[provider]
            if self._index.numbers[place] not in self._results.done:
                feed.pending.append(place)
            if self._clock() >= until:
                break
        self._progress.total = len(self._index)
        return len(self._index) > before

    def _complete(self) -> bool:
        """Whether every line has its result, and no further one comes."""
        growth = self._growth
        if growth is not None and not growth.all and not (self._ending and growth.at_end):
            return False
        return not self._flying and len(self._results.done) == self._progress.total

    def _feed(self) -> bool:
        """Keep the window of each provider full."""
        happened = False
        now = self._clock()
        for provider, feed in self._feeds.items():
            until = self._clock() + _STEP_S
            while now >= feed.pause_until and (some := self._next(feed, until)):
                happened |= self._send(provider, feed, some)
        return happened

    def _next(self, feed: _Feed, until: float) -> list[tuple[int, NewJob | ChatError]]:
        """The next lines of a feed as jobs, or as why they are none; they stay in the feed."""
        some: list[tuple[int, NewJob | ChatError]] = []
        size = 0
        for place in islice(feed.pending, min(_SENT_AT_ONCE, feed.window - feed.flying)):
            if size >= _BYTES_AT_ONCE or self._clock() >= until:
                break
            line, length = self._input.to_send(self._index, place)
            size += length
            try:
                some.append((place, self._job(line)))
            except ChatError as error:
                # Refused for good, as for a key that was taken away since: that is its result.
                some.append((place, error))
        return some

    def _send(self, provider: str, feed: _Feed, some: list[tuple[int, NewJob | ChatError]]) -> bool:
        """Send these lines, the next of their feed; returns whether any has left it."""
        answers = iter(
            self._jobs.admit_all([job for _, job in some if not isinstance(job, ChatError)])
        )
        kept: list[int] = []
        unavailable: QueueUnavailable | None = None
        for place, job in some:
            answer = job if isinstance(job, ChatError) else next(answers)
            feed.pending.popleft()
            if isinstance(answer, Admitted):
                self._flying[answer.job_id] = (provider, place)
                feed.flying += 1
            elif isinstance(answer, QueueFull):
                feed.pause_until = self._clock() + min(answer.retry_after_s or _FULL_S, _FULL_S)
                kept.append(place)
            elif isinstance(answer, QueueUnavailable):
                unavailable = answer
                kept.append(place)
            else:
                self._add_unsent(place, answer.code, answer.message)
        feed.pending.extendleft(reversed(kept))
        if unavailable is not None:
            raise unavailable
        return len(kept) < len(some)

    def _job(self, line: Line) -> NewJob:
        route = self._routes.route(line.call.request.model)
        left_s = self._batch.expires_at - self._wall()
        # ``max_timeout_s`` is for what a line asks for; a window may be longer, and says so itself.
        asked_s = line.call.timeout_s
        seconds = min(asked_s, self._config.max_timeout_s, left_s) if asked_s else left_s
        return NewJob(
            id=self._job_id(line.number),
            request=line.call.request,
            provider=route.provider,
            upstream_model=route.model,
            lane=Lane.BATCH,
            timeout_ms=max(1, math.ceil(seconds * 1000)),
            metadata=line.call.metadata,
            request_id=self._batch.id,
            owner=self._batch.owner,
        )

    def _collect(self) -> bool:
        """Write down the results of the jobs that are over, and let go of their records."""
        gone = self._jobs.over(list(self._flying))
        over = []
        for job_id, state in zip(gone, self._jobs.states(gone), strict=True):
            if state is None:
                self._send_again(job_id)
            elif state.terminal:
                over.append(job_id)
        for begin in range(0, len(over), _RECORDS_AT_ONCE):
            job_ids = over[begin : begin + _RECORDS_AT_ONCE]
            records = [record for record in self._jobs.records(job_ids) if record is not None]
            for record in records:
                _, place = self._flying[record.id]
                self._note(self._input.done(self._index, place), record)
            self._results.sync()
            for record in records:
                self._land(record.id)
                self._settled_next.append(record.id)
            self._settle()
        return bool(over)

    def _settle(self) -> None:
        """Let go of records whose results are on disk, also of those that Redis did not hear of."""
        if self._settled_next:
            self._jobs.settle(self._settled_next)
            self._settled_next = []

    def _note(self, line: Line, record: JobRecord) -> None:
        ending = self._ending_of(record)
        if ending is None:
            result = result_of(self._batch.id, line, record)
        else:
            error = {"code": ending.code, "message": ending.message}
            result = unsent(self._batch.id, line.number, line.custom_id, error, record)
        self._results.add(result, self._progress)

    def _ending_of(self, record: JobRecord) -> _Ending | None:
        """What ended a job along with the batch; ``None`` if the end is its own."""
        if self._ending is not None and record.state in (JobState.CANCELLED, JobState.EXPIRED):
            return self._ending
        if record.error is None or record.error["code"] != DeadlineExceeded.code:
            return None
        # The last deadline of a job is the end of the window, whoever notices first.
        if self._ending is _EXPIRED or record.deadline_at >= self._batch.expires_at * 1000:
            return self._ending or _EXPIRED
        return None

    def _send_again(self, job_id: str) -> None:
        """Redis has lost a job's record, and with it whatever came of the job."""
        provider, place = self._land(job_id)
        self._feeds[provider].pending.appendleft(place)

    def _land(self, job_id: str) -> tuple[str, int]:
        provider, place = self._flying.pop(job_id)
        self._feeds[provider].flying -= 1
        self._told.discard(job_id)
        return provider, place

    def _job_id(self, number: int) -> str:
        return job_id_of(self._batch.id, self._batch.created_ms, number)

    # -- the end

    def _look_for_the_end(self) -> None:
        """Whether the batch ends before all its lines are done; the first reason stays."""
        if self._ending is not None or (self._growth and not self._growth.at_end):
            return
        asked = self._store.cancelled_at(self._batch.id)
        if asked is None and self._wall() < self._batch.expires_at:
            return
        self._find_sent()
        if asked is not None:
            self._ending = _CANCELLED
            self._progress.times.setdefault("cancelling_at", asked)
            self._become(Status.CANCELLING)
        else:
            self._ending = _EXPIRED

    def _find_sent(self) -> None:
        """Find the jobs that were sent unknown to us: by the keeper before, or with the reply lost.

        They may be in a call, or have answers by now. Lines are sent in order, a window at a time,
        but for those that were refused among others: those that were sent are among the first.
        """
        for provider, feed in self._feeds.items():
            places = list(islice(feed.pending, feed.window + _SENT_AT_ONCE))
            job_ids = [self._job_id(self._index.numbers[place]) for place in places]
            states = self._jobs.states(job_ids)
            for place, job_id, state in zip(places, job_ids, states, strict=True):
                if state is not None:
                    feed.pending.remove(place)
                    self._flying[job_id] = (provider, place)
                    feed.flying += 1

    def _wind_up(self, ending: _Ending) -> bool:
        """Stop what is on its way, and end the lines that were not sent."""
        # The last first: a call that ends makes room, which nothing of this batch is to take.
        for job_id in [job_id for job_id in reversed(self._flying) if job_id not in self._told]:
            try:
                self._jobs.cancel(job_id)
                self._told.add(job_id)
            except (JobNotFound, ResultExpired):
                self._send_again(job_id)  # Redis has lost it: it ends below, like those not sent.
        happened = False
        until = self._clock() + _STEP_S
        for feed in self._feeds.values():
            while feed.pending and self._clock() < until:
                place = feed.pending.popleft()
                self._add_unsent(place, ending.code, ending.message)
                happened = True
        return happened

    def _add_unsent(self, place: int, code: str, message: str) -> None:
        error = {"code": code, "message": message}
        number, custom_id = (
            self._index.numbers[place],
            custom_id_in(self._input.raw(self._index, place)),
        )
        self._results.add(unsent(self._batch.id, number, custom_id, error), self._progress)

    def _finalize(self) -> None:
        """Make files of the results, under ids that were chosen when the batch was made."""
        progress = self._progress
        self._results.sync()
        self.close()
        if progress.status is not Status.FINALIZING:
            self._become(Status.FINALIZING)
        progress.output_file_id = self._file(self._results.output, self._batch.output_file_id)
        progress.error_file_id = self._file(self._results.errors, self._batch.error_file_id)
        if "cancelling_at" in progress.times:
            self._end(Status.CANCELLED)
        elif progress.codes[_EXPIRED.code]:
            self._end(Status.EXPIRED)
        else:
            self._end(Status.COMPLETED)

    def _file(self, path: Path, file_id: str) -> str | None:
        """The id of the file that ``path`` has become, or becomes now; ``None`` without results."""
        if path.exists():
            name = f"{self._batch.id}_{path.name}"
            lifetime_s = int(self._config.file_retention_s) or None
            owner = self._batch.owner
            self._files.adopt(path, file_id, name, "batch_output", lifetime_s, owner)
        try:
            return self._files.get(file_id).id
        except FileNotFound:
            return None

    def _end(self, status: Status) -> None:
        self.close()
        self._become(status)

    def _become(self, status: Status) -> None:
        self._progress.status = status
        self._progress.times.setdefault(f"{status.value}_at", int(self._wall()))
        self._show()

    def _show(self) -> None:
        self._next_show = self._clock() + _SHOW_S
        self._store.save(self._batch.id, self._progress)
