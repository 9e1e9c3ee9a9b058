"""The account of bench.chaos: whatever must not be is found, and nothing else is."""

from __future__ import annotations

import os

import pytest

from bench.chaos.account import accounted
from bench.chaos.batch import Batch
from bench.chaos.disk import AppendOnlyFile
from bench.chaos.ledger import Job, Ledger
from bench.chaos.load import Asked, Kind
from bench.chaos.recovery import Recovery
from bench.upstream import Seen
from chat.jobs import JobState

FINDINGS = ("lost", "unexplained", "wrong", "contradictions", "twins", "lines")


def asked(question="q", said="answered", job_id="job_1", kind=Kind.CHAT, **fields):
    return Asked(question, kind, 0.0, said=said, job_id=job_id, **fields)


def job(question="q", outcomes=("succeeded",), state=JobState.SUCCEEDED, job_id="job_1", **fields):
    content = f"echo: {question}" if state is JobState.SUCCEEDED else None
    return Job(
        **{
            "job_id": job_id,
            "question": question,
            "state": state,
            "content": content,
            "code": None,
            "outcomes": outcomes,
            **fields,
        }
    )


def calls(*questions):
    return [Seen(0.0, question, "echo", 200, 1, became="answered") for question in questions]


def account_of(senders, jobs, seen, batches=()):
    ledger = Ledger()
    ledger.jobs = {one.job_id: one for one in jobs}
    return accounted(senders, list(batches), ledger, seen)


def broken(account):
    """Which findings there are, and how many."""
    return {name: len(getattr(account, name)) for name in FINDINGS if getattr(account, name)}


def test_a_job_that_was_answered_once_breaks_nothing():
    account = account_of([asked()], [job()], calls("q"))

    assert broken(account) == {}
    assert (account.accepted, account.calls, account.extra, account.unseen) == (1, 1, 0, 0)


def test_a_call_that_the_ledger_has_as_lost_is_explained():
    """Called again after its worker died: one call more, and the reason."""
    account = account_of([asked()], [job(outcomes=("lost", "succeeded"))], calls("q", "q"))

    assert broken(account) == {}
    assert (account.extra, account.reasons) == (1, {"lost": 1})


def test_an_answer_that_came_late_explains_the_call_that_it_superseded():
    account = account_of([asked()], [job(outcomes=("late", "superseded"))], calls("q", "q"))

    assert account.reasons == {"superseded": 1}


def test_an_attempt_that_never_reached_the_upstream_is_counted():
    account = account_of([asked()], [job(outcomes=("lost", "succeeded"))], calls("q"))

    assert (broken(account), account.unseen, account.extra) == ({}, 1, 0)


BROKEN = [
    pytest.param([asked()], [], [], {"lost": 1}, id="answered-without-record"),
    pytest.param([asked(said="accepted")], [], [], {"lost": 1}, id="accepted-without-record"),
    pytest.param([asked(said="outcome_unknown")], [], [], {"lost": 1}, id="failed-without-record"),
    pytest.param(
        [asked(said="accepted")],
        [job(state=JobState.QUEUED, outcomes=())],
        [],
        {"lost": 1},
        id="not-ended",
    ),
    pytest.param([], [job(state=JobState.CALLING)], calls("q"), {"lost": 1}, id="told-nobody"),
    pytest.param([asked()], [job()], calls("q", "q"), {"unexplained": 1}, id="called-twice"),
    pytest.param([], [], calls("q"), {"unexplained": 1}, id="called-without-job"),
    pytest.param([asked(said="wrong")], [job()], calls("q"), {"wrong": 1}, id="wrong-answer"),
    pytest.param([], [job(content="echo: another")], calls("q"), {"wrong": 1}, id="wrong-record"),
    pytest.param(
        [asked()],
        [job(state=JobState.FAILED, outcomes=("lost",))],
        calls("q"),
        {"contradictions": 1},
        id="answered-and-failed",
    ),
    pytest.param(
        [asked(said="accepted", final=("succeeded", "echo: q"))],
        [job(state=JobState.FAILED, outcomes=("lost",))],
        calls("q"),
        {"contradictions": 1},
        id="read-and-changed",
    ),
    pytest.param(
        [asked()], [job(), job(job_id="job_2")], calls("q", "q"), {"twins": 1}, id="two-jobs"
    ),
]


@pytest.mark.parametrize(("senders", "jobs", "seen", "expected"), BROKEN)
def test_what_must_not_be_is_found(senders, jobs, seen, expected):
    assert broken(account_of(senders, jobs, seen)) == expected


def test_nobody_knows_of_a_job_whose_admission_was_not_confirmed():
    """503 redis_unavailable names the job that there may be."""
    account = account_of([asked(said="redis_unavailable")], [], [])

    assert (broken(account), account.accepted) == ({}, 0)


def a_batch(results):
    batch = Batch("", None, "b", 2, batch_id="batch_1", status="completed")  # type: ignore[arg-type]
    batch.results = results
    return batch


def result(number, question):
    return {
        "id": f"r{number}",
        "custom_id": question,
        "response": {"status_code": 200, "body": {"content": f"echo: {question}"}},
        "error": None,
        "chatd": {
            "line": number,
            "job_id": f"job_{number}",
            "attempts": [{"outcome": "succeeded"}],
        },
    }


LINES = [
    pytest.param([result(1, "b/1"), result(2, "b/2")], {}, id="each-once"),
    pytest.param([result(1, "b/1")], {"lost": 1}, id="one-missing"),
    pytest.param([result(1, "b/1"), result(1, "b/1"), result(2, "b/2")], {"lines": 1}, id="twice"),
    pytest.param([result(1, "b/2"), result(2, "b/1")], {"lines": 2}, id="exchanged"),
]


@pytest.mark.parametrize(("results", "expected"), LINES)
def test_each_line_of_a_batch_has_one_result(results, expected):
    ledger = Ledger()
    ledger.add_results(results)
    questions = [line["custom_id"] for line in results]
    account = accounted([], [a_batch(results)], ledger, calls(*dict.fromkeys(questions)))

    assert broken(account) == expected


def test_recovery_is_the_first_answer_and_the_first_second_that_keeps_up():
    """Ten requests a second; from 1 s to 3 s nothing is answered, then one of two for a second.

    The second from 3.8 s on has nine answers to its ten requests.
    """
    recovery = Recovery()
    for number in range(60):
        at = number / 10
        for waits in (True, False):
            recovery.offered(waits, at)
            if at < 1 or at >= 4 or (at >= 3 and number % 2 == 0):
                recovery.answered(waits, at + 0.01)

    assert recovery.first(1.0) == pytest.approx(2.01)
    assert recovery.full(1.0, 6.0) == pytest.approx(2.8, abs=0.11)
    assert recovery.full(1.0, 4.5) is None
    assert recovery.longest_gap(0.0, 5.9) == pytest.approx(2.1, abs=0.01)


def test_a_file_is_cut_back_to_where_it_ended(tmp_path, monkeypatch):
    """As the power would have left it: a second of writes is gone, what was there before stays."""
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    path = folder / "appendonly.aof.1.incr.aof"
    path.write_bytes(b"x" * 300)
    os.utime(path, ns=(1, 1))
    file = AppendOnlyFile(tmp_path)
    file.sizes.extend([(10.0, path, 100), (10.5, path, 200), (11.0, path, 300)])
    monkeypatch.setattr("bench.chaos.disk.time.monotonic", lambda: 11.6)

    assert file.cut_back(1.0) == 100
    assert path.read_bytes() == b"x" * 200
