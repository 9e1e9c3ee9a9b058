"""What a worker remembers of its calls, and tells a Redis that has been restarted."""

from __future__ import annotations

from dataclasses import replace

import fakeredis
import pytest

from chat.config import ChatdConfig
from chat.store import JobStore
from chat.types import Delta, DeltaKind
from tests.store_base import StoreBase, a_job, balance, new_life
from tests.waiting import eventually
from workers.calls import Calls

WORKER = "ollama-1@here"
BOOKS = StoreBase()


@pytest.fixture
def client():
    client = fakeredis.FakeRedis(decode_responses=True)
    yield client
    balance(client)


@pytest.fixture
def store(client):
    store = JobStore(client, ChatdConfig())
    store.register_settings(["ollama"])
    return store


@pytest.fixture
def calls(store):
    calls = Calls(store, WORKER, "ollama")
    calls.beat()
    return calls


def started(store, **changes):
    job = a_job(**changes)
    store.admit(job)
    return BOOKS.start(store, job.id, job.id)


def restart(client, *forgotten):
    """Redis is started anew, without these jobs."""
    for grant in forgotten:
        for key in ("deadlines", "leases:ollama", "terminal", "jobs"):
            for member in client.zrange(key, 0, -1):
                if member.startswith(grant.job_id):
                    client.zrem(key, member)
        client.hdel("calls:ollama", f"{grant.job_id} {grant.token}")
        state = client.hget(f"job:{grant.job_id}", "state")
        lane = {"bytes": -int(client.hget(f"job:{grant.job_id}", "bytes"))}
        if state == "calling":
            client.delete("in_use:ollama")
        for field, amount in ({state: -1, "accepted": -1} | lane).items():
            client.hincrby("acct", field, amount)
        client.hincrby("lane:chat.ollama", "bytes", lane["bytes"])
        client.delete(*(f"{of}{grant.job_id}" for of in ("job:", "request:", "celery-task-meta-")))
    new_life(client)


def test_a_call_in_flight_is_entered_again(store, client, calls):
    """Before the heartbeat, with which other starts may begin."""
    grant = started(store)
    with calls.open(grant, 60):
        restart(client, grant)
        gone = store.states([grant.job_id])
        calls.beat()

        assert (gone, store.states([grant.job_id])) == ([None], ["calling"])
        assert client.zcard("leases:ollama") == 1
        seen, restarted = client.zscore("workers:ollama", WORKER), client.get("chatd:life")
        assert seen >= float(restarted)
    BOOKS.finish(store, grant)


def test_a_call_whose_answer_has_begun_is_entered_as_such(store, client, calls):
    """Nobody is given another beginning, should its worker die now; and its pieces go on."""
    request = replace(a_job().request, stream=True)
    begun, silent = (started(store, request=request) for _ in range(2))
    with calls.open(begun, 60) as call, calls.open(silent, 60):
        call.pieces(Delta(DeltaKind.CONTENT, "a"))
        eventually(lambda: store.events(begun.job_id), what="the first piece is there")
        restart(client, begun, silent)
        calls.beat()
        entered = [client.hget(f"job:{one.job_id}", "delivered") for one in (begun, silent)]
        call.pieces(Delta(DeltaKind.CONTENT, "b"))
        call.pieces.close()

    assert entered == ["1", None]
    assert [text for _, delta in store.events(begun.job_id) for text in delta.text] == ["a", "b"]
    calls.close()
    for grant in (begun, silent):
        store.finish(BOOKS.ending(grant))


def test_a_call_that_has_just_ended_is_told_again(store, client, calls):
    """Redis confirmed its end, and lost it."""
    grant = started(store)
    store.finish(BOOKS.ending(grant))
    calls.remember(BOOKS.ending(grant))
    restart(client, grant)
    calls.beat()

    record = store.record(grant.job_id)
    assert (record.state, record.attempts[0].billed) == ("succeeded", "yes")
    assert store.counters()["recreated"] == 1


def test_without_a_restart_nothing_is_told_again(store, calls, monkeypatch):
    """Each heartbeat would cost as much as all calls of the last seconds."""
    told: list[object] = []
    monkeypatch.setattr(store, "finish", told.append)
    monkeypatch.setattr(store, "reassert", told.append)
    grant = started(store)
    calls.remember(BOOKS.ending(grant))
    with calls.open(grant, 60):
        calls.beat()
        calls.beat()

    assert told == []


def test_what_was_not_told_is_told_at_the_next_heartbeat(store, client, calls, monkeypatch):
    """Redis went away again in the middle."""
    grant = started(store)
    calls.remember(BOOKS.ending(grant))
    new_life(client)
    finish = store.finish

    def fail(_):
        monkeypatch.setattr(store, "finish", finish)
        raise ConnectionError

    monkeypatch.setattr(store, "finish", fail)
    with pytest.raises(ConnectionError):
        calls.beat()
    calls.beat()

    assert store.states([grant.job_id]) == ["succeeded"]


def test_ends_are_remembered_for_seconds_and_not_for_ever(store, client, calls, monkeypatch):
    """What was confirmed before the last heartbeat but one has long been on Redis' disk."""
    now = [1000.0]
    monkeypatch.setattr("workers.calls.time.monotonic", lambda: now[0])
    old, young = started(store), started(store)
    calls.remember(BOOKS.ending(old))
    now[0] += 4
    calls.remember(BOOKS.ending(young))
    now[0] += 2
    calls.beat()
    new_life(client)
    calls.beat()

    assert store.states([old.job_id, young.job_id]) == ["calling", "succeeded"]
    store.finish(BOOKS.ending(old))


def test_remembered_answers_have_a_bound(store, client, calls, monkeypatch):
    """The oldest go first."""
    monkeypatch.setattr("chat.memory._MOST", 1500)
    grants = [started(store) for _ in range(3)]
    for grant in grants:
        calls.remember(BOOKS.ending(grant, payload={"content": "x" * 700}))
    new_life(client)
    calls.beat()

    assert store.states([grant.job_id for grant in grants]) == ["calling", "succeeded", "succeeded"]
    store.finish(BOOKS.ending(grants[0]))
