"""Streams whose client or front end goes: what is cancelled, counted, logged and left behind."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from api.contract import ErrorAnswer, Record
from api.streaming import Stream
from chat import errors
from chat.access import hash_of
from chat.errors import QueueUnavailable
from chat.jobs import JobState
from chat.settings import ChatdConfig, KeyConfig
from tests.events import read, say, text_of
from tests.fakes import Gateway, gateway, response_of
from tests.log_lines import logging_into_memory
from tests.streams import (
    BODY,
    CHAT,
    COMPLETIONS,
    ask,
    calls,
    ends,
    events_of,
    fails,
    nothing_is_left,
    script,
    tells,
)

SLOW = {"Authorization": "Bearer chatd-slow"}


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    made = gateway(ChatdConfig(drain_s=60))
    monkeypatch.setattr("api.streams.time.time_ns", made.clock.time_ns)
    return made


class Client:
    """One whose connection can be closed in the middle."""

    def __init__(self, gate: Gateway) -> None:
        self.gate = gate
        self.ours, self._theirs = socket.socketpair()

    def hang_up(self, _: str = "") -> None:
        """Two looks at the closed connection, as the monitor's thread would have them."""
        self._theirs.close()
        for _look in range(2):
            self.gate.front.connections().hangups.sweep()

    def ask(self, path: str = CHAT, *, key: str | None = None) -> Any:
        return self.gate.client.post(
            path,
            json=BODY,
            headers={} if key is None else {"Idempotency-Key": key},
            environ_overrides={"gunicorn.socket": self.ours},
        )

    def close(self) -> None:
        self.ours.close()
        self._theirs.close()


@pytest.fixture
def client(gate: Gateway) -> Iterator[Client]:
    made = Client(gate)
    yield made
    made.close()


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_who_hangs_up_in_mid_stream_cancels_the_job(
    gate: Gateway, client: Client, path: str
) -> None:
    """At once; what comes afterwards is written for nobody."""
    script(gate, tells(gate, say("he")), client.hang_up, tells(gate, say("llo")))
    told = events_of(client.ask(path))

    assert [one.id for one in told] == ["1-1"]
    assert (gate.store.newest().state, gate.clock.now) == (JobState.CANCELLED, 1000)
    assert nothing_is_left(gate)


def test_who_hangs_up_before_the_first_event_cancels_it_too(gate: Gateway, client: Client) -> None:
    """As without a stream."""
    script(gate, client.hang_up)
    response = client.ask()

    assert (response.status_code, response.json["error"]["code"]) == (409, "job_cancelled")
    assert gate.store.newest().state is JobState.CANCELLED
    assert nothing_is_left(gate)


def test_who_hangs_up_with_a_key_means_to_come_back(gate: Gateway, client: Client) -> None:
    """The job goes on, and nobody writes any more."""
    script(gate, tells(gate, say("he")), client.hang_up, tells(gate, say("llo")))
    told = events_of(client.ask(key="k"))

    assert [one.id for one in told] == ["1-1"]
    assert gate.store.newest().state is JobState.QUEUED
    assert "cancel" not in gate.store.asked
    assert nothing_is_left(gate)


def test_who_hangs_up_with_a_key_before_the_first_event(gate: Gateway, client: Client) -> None:
    """Whatever is answered, nobody reads it."""
    script(gate, client.hang_up)
    response = client.ask(key="k")
    data = response.data
    response.close()

    assert (data, gate.store.newest().state) == (b"", JobState.QUEUED)
    assert nothing_is_left(gate)


@pytest.mark.parametrize(
    ("headers", "state"),
    [({}, JobState.CANCELLED), ({"Idempotency-Key": "k"}, JobState.QUEUED)],
    ids=["plain", "with a key"],
)
def test_a_write_that_fails_is_a_hang_up(
    gate: Gateway, headers: dict[str, str], state: JobState
) -> None:
    """The server then closes the body, wherever that is."""
    script(gate, tells(gate, say("he")))
    response = gate.client.post(CHAT, json=BODY, headers=headers)
    response.close()
    response.close()

    assert gate.store.newest().state is state
    assert nothing_is_left(gate)


def test_a_cancellation_that_fails_is_logged(
    gate: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """And nothing else is left undone."""
    script(gate, tells(gate, say("he")))
    response = gate.client.post(CHAT, json=BODY)
    gate.store.trouble = QueueUnavailable("away")
    response.close()

    assert "cannot be cancelled: away" in caplog.text
    assert nothing_is_left(gate)


def test_a_failure_of_ours_leaves_nothing_behind(
    gate: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the view nor later."""

    def broken(_: Stream) -> None:
        raise ZeroDivisionError

    script(gate, tells(gate, say("he")))
    response = gate.client.post(CHAT, json=BODY)
    monkeypatch.setattr(Stream, "_take_pieces", broken)
    with pytest.raises(ZeroDivisionError):
        _ = response.data
    response.close()
    assert nothing_is_left(gate)
    assert gate.client.post(CHAT, json=BODY).status_code == 500
    assert nothing_is_left(gate)


class TestStop:
    """A front end that is told to stop."""

    def test_a_stream_goes_on_for_drain_s(self, gate: Gateway) -> None:
        """Then it says how to go on; the job does, and is to be had behind what was told."""

        def stop(_: str) -> None:
            gate.front.stopping.begin()

        script(gate, tells(gate, say("he")), stop, tells(gate, say("ll")))
        told = events_of(ask(gate))
        job_id = gate.store.newest().new.id
        last = ErrorAnswer.model_validate_json(told[-1].data).error

        assert (gate.clock.now, text_of(told)) == (1060, "hell")
        assert (told[-1].event, told[-1].id, last.code) == ("error", None, "draining")
        assert f"GET /v1/jobs/{job_id}/events" in last.message
        assert (last.job_id, last.retry_after_s) == (job_id, 1)
        assert gate.store.newest().state is JobState.QUEUED
        assert nothing_is_left(gate)

    def test_before_the_first_event_the_job_is_handed_over(self) -> None:
        """As without a stream."""
        gate = gateway(ChatdConfig(drain_s=0))
        gate.front.stopping.begin()
        ours, theirs = ask(gate), ask(gate, COMPLETIONS)

        assert (ours.status_code, ours.headers["Retry-After"]) == (202, "1")
        assert Record.model_validate_json(ours.data).state is JobState.QUEUED
        assert (theirs.status_code, theirs.json["error"]["code"]) == (503, "draining")
        assert nothing_is_left(gate)

    def test_who_follows_by_the_id_does_not_hold_it_up(self, gate: Gateway) -> None:
        """The next front end knows the job as well."""
        job_id = gate.client.post("/v1/jobs", json=BODY).json["id"]  # type: ignore[index]
        script(gate, tells(gate, say("he")), lambda _: gate.front.stopping.begin())
        told = events_of(gate.client.get(f"/v1/jobs/{job_id}/events"))

        assert (gate.clock.now, told[-1].json["error"]["code"]) == (1000, "draining")

    def test_a_stream_that_is_cut_off_then_cancels_nothing(self, gate: Gateway) -> None:
        """Its client has not gone."""
        script(gate, tells(gate, say("he")))
        response = gate.client.post(CHAT, json=BODY)
        gate.front.stopping.begin()
        gate.clock.advance(65)
        response.close()

        assert gate.store.newest().state is JobState.QUEUED


class TestDeadline:
    """A job that is not over by then."""

    def test_in_no_call_it_expires(self, gate: Gateway) -> None:
        """The stream has begun, so that it is an event."""
        told = events_of(ask(gate))

        assert told[-1].json["error"]["code"] == "deadline_exceeded"
        assert (told[-1].id, gate.clock.now) == ("end-0", 1061)
        assert gate.store.newest().state is JobState.EXPIRED

    def test_in_a_call_it_is_told_where_to_look(self, gate: Gateway) -> None:
        """Its worker ends it."""
        script(gate, calls(gate))
        told = events_of(ask(gate))
        job_id = gate.store.newest().new.id

        assert told[-1].json["error"]["code"] == "deadline_exceeded"
        assert f"GET /v1/jobs/{job_id}" in told[-1].json["error"]["message"]
        assert told[-1].id is None


def test_a_job_that_redis_forgot_is_admitted_again(gate: Gateway) -> None:
    """For the time that is left; what comes of it is told on."""

    def forget(job_id: str) -> None:
        gate.store.jobs.pop(job_id)
        gate.clock.advance(10)
        again = gate.replies.expected[0].again
        assert again is not None
        again()

    script(gate, forget, tells(gate, say("he")), ends(gate))
    told = events_of(ask(gate))

    assert (text_of(told), told[-1].event) == ("hello", "answer")
    assert gate.store.newest().new.timeout_ms == 50_000
    assert gate.store.newest().new.request.stream


def test_a_key_that_came_again_meanwhile_ends_the_stream(gate: Gateway) -> None:
    """What was told is of another job."""

    def forget(job_id: str) -> None:
        gate.store.jobs.pop(job_id)
        gate.store.keys.clear()
        ask(gate, key="k", prefer="respond-async")
        again = gate.replies.expected[0].again
        assert again is not None
        again()

    script(gate, tells(gate, say("he")), forget)
    told = events_of(ask(gate, key="k"))

    assert told[-1].json["error"]["code"] == "result_expired"
    assert gate.store.newest().new.id in told[-1].json["error"]["message"]
    assert nothing_is_left(gate)


class TestLimits:
    """A key that may have one call open."""

    @pytest.fixture
    def gate(self) -> Gateway:
        key = KeyConfig(name="slow", sha256=hash_of("chatd-slow"), concurrency=1)
        return gateway(ChatdConfig(keys=(key,)))

    def test_a_stream_counts_until_its_end(self, gate: Gateway) -> None:
        """And not until its head has left."""
        script(gate, tells(gate, say("he")), ends(gate))
        response = gate.client.post(CHAT, json=BODY, headers=SLOW)
        assert len(gate.store.open) == 1
        assert gate.client.get("/v1/jobs", headers=SLOW).status_code == 429
        assert text_of(read(response.data)) == "hello"
        response.close()
        assert gate.store.open == []
        assert gate.client.get("/v1/jobs", headers=SLOW).status_code == 200

    def test_a_stream_that_never_began_counts_no_longer(self, gate: Gateway) -> None:
        """Its error has been answered."""
        script(gate, fails(gate, errors.UpstreamTimeout("slow")))
        response = gate.client.post(CHAT, json=BODY, headers=SLOW)

        assert (response.status_code, gate.store.open) == (504, [])


def test_the_log_tells_how_a_stream_ended() -> None:
    """In a line of its own: the first one was written with the head. No text is in either."""
    with logging_into_memory() as written:
        gate = gateway()
        written.configure("json", "info")
        usual = {"time", "process", "level"}

        def later(job_id: str) -> None:
            gate.clock.advance(2)
            ends(gate, "my secret answer")(job_id)

        script(gate, tells(gate, say("my secret")), later)
        response = ask(gate, request_id="trace-1")
        job_id = response.headers["X-Chatd-Job-Id"]
        events_of(response)
        script(gate, tells(gate, say("he")), fails(gate, errors.UpstreamTimeout("slow")))
        events_of(ask(gate))
        script(gate, tells(gate, say("he")))
        gate.client.post(CHAT, json=BODY).close()
        events = [{k: v for k, v in one.items() if k not in usual} for one in written.events]
        lines = written.lines

    heads = [one for one in events if one["logger"] == "api.request_log"]
    first, second, third = (one for one in events if one["logger"] == "api.streaming")
    assert [one["status"] for one in heads] == [200, 200, 200]
    assert heads[0]["job_id"] == job_id
    assert first == {
        "logger": "api.streaming",
        "message": "POST /v1/chat: stream answered after 2000 ms",
        "method": "POST",
        "path": "/v1/chat",
        "stream": "answered",
        "pieces": 2,
        "duration_ms": 2000.0,
        "job_id": job_id,
        "request_id": "trace-1",
    }
    assert (second["stream"], third["stream"]) == ("upstream_timeout", "hung up")
    assert not [line for line in lines if "secret" in line]


def test_a_plain_call_follows_nothing(gate: Gateway) -> None:
    """Its waiter is woken by its end alone."""
    gate.store.respond = response_of
    followers: list[object] = []
    expect = gate.replies.expect

    def noted(job_id: str) -> Any:
        waiter = expect(job_id)
        followers.append(waiter)
        return waiter

    gate.replies.expect = noted  # type: ignore[method-assign]
    ask(gate, body={**BODY, "stream": False})

    assert [waiter.follower for waiter in followers] == [None]  # type: ignore[attr-defined]
