"""Answers that Redis could not take: kept whole and private, and handed in once."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import fakeredis
import pytest
import redis

from chat.config import ChatdConfig
from chat.errors import QueueUnavailable
from chat.jobs import Ending, JobState
from chat.store import JobStore
from tests.store_suite import a_job
from workers.orphans import Orphans

#: Whole, but of a state that no job has.
BOGUS = json.dumps(
    {
        "job_id": "job_x",
        "token": "t",
        "record": "{}",
        "provider": "ollama",
        "worker": "w",
        "state": "bogus",
        "payload": {},
        "outcome": "succeeded",
        "upstream_status": 200,
        "billed": "yes",
    }
)


@pytest.fixture
def store():
    store = JobStore(fakeredis.FakeRedis(decode_responses=True), ChatdConfig())
    store.register_settings(["ollama"])
    return store


@pytest.fixture
def orphans(tmp_path):
    return Orphans(tmp_path)


def an_ending(store, **changes):
    """The end of a call that is out: nothing but ``finish`` is left to do."""
    job = a_job()
    store.admit(job)
    grant = store.start(job.id, worker="ollama-1@here", token=f"token-of-{job.id}")
    ending = Ending(
        job_id=job.id,
        token=grant.token,
        record=grant.record,
        provider="ollama",
        worker="ollama-1@here",
        state="succeeded",
        payload={"content": "Grüße 🌍"},
        outcome="succeeded",
        upstream_status=200,
        billed="yes",
    )
    return replace(ending, **changes)


def files(tmp_path):
    return sorted(path.name for path in (tmp_path / "orphans").iterdir())


def test_an_ending_comes_back_as_it_was_kept(orphans, store, tmp_path):
    """Through the file into the job's record; the file goes."""
    ending = an_ending(store)
    path = orphans.keep(ending)
    kept = files(tmp_path)
    taken = orphans.hand_in(store, "ollama")
    record = store.record(ending.job_id)

    assert kept == [path.name] == [f"{ending.job_id}.{ending.token}.json"]
    assert taken == 1
    assert (record.state, record.response) == (JobState.SUCCEEDED, {"content": "Grüße 🌍"})
    assert [(a.outcome, a.upstream_status, a.billed) for a in record.attempts] == [
        ("succeeded", 200, "yes")
    ]
    assert files(tmp_path) == []
    assert orphans.hand_in(store, "ollama") == 0


def test_what_was_handed_in_is_remembered_before_its_file_goes(orphans, store, tmp_path):
    """Redis may forget it once more: the worker then tells it again."""
    ending = an_ending(store)
    orphans.keep(ending)
    seen = []
    orphans.hand_in(store, "ollama", lambda told: seen.append((told, len(files(tmp_path)))))

    assert seen == [(ending, 1)]


def test_a_failure_is_kept_like_an_answer(orphans, store):
    """It may have been billed as well."""
    error = {"code": "upstream_protocol", "message": "that is no answer"}
    ending = an_ending(
        store, state="failed", payload=error, outcome="upstream_protocol", billed="maybe"
    )
    orphans.keep(ending)
    orphans.hand_in(store, "ollama")
    record = store.record(ending.job_id)

    assert (record.state, record.error) == (JobState.FAILED, error)
    assert record.attempts[0].billed == "maybe"


def test_an_answer_outlives_the_job_that_redis_has_forgotten(orphans, store):
    """The record is made again from what the file has."""
    ending = an_ending(store)
    orphans.keep(ending)
    store.redis.flushall()
    orphans.hand_in(store, "ollama")

    assert store.record(ending.job_id).response == {"content": "Grüße 🌍"}


def test_only_the_owner_of_the_folder_can_read_it(orphans, store, tmp_path):
    """Answers are as private as the questions were."""
    orphans.keep(an_ending(store))

    assert (tmp_path / "orphans").stat().st_mode & 0o777 == 0o700


def test_a_draft_is_never_read_as_an_ending(orphans, store, tmp_path):
    """A machine that went down while writing leaves one; its job ends in another way."""
    ending = an_ending(store)
    path = orphans.keep(ending)
    whole = path.read_text("utf-8")
    path.rename(path.with_suffix(".draft"))
    taken = orphans.hand_in(store, "ollama")
    left = files(tmp_path)
    path.with_suffix(".draft").write_text(whole[:20], "utf-8")
    orphans.keep(ending)

    assert taken == 0
    assert left == [f"{ending.job_id}.{ending.token}.draft"]
    assert json.loads(path.read_text("utf-8")) == json.loads(whole)
    assert files(tmp_path) == [path.name]


def test_other_providers_endings_are_left_to_their_workers(orphans, store, tmp_path):
    """Their finish has to free their permits."""
    path = orphans.keep(an_ending(store, provider="kimi"))

    assert orphans.hand_in(store, "ollama") == 0
    assert files(tmp_path) == [path.name]


def test_without_orphans_there_is_nothing_to_do(orphans, store):
    """Not even a folder."""
    assert orphans.hand_in(store, "ollama") == 0


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", BOGUS, '{"job_id": "job_x"}', '{"surprise": 1}', "\udcff"],
    ids=[
        "empty",
        "torn",
        "a list",
        "no such state",
        "fields missing",
        "a field too many",
        "not UTF-8",
    ],
)
def test_a_file_that_cannot_be_read_stops_nobody(orphans, store, tmp_path, caplog, text):
    """It is named in the log and set aside for a person; the others are handed in."""
    ending = an_ending(store)
    path = orphans.keep(ending)
    damaged = path.with_name("damaged.json")
    damaged.write_text(text, "utf-8", errors="surrogateescape")
    with caplog.at_level(logging.WARNING):
        taken = orphans.hand_in(store, "ollama")

    assert taken == 1
    assert files(tmp_path) == ["damaged.unreadable"]
    assert str(damaged) in caplog.text
    assert orphans.hand_in(store, "ollama") == 0


def test_an_ending_stays_when_redis_goes_away_again(orphans, store, tmp_path):
    """The next start tries once more."""
    path = orphans.keep(an_ending(store))

    class Away(fakeredis.FakeRedis):
        def execute_command(self, *_args, **_options):
            raise redis.ConnectionError("gone")

    with pytest.raises(QueueUnavailable):
        orphans.hand_in(JobStore(Away(decode_responses=True), ChatdConfig()), "ollama")

    assert files(tmp_path) == [path.name]


def test_two_workers_may_hand_in_the_same_folder(orphans, store, tmp_path):
    """Whoever comes second finds the file gone after finishing the same job to no effect."""
    ending = an_ending(store)
    path = orphans.keep(ending)

    class Twin(JobStore):
        """The other worker does its round while this one is in ``finish``."""

        def finish(self, *args, **kwargs):
            assert Orphans(tmp_path).hand_in(store, "ollama") == 1
            return super().finish(*args, **kwargs)

    twin = Twin(store.redis, ChatdConfig())

    assert orphans.hand_in(twin, "ollama") == 1
    assert not path.exists()
    assert store.counters()["succeeded"] == 1
    assert len(store.record(ending.job_id).attempts) == 1


def test_a_disk_that_takes_nothing_is_said(tmp_path, store):
    """The worker's log then has the failure instead of a file's name."""
    (tmp_path / "orphans").write_text("in the way", "utf-8")

    with pytest.raises(OSError, match="exists"):
        Orphans(tmp_path).keep(an_ending(store))
