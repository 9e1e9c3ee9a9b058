"""Where batches live, and what runs them: ``chat.batches.folder`` and ``workers.runs``."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from chat.batches.batch import Batch, Fault, Progress, Status
from chat.batches.folder import BatchStore
from chat.errors import BatchNotFound, IdempotencyMismatch, QueueUnavailable
from chat.settings import ChatdConfig
from tests.batches import CREATED_MS, FakeJobs, a_batch, lines_of
from tests.fakes import FakeClock, registered_names
from workers import runs as keeper_runs

NOW = CREATED_MS / 1000
DAY_S = 86400


def _stopped() -> threading.Event:
    """For a runner that only lets go of what it has."""
    stop = threading.Event()
    stop.set()
    return stop


@pytest.fixture
def store(tmp_path):
    return BatchStore(tmp_path / "batches")


@pytest.fixture
def content(tmp_path):
    path = tmp_path / "input.jsonl"
    path.write_text(lines_of(2))
    return path


class TestStore:
    """What front ends and keeper share."""

    def test_a_batch_is_found_as_it_was_made(self, store, content):
        """Before anybody has looked after it."""
        batch = dataclasses.replace(a_batch(), metadata={"a": "b"})
        store.create(batch, content)
        found, progress = store.get(batch.id)

        assert found == batch
        assert progress == Progress()
        assert store.unfinished() == [batch.id]

    def test_it_does_not_need_its_input_file_any_more(self, store, content):
        """Who deletes the file deletes its name."""
        batch = a_batch()
        store.create(batch, content)
        content.unlink()

        assert (store.folder(batch.id) / "input.jsonl").read_text() == lines_of(2)

    @pytest.mark.parametrize(
        "batch_id",
        ["batch_" + "0" * 26, "batch_x", "../../etc/passwd", "", "batch_" + "0" * 25 + "/"],
    )
    def test_what_is_no_batch_is_not_found(self, store, batch_id):
        """Whatever it looks like; nothing outside is ever read."""
        with pytest.raises(BatchNotFound):
            store.get(batch_id)

    def test_a_batch_that_cannot_be_made_leaves_nothing(self, store, tmp_path):
        """Its input file has gone meanwhile."""
        with pytest.raises(FileNotFoundError):
            store.create(a_batch(), tmp_path / "nothing")

        assert store.unfinished() == []
        assert [path.name for path in (tmp_path / "batches").iterdir()] == ["unfinished"]

    def test_pages_are_newest_first(self, store, content):
        """Each begins after the last one of the page before."""
        batches = [a_batch() for _ in range(5)]
        for batch in batches:
            store.create(batch, content)
        newest_first = sorted((batch.id for batch in batches), reverse=True)
        pages, after = [], None
        while True:
            page, more = store.page(after, 2)
            pages.append([batch.id for batch, _ in page])
            after = pages[-1][-1]
            if not more:
                break

        assert [batch_id for page in pages for batch_id in page] == newest_first
        assert [len(page) for page in pages] == [2, 2, 1]

    def test_progress_survives_being_stored(self, store, content):
        """Every field of it."""
        batch = a_batch()
        store.create(batch, content)
        progress = Progress(
            Status.IN_PROGRESS, {"in_progress_at": 5}, 9, 3, 2, 100, 50, 0.25, faults=[]
        )
        progress.codes["upstream_rejected"] = 2
        progress.faults.append(Fault("c", "m", 7, "p"))
        store.save(batch.id, progress)

        assert store.progress(batch.id) == progress

    def test_one_that_is_over_is_not_cancelled(self, store, content):
        """It stays what it became."""
        batch = a_batch()
        store.create(batch, content)
        store.save(batch.id, Progress(Status.COMPLETED))

        assert store.cancel(batch.id)[1].status is Status.COMPLETED
        assert store.cancelled_at(batch.id) is None
        assert store.unfinished() == []

    def test_what_was_kept_long_enough_goes(self, store, content):
        """With its Idempotency-Key; not what is on its way, nor what ended later."""
        old, late, running = (a_batch() for _ in range(3))
        for batch in (old, late, running):
            store.create(batch, content)
        store.claim("key", "body", old.id)
        store.save(old.id, Progress(Status.COMPLETED, {"completed_at": 100}))
        store.save(late.id, Progress(Status.COMPLETED, {"completed_at": 200}))

        assert store.sweep(oldest=150, now=NOW) == 1
        assert [batch.id for batch, _ in store.page(None, 9)[0]] == sorted(
            (late.id, running.id), reverse=True
        )
        assert store.claim("key", "another body", running.id) == running.id

    def test_what_a_dead_process_left_behind_goes_after_a_day(self, store, content, tmp_path):
        """A batch that was being made, and a marker for it."""
        store.create(a_batch(), content)
        root, half = tmp_path / "batches", a_batch()
        (root / f".{half.id}.1").mkdir()
        (root / "unfinished" / half.id).touch()
        made_at = (root / "unfinished" / half.id).stat().st_mtime
        store.sweep(0, made_at + DAY_S - 60)
        assert (root / f".{half.id}.1").exists()
        store.sweep(0, made_at + DAY_S + 60)

        assert not (root / f".{half.id}.1").exists()
        assert [path.name for path in (root / "unfinished").iterdir()] == store.unfinished()
        assert len(store.unfinished()) == 1

    def test_a_key_stands_for_one_batch(self, store):
        """Another body with the same key is refused."""
        first, second = a_batch(), a_batch()

        assert store.claim("key", "body", first.id) == first.id
        assert store.claim("key", "body", second.id) == first.id
        with pytest.raises(IdempotencyMismatch):
            store.claim("key", "another body", second.id)

    def test_a_batch_that_is_there_is_not_made_again(self, store, content):
        """By a second process with the same key."""
        batch = a_batch()
        store.create(batch, content)
        store.save(batch.id, Progress(Status.COMPLETED, {"completed_at": 100}))
        store.create(batch, content)

        assert store.progress(batch.id).status is Status.COMPLETED
        assert store.unfinished() == []

    def test_one_process_may_make_a_batch_twice_at_once(self, store, content, monkeypatch):
        """Threads that have the same key: one batch, and both have it."""
        batch, both = a_batch(), threading.Barrier(2, timeout=10)
        rename = Path.rename

        def rename_together(path, target):
            if path.name.startswith(f".{batch.id}"):
                both.wait()
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", rename_together)
        with ThreadPoolExecutor(2) as threads:
            made = [threads.submit(store.create, batch, content) for _ in range(2)]
            for making in made:
                making.result()

        assert store.get(batch.id)[0] == batch
        assert store.unfinished() == [batch.id]

    def test_a_batch_that_is_being_removed_is_no_batch(self, store, content, monkeypatch):
        """A keeper that dies in between leaves nothing that looks like one."""
        batch = a_batch()
        store.create(batch, content)
        store.save(batch.id, Progress(Status.COMPLETED, {"completed_at": 100}))

        def die(path):
            (path / "progress.json").unlink()
            raise OSError("died")

        with monkeypatch.context() as patch:
            patch.setattr("shutil.rmtree", die)
            with pytest.raises(OSError, match="died"):
                store.sweep(oldest=150, now=NOW)

        assert store.page(None, 9) == ([], False)
        assert store.sweep(oldest=150, now=NOW) == 0

    def test_the_end_leaves_no_copy_of_the_input(self, store, content):
        """The marker goes last: who dies before has not finished."""
        batch = a_batch()
        store.create(batch, content)
        store.save(batch.id, Progress(Status.FAILED, {"failed_at": 1}))

        assert not (store.folder(batch.id) / "input.jsonl").exists()

    def test_the_object_is_openais(self):
        """With times in seconds, and ours in a place of its own."""
        progress = Progress(Status.FAILED, {"failed_at": 5}, faults=[Fault("c", "m", 7)])
        batch: Batch = a_batch()
        wire = batch.shown(progress)

        assert (wire["object"], wire["status"], wire["failed_at"]) == ("batch", "failed", 5)
        assert wire["expires_at"] - wire["created_at"] == 86400
        assert wire["errors"]["data"] == [{"code": "c", "message": "m", "line": 7, "param": None}]
        assert json.loads(json.dumps(wire)) == wire


class TestThread:
    """One keeper, and two."""

    @pytest.fixture
    def keeper(self, tmp_path):
        config = ChatdConfig(data_dir=tmp_path)
        jobs, clock = FakeJobs(), FakeClock()
        made = []

        def make():
            names = registered_names("ollama")
            made.append(keeper_runs.batches(config, jobs, names, clock=clock, wall=lambda: NOW))
            return made[-1]

        yield make, jobs, clock, BatchStore(tmp_path / "batches")
        for runner in made:
            runner.run(_stopped())

    def test_it_runs_every_batch(self, keeper, content):
        """Side by side."""
        make, jobs, _, store = keeper
        batches = [a_batch(), a_batch()]
        for batch in batches:
            store.create(batch, content)
        runs = make()
        for _ in range(20):
            for job_id in jobs.open:
                jobs.succeed(job_id)
            runs.round()

        assert {store.get(batch.id)[1].status for batch in batches} == {Status.COMPLETED}
        assert len(jobs.admissions) == 4

    def test_two_keepers_do_not_run_the_same_batch(self, keeper, content):
        """The second waits for the lock of the first."""
        make, jobs, _, store = keeper
        store.create(a_batch(), content)
        first, second = make(), make()
        for _ in range(3):
            first.round()
            second.round()

        assert len(jobs.admissions) == 2

    def test_redis_away_is_told_once(self, keeper, content, caplog):
        """And waited for."""
        caplog.set_level(logging.INFO)
        make, jobs, _, store = keeper
        batch = a_batch()
        store.create(batch, content)
        runs = make()
        runs.round()
        jobs.faults = [QueueUnavailable("away")] * 3
        for _ in range(10):
            runs.round()
            for job_id in jobs.open:
                jobs.succeed(job_id)

        assert store.get(batch.id)[1].status is Status.COMPLETED
        assert caplog.text.count("batch runs wait") == 1
        assert caplog.text.count("batch runs go on") == 1

    def test_a_full_disk_ends_no_thread(self, keeper, content, caplog):
        """The batch rests, and writes each result once when there is room."""
        make, jobs, clock, store = keeper
        batch = a_batch()
        store.create(batch, content)
        runs = make()
        while not jobs.open:
            runs.round()
        output = store.folder(batch.id) / "output.jsonl"
        output.symlink_to("/dev/full")
        for job_id in jobs.open:
            jobs.succeed(job_id)
        runs.round()
        unsettled = len(jobs.ended)
        output.unlink()
        output.write_bytes(b'{"id": "batch_req_')
        clock.advance(60)
        for _ in range(5):
            runs.round()
        progress = store.get(batch.id)[1]

        assert caplog.text.count("No space left on device") == 1
        assert "Traceback" not in caplog.text
        assert unsettled == 2
        assert (progress.status, progress.completed) == (Status.COMPLETED, 2)
        assert len(set(jobs.admissions)) == 2

    @pytest.mark.parametrize(
        ("tick_s", "least_s", "most_s"),
        [
            pytest.param(0.0, 0.1, 0.1, id="at once"),
            pytest.param(0.005, 0.02, 0.09, id="what a round takes is part of it"),
            pytest.param(0.2, 0.01, 0.01, id="a long one is followed soon"),
        ],
    )
    def test_rounds_begin_ten_times_a_second(
        self, content, store, tmp_path, tick_s, least_s, most_s
    ):
        """A file of many lines is read in long steps, and not held up between them."""
        store.create(a_batch(), content)
        ticks = count(1000.0, tick_s)
        config = ChatdConfig(data_dir=tmp_path)
        names = registered_names("ollama")
        runs = keeper_runs.batches(config, FakeJobs(), names, clock=lambda: next(ticks))
        pause = runs.round()
        runs.run(_stopped())

        assert least_s - 1e-9 <= pause <= most_s + 1e-9

    def test_a_redis_without_room_for_one_serves_the_others(self, keeper, content):
        """Their answers make room."""
        make, jobs, _, store = keeper
        stuck, well = sorted((a_batch(), a_batch()), key=lambda batch: batch.id)
        for batch in (stuck, well):
            store.create(batch, content)
        admit = jobs.admit

        def admit_small(job):
            if job.request_id == stuck.id:
                raise QueueUnavailable("out of memory")
            return admit(job)

        jobs.admit = admit_small
        runs = make()
        for _ in range(20):
            for job_id in jobs.open:
                jobs.succeed(job_id)
            runs.round()

        assert store.get(well.id)[1].status is Status.COMPLETED
        assert store.get(stuck.id)[1].status is Status.IN_PROGRESS

    def test_a_folder_that_cannot_be_read_ends_no_thread(self, keeper, content, tmp_path, caplog):
        """The keeper's other half needs no disk."""
        make, _, _, store = keeper
        store.create(a_batch(), content)
        unfinished = tmp_path / "batches" / "unfinished"
        unfinished.rename(tmp_path / "away")
        unfinished.write_text("not a folder")
        pause = make().round()

        assert pause > 1
        assert "cannot be listed" in caplog.text

    @pytest.mark.parametrize("damage", ["[]", '{"x": 1}', "{", ""])
    def test_a_damaged_batch_ends_no_thread(self, keeper, content, caplog, damage):
        """It cannot be told how old it is."""
        make, _, _, store = keeper
        batch = a_batch()
        store.create(batch, content)
        store.save(batch.id, Progress(Status.COMPLETED, {"completed_at": 100}))
        (store.folder(batch.id) / "progress.json").write_text(damage)
        make().round()

        assert "cannot be removed" in caplog.text

    def test_a_batch_with_a_fault_does_not_hold_up_another(self, keeper, content, caplog):
        """It rests, and begins anew from what is on disk."""
        make, jobs, clock, store = keeper
        sick, well = sorted((a_batch(), a_batch()), key=lambda batch: batch.id)
        for batch in (sick, well):
            store.create(batch, content)
        progress = store.folder(sick.id) / "progress.json"
        good = progress.read_text()
        progress.write_text("{}")
        runs = make()
        for _ in range(10):
            runs.round()
            for job_id in jobs.open:
                jobs.succeed(job_id)
        assert store.get(well.id)[1].status is Status.COMPLETED
        progress.write_text(good)
        clock.advance(60)
        for _ in range(10):
            runs.round()
            for job_id in jobs.open:
                jobs.succeed(job_id)

        assert store.get(sick.id)[1].status is Status.COMPLETED
        assert caplog.text.count("unexpected error") == 1
