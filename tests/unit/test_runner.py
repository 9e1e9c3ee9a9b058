"""A worker thread's way through one job, on a fake server and a provider that does as told."""

from __future__ import annotations

import json
import threading

import fakeredis
import pytest

from chat.config import ChatdConfig
from chat.errors import (
    JobCancelled,
    QueueUnavailable,
    UpstreamAuth,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from chat.jobs import queue_name
from chat.store import JobStore
from chat.types import Billed, ChatResponse, FinishReason, Lane
from tests.runner import Bench
from tests.store_suite import a_job, balance
from tests.waiting import eventually
from workers.calls import Calls


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    balance(bench.client)


def test_an_answer_becomes_the_record(bench):
    """With what the registry and the grant know filled in."""
    record = bench.run_one()

    assert record.state == "succeeded"
    assert record.response["content"] == "Paris"
    assert record.response["provider"] == "ollama"
    assert record.response["upstream_model"] == "qwen3:8b"
    assert record.response["attempt_count"] == 1
    assert record.response["queue_ms"] >= 0


def test_an_error_becomes_the_record(bench):
    """Code, status and bill go to the ledger."""

    def refuse(**_):
        message = "the key was refused"
        raise UpstreamAuth(message, upstream_status=401)

    bench.provider.act = refuse
    record = bench.run_one()

    assert (record.state, record.error["code"], record.error["upstream_status"]) == (
        "failed",
        "upstream_auth",
        401,
    )
    assert record.error["provider"] == "ollama"
    assert (record.attempts[0].outcome, record.attempts[0].billed) == ("upstream_auth", "no")


def test_an_error_tells_of_an_earlier_call_that_may_have_been_billed(bench):
    """The first breaks off, the second is refused for free: the ledger has both, the error more."""
    errors = iter([UpstreamUnavailable("cut"), UpstreamAuth("no key", upstream_status=401)])

    def fail(**_):
        raise next(errors)

    bench.provider.act = fail
    job = a_job(lane=Lane.BATCH)
    bench.store.admit(job)
    bench.runner.run(job.id)
    bench.client.zadd("due", {job.id: 1})
    bench.store.release(sweep=False)
    bench.runner.run(job.id)
    record = bench.store.record(job.id)

    assert (record.error["code"], record.error["billed"]) == ("upstream_auth", "maybe")
    assert [attempt.billed for attempt in record.attempts] == [Billed.MAYBE, Billed.NO]


def test_a_bug_in_a_provider_ends_the_job_too(bench, caplog):
    """The caller sees no internals; the log has the traceback."""

    def fail(**_):
        message = "secret detail"
        raise ZeroDivisionError(message)

    bench.provider.act = fail
    record = bench.run_one()

    assert record.error["code"] == "internal_error"
    assert "secret detail" not in json.dumps(record.error)
    assert "ZeroDivisionError" in caplog.text
    assert record.attempts[0].billed == "maybe"


@pytest.mark.parametrize(
    ("timeout_ms", "code"),
    [
        pytest.param(60_000, "deadline_exceeded", id="the-jobs-own"),
        pytest.param(600_000, "upstream_timeout", id="the-calls-limit"),
    ],
)
def test_whose_deadline_it_was(bench, timeout_ms, code):
    """The nearer one names the error."""
    limits = []

    def time_out(deadline, **_):
        limits.append(deadline.remaining())
        message = "too slow"
        raise UpstreamTimeout(message)

    bench.provider.act = time_out
    record = bench.run_one(timeout_ms=timeout_ms)

    assert record.error["code"] == code
    assert record.attempts[0].billed == "maybe"
    assert limits[0] <= min(timeout_ms / 1000, 180)


def test_a_cancelled_call_is_a_cancelled_job(bench):
    """The heartbeat brings the order to the provider's switch, and its end to the record."""

    def wait(cancelled, **_):
        job_id, _token = next(iter(bench.calls._calls))
        bench.store.cancel(job_id)
        bench.calls.beat()
        assert cancelled.is_set()
        message = "cancelled"
        raise JobCancelled(message, billed=Billed.MAYBE)

    bench.provider.act = wait
    record = bench.run_one()

    assert (record.state, record.attempts[0].billed) == ("cancelled", "maybe")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_lost_reply_of_start_or_finish_costs_nothing(bench, after):
    """One call, one attempt, whether Redis did it before the connection broke or not."""
    before = len(bench.provider.requests)
    job = a_job()
    bench.store.admit(job)
    bench.client.failures, bench.client.after = 1, after
    answer = bench.provider.act

    def answer_and_break(**kwargs):
        bench.client.failures = 1
        return answer(**kwargs)

    bench.provider.act = answer_and_break
    bench.runner.run(job.id)

    record = bench.store.record(job.id)
    assert (record.state, len(record.attempts)) == ("succeeded", 1)
    assert len(bench.provider.requests) == before + 1


@pytest.mark.parametrize("lane", Lane)
def test_a_stopping_worker_gives_the_wake_up_back(bench, lane):
    """It calls nobody; the job stays queued, at its place before younger ones."""
    queue = queue_name("ollama", lane)
    bench.store.register_envelopes({queue: "@JOB@"})
    jobs = [a_job(lane=lane) for _ in range(3)]
    for job in jobs:
        bench.store.admit(job)
    for _ in range(2):
        bench.client.rpop(queue)
    asked = len(bench.provider.requests)
    bench.stopping.set()
    done = [bench.runner.run(job.id) for job in jobs[1::-1]]

    assert (done, len(bench.provider.requests)) == ([True, True], asked)
    assert bench.client.lrange(queue, 0, -1) == [job.id for job in reversed(jobs)]
    assert bench.store.states([job.id for job in jobs]) == ["queued"] * 3


def test_a_wake_up_that_redis_does_not_take_stays_in_hand(bench):
    """Celery gives it back when it can."""
    job = a_job()
    bench.store.admit(job)
    bench.stopping.set()
    bench.client.failures = 1

    assert bench.runner.run(job.id) is False
    assert bench.store.record(job.id).state == "queued"


class LostReply:
    """``JobStore.start`` whose first answers are lost, while the worker is told to stop."""

    def __init__(self, bench, monkeypatch, *, losses, reached):
        self.bench = bench
        self.losses = losses
        self.reached = reached
        self.tokens = []
        self.start = bench.store.start
        monkeypatch.setattr(bench.store, "start", self)

    def __call__(self, job_id, *, token, **options):
        self.tokens.append(token)
        self.losses -= 1
        if self.losses < 0:
            return self.start(job_id, token=token, **options)
        if self.reached:
            self.start(job_id, token=token, **options)
        self.bench.stopping.set()
        message = "gone"
        raise QueueUnavailable(message)


@pytest.fixture
def hurried(monkeypatch):
    """Nobody sleeps between two tries."""
    monkeypatch.setattr("workers.runner.time.sleep", lambda _: None)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("losses", [1, 3])
def test_a_stopping_worker_asks_whether_its_last_start_was_granted(bench, monkeypatch, losses):
    """It was: the call is made and answered, or the job would be given up as lost in it."""
    before = len(bench.provider.requests)
    lost = LostReply(bench, monkeypatch, losses=losses, reached=True)
    job = a_job()
    bench.store.admit(job)
    done = bench.runner.run(job.id)
    record = bench.store.record(job.id)

    assert (done, record.state, len(record.attempts)) == (True, "succeeded", 1)
    assert len(bench.provider.requests) == before + 1
    assert (len(lost.tokens), len(set(lost.tokens))) == (losses + 1, 1)


@pytest.mark.usefixtures("hurried")
def test_a_stopping_worker_that_never_learns_it_gives_the_wake_up_back(bench, monkeypatch):
    """After ten seconds; here at once."""
    monkeypatch.setattr("workers.runner._DOUBT_S", 0.0)
    lost = LostReply(bench, monkeypatch, losses=100, reached=False)
    job = a_job()
    bench.store.admit(job)

    assert bench.runner.run(job.id) is False
    assert len(lost.tokens) == 1
    assert bench.store.record(job.id).state == "queued"


@pytest.mark.usefixtures("hurried")
def test_a_stopping_worker_does_not_wait_for_a_permit(bench, monkeypatch):
    """Its last start was no grant, as it turns out: another worker is to have the job."""
    settings = json.loads(bench.client.hget("settings:ollama", "provider"))
    bench.client.hset("settings:ollama", "provider", json.dumps({**settings, "permits": 0}))
    LostReply(bench, monkeypatch, losses=1, reached=True)
    job = a_job()
    bench.store.admit(job)

    assert bench.runner.run(job.id) is True
    assert bench.store.record(job.id).state == "queued"


def test_nothing_to_do_is_done(bench):
    """A second wake-up of a finished job is dropped."""
    record = bench.run_one()
    count = len(bench.provider.requests)

    assert bench.runner.run(record.id) is True
    assert len(bench.provider.requests) == count


def test_a_heartbeat_renews_the_calls_until_past_their_deadline(bench):
    """Ten seconds after it the lease is left to run out, whatever the thread does."""
    scores = []

    def look(**_):
        member = bench.client.zrange("leases:ollama", 0, -1)[0]
        for until in (1e9, -1e9):
            bench.client.zadd("leases:ollama", {member: 1})
            (call,) = bench.calls._calls.values()
            call.renew_until = until
            bench.calls.beat()
            scores.append(bench.client.zscore("leases:ollama", member))
        return ChatResponse("Paris", FinishReason.STOP)

    bench.provider.act = look
    bench.run_one()

    assert scores[0] > scores[1] == 1


def test_a_heartbeat_hands_in_what_redis_could_not_take(tmp_path):
    """After an outage the answer arrives before anybody gives its call up."""
    store = JobStore(fakeredis.FakeRedis(decode_responses=True), ChatdConfig())
    handed_in = []
    calls = Calls(store, "ollama-1@here", "ollama", after_beat=lambda: handed_in.append(tmp_path))
    calls.beat()

    assert handed_in == [tmp_path]
    assert store.workers(["ollama"])["ollama"] is not None


def test_a_stopping_worker_keeps_its_answers_at_once(bench):
    """Its supervisor will not wait until a batch job's deadline."""
    answer = bench.provider.act

    def answer_and_break(**kwargs):
        bench.stopping.set()
        bench.client.failures = 1
        return answer(**kwargs)

    bench.provider.act = answer_and_break
    record = bench.run_one(timeout_ms=86_400_000)

    assert record.state == "calling"
    assert bench.orphans.hand_in(bench.store, "ollama") == 1
    assert bench.store.record(record.id).state == "succeeded"


def test_an_answer_redis_does_not_take_is_kept_on_disk(bench, monkeypatch):
    """And handed in as soon as Redis is back, where it ends the job."""
    monkeypatch.setattr("workers.runner._FINISH_GRACE_S", -1000.0)
    answer = bench.provider.act

    def answer_and_break(**kwargs):
        bench.client.failures = 1
        return answer(**kwargs)

    bench.provider.act = answer_and_break
    record = bench.run_one()
    still = record.state
    other_provider = bench.orphans.hand_in(bench.store, "kimi")
    taken = bench.orphans.hand_in(bench.store, "ollama")

    assert (still, other_provider, taken) == ("calling", 0, 1)
    assert bench.store.record(record.id).response["content"] == "Paris"
    assert bench.orphans.hand_in(bench.store, "ollama") == 0


@pytest.mark.parametrize("lane", Lane)
def test_a_job_of_a_drained_provider_is_left_to_its_queue(bench, lane):
    """Its wake-up is done with here and lies in the list again; the gate hears to shut."""
    queue = queue_name("ollama", lane)
    bench.store.register_envelopes({queue: "@JOB@"})
    job = a_job(lane=lane)
    bench.store.admit(job)
    bench.client.rpop(queue)
    bench.store.drain("ollama")
    asked = len(bench.provider.requests)
    rooms: list[int | None] = []
    done = bench.runner.run(job.id, rooms.append)

    assert (done, rooms, len(bench.provider.requests)) == (True, [-1], asked)
    assert bench.client.lrange(queue, 0, -1) == [job.id]
    assert bench.store.record(job.id).attempts == ()


def test_a_job_that_waits_for_a_permit_goes_back_when_its_provider_is_drained(bench):
    """No thread is held until the end of it."""
    bench.store.register_envelopes({"chat.ollama": "@JOB@"})
    settings = json.loads(bench.client.hget("settings:ollama", "provider"))
    bench.client.hset("settings:ollama", "provider", json.dumps({**settings, "permits": 0}))
    job = a_job()
    bench.store.admit(job)
    bench.client.rpop("chat.ollama")
    rooms: list[int | None] = []
    runner = threading.Thread(target=lambda: bench.runner.run(job.id, rooms.append))
    runner.start()
    eventually(lambda: rooms, what="it has been told to wait")
    bench.store.drain("ollama")
    runner.join(10)

    assert not runner.is_alive()
    assert bench.client.lrange("chat.ollama", 0, -1) == [job.id]
