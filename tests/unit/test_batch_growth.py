"""A batch whose input is appended to while it runs: ``chat.batches.growth`` and its run."""

from __future__ import annotations

from pathlib import Path

import pytest

from chat.batches.batch import Progress, Status
from chat.batches.folder import BatchStore
from chat.batches.run import BatchRun
from chat.files import FileStore
from chat.settings import ChatdConfig
from tests.batches import CREATED_MS, FakeJobs, a_batch, request_line, results_in
from tests.fakes import FakeClock, registered_names


class Stage:
    """A data_dir with a batch that grows, and the keepers that run it one after the other."""

    def __init__(self, root: Path) -> None:
        self.store, self.files = BatchStore(root / "batches"), FileStore(root / "files")
        self.jobs, self.clock = FakeJobs(), FakeClock()
        self.wall = CREATED_MS / 1000
        self.batch = a_batch(grows=True)
        self.input = root / "calls.jsonl"
        self.input.touch()
        self.store.create(self.batch, self.input)
        self.run = self.start()

    def start(self) -> BatchRun:
        return BatchRun(
            self.batch.id,
            self.store,
            self.files,
            self.jobs,
            registered_names("ollama", "kimi"),
            ChatdConfig(),
            wall=lambda: self.wall,
            clock=self.clock,
        )

    def append(self, *custom_ids: str, model: str = "m") -> None:
        with self.input.open("a") as stream:
            stream.writelines(request_line(custom_id, model) + "\n" for custom_id in custom_ids)
        self.store.extend(self.batch.id, self.input.stat().st_size)

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.clock.advance(1)
            self.run.step()

    def answer_all(self) -> None:
        for _ in range(6):
            self.step()
            for job_id in self.jobs.open:
                self.jobs.succeed(job_id)

    @property
    def progress(self) -> Progress:
        return self.store.get(self.batch.id)[1]

    def results(self) -> list[str]:
        output = self.files.path(self.batch.output_file_id)
        return sorted(result["custom_id"] for result in results_in(output))


@pytest.fixture
def stage(tmp_path):
    stage = Stage(tmp_path)
    yield stage
    stage.run.close()


def test_it_does_not_end_before_it_is_sealed(stage):
    stage.append("q1", "q2")
    stage.answer_all()
    assert (stage.progress.status, stage.progress.completed) == (Status.IN_PROGRESS, 2)
    stage.append("q3")
    stage.answer_all()
    assert (stage.progress.status, stage.progress.total) == (Status.IN_PROGRESS, 3)
    stage.store.seal(stage.batch.id)
    stage.step(2)
    assert (stage.progress.status, stage.progress.completed) == (Status.COMPLETED, 3)
    assert stage.results() == ["q1", "q2", "q3"]


def test_what_is_appended_before_the_seal_is_read_after_it(stage):
    stage.append("q1")
    stage.store.seal(stage.batch.id)
    stage.answer_all()
    assert stage.progress.status is Status.COMPLETED
    assert stage.results() == ["q1"]


def test_one_without_lines_completes(stage):
    stage.store.seal(stage.batch.id)
    stage.step(4)
    assert (stage.progress.status, stage.progress.total) == (Status.COMPLETED, 0)


def test_what_may_not_last_is_not_sent(stage):
    """A line that a power failure takes back may be another one afterwards."""
    stage.append("q1")
    with stage.input.open("a") as file:
        file.write(request_line("q2") + "\n")
    stage.step(3)
    assert len(stage.jobs.admissions) == 1
    stage.append("q3")
    stage.store.seal(stage.batch.id)
    stage.answer_all()
    assert stage.results() == ["q1", "q2", "q3"]


def test_a_new_keeper_sends_nothing_twice(stage):
    stage.append("q1", "q2")
    stage.answer_all()
    stage.run.close()
    stage.append("q3")
    stage.run = stage.start()
    stage.store.seal(stage.batch.id)
    stage.answer_all()
    assert len(stage.jobs.admissions) == 3
    assert stage.results() == ["q1", "q2", "q3"]


def test_a_model_that_leads_nowhere_is_the_result_of_its_line(stage):
    stage.append("q1")
    stage.append("q2", model="openrouter/a/b")
    stage.store.seal(stage.batch.id)
    stage.answer_all()
    assert (stage.progress.completed, stage.progress.failed) == (1, 1)
    assert stage.progress.codes == {"provider_not_registered": 1}


@pytest.mark.parametrize("killed", [False, True])
def test_cancelling_ends_one_that_is_open(stage, killed):
    stage.append("q1", "q2")
    stage.step(3)
    stage.store.cancel(stage.batch.id)
    if killed:
        stage.run.close()
        stage.run = stage.start()
    stage.append("q3")
    stage.step(4)
    assert stage.progress.status is Status.CANCELLED
    assert stage.progress.codes == {"batch_cancelled": 3}
    assert not list(stage.store.folder(stage.batch.id).glob("open"))
