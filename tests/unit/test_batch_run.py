"""One batch from its file to its results: ``chat.batches.run``, on a job store in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chat.batches.batch import Progress, Status
from chat.batches.folder import BatchStore
from chat.batches.run import BatchRun
from chat.errors import ProviderNotRegistered, QueueFull, QueueUnavailable
from chat.files import FileStore, Purpose, StoredFile
from chat.jobs import JobState
from chat.settings import ChatdConfig
from chat.types import JSON
from tests.batches import CREATED_MS, FakeJobs, a_batch, lines_of, request_line, results_in
from tests.fakes import FakeClock, registered_names

WINDOW = 200
THREE = lines_of(3)


class Stage:
    """A data_dir with one batch, and the processes that run it one after the other."""

    def __init__(self, root: Path, text: str, window_s: int = 86400) -> None:
        self.store, self.files = BatchStore(root / "batches"), FileStore(root / "files")
        self.jobs, self.clock = FakeJobs(), FakeClock()
        self.wall = CREATED_MS / 1000
        self.config = ChatdConfig()
        self.batch = a_batch(window_s)
        source = root / "source.jsonl"
        source.write_text(text)
        self.store.create(self.batch, source)
        self.run = self.start()

    def start(self) -> BatchRun:
        """Another keeper."""
        return BatchRun(
            self.batch.id,
            self.store,
            self.files,
            self.jobs,
            registered_names("ollama", "kimi"),
            self.config,
            wall=lambda: self.wall,
            clock=self.clock,
        )

    def killed(self) -> None:
        """The keeper dies without a word, and another one takes over."""
        self.run.close()
        self.run = self.start()

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.clock.advance(1)
            self.run.step()

    def until_sent(self) -> None:
        """Validate, and send the first window."""
        while not self.jobs.admitted:
            assert not self.run.over, self.progress
            self.step()

    def answer_all(self, end: Callable[[str], None] | None = None) -> None:
        """Answer whatever is sent, until the batch is over."""
        for _ in range(2000):
            if self.run.over:
                return
            for job_id in self.jobs.open:
                (end or self.jobs.succeed)(job_id)
            self.step()
        raise AssertionError("the batch does not end")

    @property
    def progress(self) -> Progress:
        return self.store.get(self.batch.id)[1]

    def output(self) -> list[JSON]:
        return results_in(self.files.path(self.progress.output_file_id or ""))

    def errors(self) -> list[JSON]:
        return results_in(self.files.path(self.progress.error_file_id or ""))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    made = []

    def make(text: str = THREE, **more: int) -> Stage:
        made.append(Stage(tmp_path, text, **more))
        return made[-1]

    yield make
    for run in made:
        run.run.close()


class TestWholeRun:
    """Everything goes well."""

    def test_each_line_becomes_one_result(self, stage):
        """In a file of its own, in OpenAI's format, with the account beside it."""
        run = stage()
        run.until_sent()
        run.answer_all()
        progress = run.progress

        assert progress.status is Status.COMPLETED
        assert (progress.total, progress.completed, progress.failed) == (3, 3, 0)
        assert (progress.input_tokens, progress.output_tokens) == (30, 6)
        assert progress.error_file_id is None
        results = run.output()
        assert [result["custom_id"] for result in results] == ["r1", "r2", "r3"]
        assert {result["response"]["status_code"] for result in results} == {200}
        body = results[0]["response"]["body"]
        assert body["object"] == "chat.completion"
        assert body["choices"][0]["message"]["content"] == "yes"
        assert results[0]["chatd"]["attempts"][0]["billed"] == "yes"
        assert len({result["id"] for result in results}) == 3

    def test_nothing_stays_in_redis(self, stage):
        """A result that is on disk needs no record."""
        run = stage()
        run.until_sent()
        run.answer_all()

        assert (run.jobs.admitted, run.jobs.ended) == ({}, {})
        assert len(run.jobs.settled) == 3

    def test_it_is_looked_after_no_more(self, stage):
        """Its folder keeps what it was, and no copy of the input."""
        run = stage()
        assert run.store.unfinished() == [run.batch.id]
        run.answer_all()

        assert run.store.unfinished() == []
        left = {path.name for path in run.store.folder(run.batch.id).iterdir()}
        assert left == {"batch.json", "progress.json"}

    def test_a_window_is_sent_at_a_time(self, stage):
        """However long the file is; what comes back makes room."""
        run = stage(lines_of(500))
        run.until_sent()
        run.step(3)
        assert len(run.jobs.open) == WINDOW
        for job_id in run.jobs.open[:7]:
            run.jobs.succeed(job_id)
        run.step()

        assert len(run.jobs.open) == WINDOW
        assert len(run.jobs.admissions) == WINDOW + 7

    def test_a_window_has_room_for_every_permit_twice(self, stage):
        """A batch alone may use all of a provider that allows many calls at a time."""
        run = stage(lines_of(700))
        ollama = replace(run.config.providers["ollama"], concurrency=300)
        run.config = replace(run.config, providers={**run.config.providers, "ollama": ollama})
        run.killed()
        run.until_sent()
        run.step(3)

        assert len(run.jobs.open) == 600

    def test_providers_do_not_wait_for_each_other(self, stage):
        """300 lines for one that is slow stand before three for another."""
        text = lines_of(300) + "".join(
            request_line(f"k{number}", "kimi/k2") + "\n" for number in range(3)
        )
        run = stage(text)
        run.until_sent()

        sent = [job.provider for job in run.jobs.admitted.values()]
        assert (sent.count("ollama"), sent.count("kimi")) == (WINDOW, 3)

    def test_a_file_may_mix_both_urls_and_empty_lines(self, stage):
        """Each result has the shape of its own URL."""
        text = f"{request_line('a')}\n\n{request_line('b', url='/v1/chat')}"
        run = stage(text)
        run.answer_all()
        first, second = (result["response"]["body"] for result in run.output())

        assert ("choices" in first, "choices" in second) == (True, False)
        assert second["content"] == "yes"
        assert [result["chatd"]["line"] for result in run.output()] == [1, 3]

    def test_jobs_run_in_the_batch_lane_until_the_window_ends(self, stage):
        """Unless the line asks for less."""
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "timeout_s": 60}
        run = stage(f"{request_line('a')}\n{request_line('b', body=body)}\n", window_s=3600)
        run.until_sent()
        jobs = list(run.jobs.admitted.values())

        assert [job.lane.value for job in jobs] == ["batch", "batch"]
        assert [job.timeout_ms for job in jobs] == [3_600_000, 60_000]

    def test_a_window_may_be_longer_than_what_a_line_may_ask_for(self, stage):
        """A job that waits for its turn for two days of seven is not over for that."""
        run = stage(window_s=7 * 86400)
        run.until_sent()

        assert {job.timeout_ms for job in run.jobs.admitted.values()} == {7 * 86_400_000}

    def test_a_step_validates_for_a_short_time(self, stage):
        """However many lines there are, other batches wait no longer."""
        run = stage(lines_of(30))
        run.run.close()
        ticks = iter(range(10_000))
        run.clock = lambda: next(ticks) / 10
        run.run = run.start()
        run.run.step()
        first = run.store.progress(run.batch.id).status
        for _ in range(30):
            run.run.step()

        assert first is Status.VALIDATING
        assert run.progress.status is Status.IN_PROGRESS
        assert len(run.jobs.open) == 30

    def test_costs_are_added_up(self, stage):
        """Where they are known."""
        run = stage()
        costs = iter([0.25, None, 0.5])
        run.answer_all(lambda job_id: run.jobs.succeed(job_id, cost_usd=next(costs)))

        assert run.progress.cost_usd == 0.75


class TestErrors:
    """Items that fail."""

    def test_a_failed_item_is_a_line_of_the_error_file(self, stage):
        """With the status and the body that the call alone would have got."""
        run = stage()
        ends = iter([run.jobs.succeed, run.jobs.fail, run.jobs.succeed])
        run.answer_all(lambda job_id: next(ends)(job_id))  # noqa: PLW0108 - one end each
        (error,) = run.errors()

        assert (run.progress.status, run.progress.completed) == (Status.COMPLETED, 2)
        assert (run.progress.failed, run.progress.codes) == (1, {"upstream_rejected": 1})
        assert error["custom_id"] == "r2"
        assert error["response"]["status_code"] >= 400
        assert error["response"]["body"]["error"]["code"] == "upstream_rejected"

    def test_a_batch_without_answers_has_no_output_file(self, stage):
        """As OpenAI has it."""
        run = stage()
        run.answer_all(run.jobs.fail)

        assert run.progress.output_file_id is None
        assert len(run.errors()) == 3

    def test_a_full_queue_is_waited_for(self, stage):
        """The line is sent later; it is no result."""
        run = stage()
        run.jobs.faults = [QueueFull("full", retry_after_s=3) for _ in range(3)]
        run.step()
        assert run.jobs.admitted == {}
        run.step(2)
        assert run.jobs.admitted == {}
        run.step(2)
        run.answer_all()

        assert run.progress.completed == 3

    def test_a_line_that_is_refused_among_others_is_the_next_to_be_sent(self, stage):
        """There was no room for a long one; shorter ones behind it have gone before it."""
        run = stage(lines_of(25))
        run.step()
        run.jobs.faults = [QueueFull("full", retry_after_s=3)]
        run.step()
        before = len(run.jobs.admitted)
        run.step(4)
        sent = [job.request.messages[0].content for job in run.jobs.admitted.values()]

        assert before == 19
        assert [text.removeprefix("this is ") for text in sent[18:21]] == ["r20", "r1", "r21"]

    def test_a_line_without_room_in_redis_is_kept_and_told(self, stage):
        """Redis is nearly full: what it took before that line is on its way."""
        run = stage()
        admit_all = run.jobs.admit_all
        run.jobs.admit_all = lambda jobs: [*admit_all(jobs[:2]), QueueUnavailable("nearly full")]
        run.step()
        with pytest.raises(QueueUnavailable, match="nearly full"):
            run.step()
        run.jobs.admit_all = admit_all
        run.answer_all()

        assert run.progress.completed == 3
        assert len(run.jobs.admissions) == 3

    def test_a_refusal_for_good_is_a_result(self, stage):
        """A provider that has lost its key since the file was validated."""
        run = stage()
        run.jobs.faults = [ProviderNotRegistered("no key")]
        run.answer_all()

        assert (run.progress.completed, run.progress.failed) == (2, 1)
        assert run.errors()[0]["error"]["code"] == "provider_not_registered"

    def test_a_line_stays_good_when_less_may_be_asked_for(self, stage):
        """It was validated before ``max_timeout_s`` was lowered: it has what is allowed now."""
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "timeout_s": 600}
        run = stage(request_line("a", body=body))
        run.step()
        run.jobs.forget()
        run.config = ChatdConfig(max_timeout_s=60)
        run.killed()
        run.step()
        timeouts = [job.timeout_ms for job in run.jobs.admitted.values()]
        run.answer_all()

        assert timeouts == [60_000]
        assert run.progress.completed == 1

    def test_half_a_character_is_written_as_an_escape(self, stage):
        """A provider may answer so; no line may keep its batch from its end."""
        run = stage()
        run.answer_all(lambda job_id: run.jobs.succeed(job_id, "cut \ud83d"))
        answers = [result["response"]["body"]["choices"][0] for result in run.output()]

        assert [answer["message"]["content"] for answer in answers] == ["cut \ud83d"] * 3

    def test_redis_away_loses_nothing(self, stage):
        """Whatever was said before it went is said again."""
        run = stage()
        run.step()
        run.jobs.faults = [QueueUnavailable("away")]
        with pytest.raises(QueueUnavailable):
            run.step()
        run.answer_all()

        assert run.progress.completed == 3
        assert len(run.jobs.admissions) == 3


class TestCrashes:
    """The keeper dies; the next one goes on."""

    def test_a_new_keeper_asks_for_the_same_jobs(self, stage):
        """So that nothing is called twice."""
        run = stage()
        run.until_sent()
        run.killed()
        run.step()

        assert len(run.jobs.admissions) == 6
        assert len(set(run.jobs.admissions)) == 3

    def test_a_result_on_disk_is_not_asked_for_again(self, stage):
        """And is counted once."""
        run = stage()
        run.until_sent()
        run.jobs.succeed(run.jobs.open[0])
        run.step()
        run.killed()
        run.answer_all()

        assert run.progress.completed == 3
        assert run.progress.input_tokens == 30
        assert len(run.output()) == 3
        assert len(set(run.jobs.admissions)) == 3

    def test_a_result_that_was_cut_off_is_written_again(self, stage):
        """The job's record is still there: it goes only once the line is on disk."""
        run = stage()
        run.until_sent()
        first = run.jobs.open[0]
        run.jobs.succeed(first)
        run.jobs.faults = [QueueUnavailable("away")]
        with pytest.raises(QueueUnavailable):
            run.step()
        run.run.close()
        output = run.store.folder(run.batch.id) / "output.jsonl"
        output.write_bytes(output.read_bytes()[:-20])
        run.run = run.start()
        run.answer_all()

        assert sorted(result["custom_id"] for result in run.output()) == ["r1", "r2", "r3"]
        assert run.progress.completed == 3

    def test_a_record_that_was_not_let_go_is_harmless(self, stage):
        """The line is on disk, the keeper died before it told Redis: one result."""
        run = stage()
        run.until_sent()
        run.jobs.succeed(run.jobs.open[0])
        run.jobs.faults = [QueueUnavailable("away")]
        with pytest.raises(QueueUnavailable):
            run.step()
        run.killed()
        run.answer_all()

        assert len(run.output()) == 3
        assert (run.jobs.admitted, run.jobs.ended) == ({}, {})

    def test_jobs_that_redis_has_lost_are_sent_again(self, stage):
        """Under the same ids."""
        run = stage()
        run.until_sent()
        run.jobs.forget()
        run.step()
        run.answer_all()

        assert run.progress.completed == 3
        assert len(set(run.jobs.admissions)) == 3

    @pytest.mark.parametrize("steps", [4, 5, 6, 9, 13])
    def test_it_may_die_at_any_step(self, stage, steps):
        """450 lines, a keeper that dies every few steps: 450 results."""
        run = stage(lines_of(450))
        for _ in range(200):
            for _ in range(steps):
                if run.run.over:
                    break
                run.step()
                for job_id in run.jobs.open[:90]:
                    run.jobs.succeed(job_id)
            if run.run.over:
                break
            run.killed()

        results = run.output()
        assert len(results) == len({result["custom_id"] for result in results}) == 450
        assert run.progress.completed == 450

    @pytest.mark.parametrize("bad", [False, True], ids=["completed", "failed"])
    def test_it_may_die_before_its_end_is_put_away(self, stage, bad):
        """The progress says that it is over, and the marker is still there."""
        run = stage("{no json}" if bad else THREE)
        run.answer_all()
        over = run.progress
        (run.store.folder(run.batch.id).parent / "unfinished" / run.batch.id).touch()
        run.killed()

        assert run.run.over
        assert run.progress == over
        assert run.store.unfinished() == []

    def test_it_may_die_while_the_files_are_made(self, stage):
        """The output is a file already, the errors are not."""
        run = stage()
        ends = iter([run.jobs.succeed, run.jobs.fail, run.jobs.succeed])
        run.until_sent()
        for job_id in run.jobs.open:
            next(ends)(job_id)
        root = run.store.folder(run.batch.id).parent.parent / "files"
        adopted: list[str] = []

        class Dies(FileStore):
            def adopt(
                self,
                path: Path,
                file_id: str,
                filename: str,
                purpose: Purpose,
                lifetime_s: int | None = None,
                owner: str = "",
            ) -> StoredFile:
                if adopted:
                    raise OSError("died")
                adopted.append(file_id)
                return super().adopt(path, file_id, filename, purpose, lifetime_s, owner)

        run.run.close()
        files, run.files = run.files, Dies(root)
        run.run = run.start()
        with pytest.raises(OSError, match="died"):
            run.step(3)
        half = run.progress.status
        run.files = files
        run.killed()
        run.step()

        assert (half, run.progress.status) == (Status.FINALIZING, Status.COMPLETED)
        assert (len(run.output()), len(run.errors())) == (2, 1)
        assert (run.progress.completed, run.progress.failed) == (2, 1)


class TestEnds:
    """Ends that come before the last answer."""

    def test_cancelling_stops_what_is_on_its_way(self, stage):
        """What was answered stays; everything else is accounted for."""
        run = stage(lines_of(300))
        run.until_sent()
        run.jobs.succeed(run.jobs.open[0])
        run.store.cancel(run.batch.id)
        assert run.progress.status is Status.CANCELLING
        run.step(4)
        progress = run.progress

        assert progress.status is Status.CANCELLED
        assert (progress.total, progress.completed, progress.failed) == (300, 1, 299)
        assert len(run.jobs.cancelled) == WINDOW - 1
        assert len(run.jobs.admissions) == WINDOW
        assert {error["error"]["code"] for error in run.errors()} == {"batch_cancelled"}
        assert len({result["custom_id"] for result in run.errors()}) == 299

    def test_a_batch_may_be_cancelled_before_it_began(self, stage):
        """Nothing is sent, and there is nothing to read."""
        run = stage()
        run.store.cancel(run.batch.id)
        run.step()

        assert run.progress.status is Status.CANCELLED
        assert run.jobs.admissions == []
        assert run.progress.times["cancelling_at"]

    def test_an_answer_that_comes_while_cancelling_counts(self, stage):
        """It was paid for."""
        run = stage(lines_of(2))
        run.until_sent()
        first, second = run.jobs.open
        run.jobs.succeed(second)
        run.store.cancel(run.batch.id)
        run.step(3)

        assert run.progress.completed == 1
        assert run.output()[0]["custom_id"] == "r2"
        assert run.jobs.cancelled == [first]

    def test_the_end_of_the_window_ends_the_batch(self, stage):
        """Status expired; what is unanswered says so."""
        run = stage(lines_of(3), window_s=3600)
        run.until_sent()
        run.jobs.succeed(run.jobs.open[0])
        run.wall += 3601
        run.step(3)
        progress = run.progress

        assert progress.status is Status.EXPIRED
        assert (progress.completed, progress.failed) == (1, 2)
        assert progress.codes == {"batch_expired": 2}

    def test_cancelling_goes_on_after_a_crash(self, stage):
        """The next keeper finds that somebody asked for it."""
        run = stage(lines_of(300))
        run.until_sent()
        run.store.cancel(run.batch.id)
        run.step()
        run.killed()
        run.step(6)

        assert run.progress.status is Status.CANCELLED
        assert run.progress.failed == 300

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            pytest.param(Status.CANCELLED, "batch_cancelled", id="cancelled"),
            pytest.param(Status.EXPIRED, "batch_expired", id="expired"),
        ],
    )
    def test_an_end_that_comes_without_a_keeper_finds_what_is_on_its_way(self, stage, status, code):
        """What was answered meanwhile was paid for; what was not is called no more."""
        run = stage(lines_of(300))
        run.until_sent()
        answered, *unanswered = run.jobs.open
        run.jobs.succeed(answered)
        if status is Status.CANCELLED:
            run.store.cancel(run.batch.id)
        else:
            run.wall += 86401
        run.killed()
        run.step(6)

        assert (run.progress.status, run.progress.completed) == (status, 1)
        assert run.progress.codes == {code: 299}
        assert sorted(run.jobs.cancelled) == sorted(unanswered)
        assert run.jobs.admitted == {}

    def test_a_job_whose_acceptance_was_not_heard_of_is_cancelled_too(self, stage):
        """Redis had it when it went away."""
        run = stage(lines_of(1))
        admit = run.jobs.admit

        def admit_and_go(job):
            admit(job)
            raise QueueUnavailable("away")

        run.jobs.admit = admit_and_go
        run.step()
        with pytest.raises(QueueUnavailable):
            run.step()
        run.store.cancel(run.batch.id)
        run.step(3)

        assert len(run.jobs.cancelled) == 1
        assert run.progress.status is Status.CANCELLED

    @pytest.mark.parametrize("state", [JobState.EXPIRED, JobState.FAILED], ids=str)
    @pytest.mark.parametrize("late_s", [0, 5], ids=["just before", "after"])
    def test_a_job_that_ends_with_the_window_expired(self, stage, state, late_s):
        """Its own deadline is the batch's, whichever of the two is noticed first."""
        run = stage(lines_of(2))
        run.until_sent()
        run.wall = run.batch.expires_at - 1 + late_s
        error = {"code": "deadline_exceeded", "message": "too late"}
        first, second = run.jobs.open
        run.jobs.end(first, state, error=error)
        run.jobs.succeed(second)
        run.step(3)

        assert (run.progress.status, run.progress.completed) == (Status.EXPIRED, 1)
        assert run.progress.codes == {"batch_expired": 1}
        assert run.errors()[0]["chatd"]["attempts"][0]["billed"] == "yes"

    def test_a_deadline_of_its_own_does_not_end_a_batch(self, stage):
        """The line asked for it."""
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "timeout_s": 60}
        run = stage(request_line("a", body=body))
        run.until_sent()
        error = {"code": "deadline_exceeded", "message": "too late"}
        run.jobs.end(run.jobs.open[0], JobState.EXPIRED, error=error)
        run.step(2)

        assert run.progress.status is Status.COMPLETED
        assert run.progress.codes == {"deadline_exceeded": 1}

    def test_cancelling_needs_no_jobs_that_redis_has_lost(self, stage):
        """They end like those that were not sent."""
        run = stage(lines_of(3))
        run.until_sent()
        run.store.cancel(run.batch.id)
        run.jobs.forget()
        run.jobs.states = lambda job_ids: [JobState.QUEUED] * len(job_ids)
        run.step(2)

        assert run.progress.status is Status.CANCELLED
        assert run.progress.codes == {"batch_cancelled": 3}

    def test_somebody_may_cancel_one_item(self, stage):
        """The batch goes on, and the item has the error it would have alone."""
        run = stage()
        run.until_sent()
        run.jobs.cancel(run.jobs.open[0])
        run.answer_all()

        assert run.progress.status is Status.COMPLETED
        assert run.errors()[0]["response"]["body"]["error"]["code"] == "job_cancelled"

    def test_a_bad_file_fails_before_anything_is_sent(self, stage):
        """With the numbers of its lines."""
        run = stage(lines_of(6) + "{no json}\n")
        run.step()

        assert run.progress.status is Status.FAILED
        assert [fault.line for fault in run.progress.faults] == [7]
        assert run.jobs.admissions == []
        assert run.store.unfinished() == []


def test_states_of_a_job_are_what_the_fake_says():
    """The fake store forgets a job as Redis would."""
    jobs = FakeJobs()

    assert jobs.states(["job_x"]) == [None]
    assert JobState.SUCCEEDED.terminal
