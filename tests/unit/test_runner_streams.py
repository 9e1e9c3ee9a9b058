"""A worker thread's way through a job whose answer comes piece by piece."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from chat.errors import JobCancelled, UpstreamAuth, UpstreamTimeout, UpstreamUnavailable
from chat.jobs import Piece
from chat.types import JSON, Billed, ChatResponse, Delta, DeltaKind, FinishReason, Lane
from tests.runner import Bench
from tests.store_suite import a_job, balance
from tests.waiting import eventually

PARTIAL: JSON = {"content": "Par", "reasoning": None, "tool_calls": [], "output_tokens": 2}


class StreamBench(Bench):
    """The last job that was run is ``job``."""

    def run_one(self, **changes):
        asked = replace(a_job().request, stream=True)
        self.job = a_job(**{"request": asked, **changes})
        self.store.admit(self.job)
        self.runner.run(self.job.id)
        return self.store.record(self.job.id)

    def texts(self):
        """The pieces of the job's answer that Redis has."""
        return [delta.text for _, delta in self.store.events(self.job.id)]

    def at_the_end(self, monkeypatch, look):
        """What ``look`` finds each time when the end of a call is told."""
        found = []
        finish = self.store.finish

        def told(ending):
            found.append(look(ending))
            return finish(ending)

        monkeypatch.setattr(self.store, "finish", told)
        return found

    def begin(self, deltas, text="Par"):
        """Send a piece, and wait until Redis has it."""
        deltas(Delta(DeltaKind.CONTENT, text))
        eventually(self.texts, what="the piece is there")


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr("workers.outbox._PAUSE_S", 0.001)
    bench = StreamBench(tmp_path)
    # The script is known from here on.
    bench.store.deliver([Piece("none", "t", 1, 1, Delta(DeltaKind.CONTENT, ""))])
    yield bench
    bench.calls.close()
    balance(bench.client)


def cut(**fields):
    """A connection that breaks off in the middle of an answer."""
    return UpstreamUnavailable("cut off", billed=Billed.MAYBE, **fields)


def test_pieces_come_in_their_order_and_before_the_end(bench, monkeypatch):
    """All of them, whether they travelled alone or were joined."""

    def answer(deltas, **_):
        for text in ("Pa", "r", "is"):
            deltas(Delta(DeltaKind.CONTENT, text))
        return ChatResponse("Paris", FinishReason.STOP)

    bench.provider.act = answer
    told = bench.at_the_end(monkeypatch, lambda _: "".join(bench.texts()))
    record = bench.run_one()

    assert (told, record.response["content"]) == (["Paris"], "Paris")
    assert bench.store.events(bench.job.id)[0][0] == "1-1"


def test_an_answer_that_nobody_reads_meanwhile_comes_whole(bench):
    """Its upstream is asked for one piece, and no sender is there for it."""
    asked = []

    def answer(deltas, **_):
        asked.append(deltas)
        return ChatResponse("Paris", FinishReason.STOP)

    bench.provider.act = answer
    bench.run_one(request=a_job().request)

    assert asked == [None]
    assert bench.texts() == []


@pytest.mark.parametrize("begun", [False, True], ids=["before", "behind"])
def test_an_error_is_tried_again_only_before_the_first_piece(bench, monkeypatch, begun):
    """Behind it the job ends with the error and what had come, which counts."""

    def fail(deltas, **_):
        if begun:
            bench.begin(deltas)
        raise cut(partial=PARTIAL if begun else None)

    bench.provider.act = fail
    asked = bench.at_the_end(monkeypatch, lambda ending: ending.again_why)
    record = bench.run_one(lane=Lane.BATCH)
    totals = bench.store.overview(["ollama"])["providers"][0]["totals"]

    assert asked == ["" if begun else "retry"]
    assert record.state == ("failed" if begun else "waiting")
    assert (record.error or {}).get("partial") == (PARTIAL if begun else None)
    assert totals["output_tokens"] - 1 == (2 if begun else 0)
    assert len(record.attempts) == 1


def test_a_refusal_before_the_first_piece_waits_for_its_budget(bench):
    """An answer that was asked for in pieces has attempts as any other."""
    errors = iter([cut(), UpstreamAuth("no key", upstream_status=401)])

    def fail(**_):
        raise next(errors)

    bench.provider.act = fail
    job_id = bench.run_one(lane=Lane.BATCH).id
    bench.client.zadd("due", {job_id: 1})
    bench.store.release(sweep=False)
    bench.runner.run(job_id)

    assert [a.outcome for a in bench.store.record(job_id).attempts] == [
        "upstream_unavailable",
        "upstream_auth",
    ]


def test_a_deadline_in_mid_stream_keeps_what_had_come(bench):
    """The job's own error is made of the call's."""

    def time_out(deltas, **_):
        bench.begin(deltas)
        raise UpstreamTimeout("too slow", partial=PARTIAL)

    bench.provider.act = time_out
    record = bench.run_one()

    assert (record.error["code"], record.error["partial"]) == ("deadline_exceeded", PARTIAL)


def test_a_call_that_is_cancelled_in_mid_stream(bench):
    """Its record has what had come."""

    def wait(deltas, cancelled, **_):
        bench.begin(deltas)
        bench.store.cancel(bench.job.id)
        bench.calls.beat()
        assert cancelled.is_set()
        raise JobCancelled("cancelled", billed=Billed.MAYBE, partial=PARTIAL)

    bench.provider.act = wait
    record = bench.run_one()

    assert (record.state, record.error["partial"]) == ("cancelled", PARTIAL)


def test_a_call_that_was_given_up_is_stopped_by_its_next_piece(bench):
    """Nobody would read the rest; its job has ended with what had come."""

    def go_on(deltas, cancelled, **_):
        bench.begin(deltas)
        (call,) = bench.store.calls("ollama")
        bench.store.reclaim("ollama", call)
        deltas(Delta(DeltaKind.CONTENT, "is"))
        eventually(cancelled.is_set, what="the call is stopped")
        raise JobCancelled("superseded", billed=Billed.MAYBE)

    bench.provider.act = go_on
    record = bench.run_one(lane=Lane.BATCH)

    assert (record.state, record.error["code"]) == ("failed", "outcome_unknown")
    assert record.error["partial"] == {**PARTIAL, "output_tokens": 1}
    assert [a.outcome for a in record.attempts] == ["late"]


def test_redis_away_in_mid_stream_costs_nothing(bench):
    """Pieces gather, and those that come twice are one."""

    def answer(deltas, **_):
        bench.begin(deltas)
        bench.client.failures, bench.client.after = 2, True
        for text in ("i", "s", "!"):
            deltas(Delta(DeltaKind.CONTENT, text))
        return ChatResponse("Paris!", FinishReason.STOP)

    bench.provider.act = answer
    record = bench.run_one()

    assert record.response["content"] == "".join(bench.texts()) == "Paris!"


def test_a_stopping_worker_keeps_what_had_come_on_disk(bench):
    """As it keeps answers; the job ends with it when Redis is back."""

    def break_off(deltas, **_):
        bench.begin(deltas)
        bench.stopping.set()
        bench.client.failures = 1
        raise cut(partial=PARTIAL)

    bench.provider.act = break_off
    record = bench.run_one(lane=Lane.BATCH)

    assert record.state == "calling"
    assert bench.orphans.hand_in(bench.store, "ollama") == 1
    assert bench.store.record(bench.job.id).error["partial"] == PARTIAL


def test_a_fault_of_ours_in_mid_stream_ends_the_job(bench):
    """What had come stays where it was."""

    def fail(deltas, **_):
        bench.begin(deltas)
        raise ZeroDivisionError

    bench.provider.act = fail
    record = bench.run_one(lane=Lane.BATCH)

    assert (record.state, record.error["code"]) == ("failed", "internal_error")
    assert bench.texts() == ["Par"]
    assert "Par" not in json.dumps(record.error)
