"""What a front end that is told to stop tells those who wait in it, over fakes."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from api.contract import ErrorAnswer, Record
from chat.jobs import JobState
from chat.settings import ChatdConfig
from chat.types import JSON
from tests.fakes import Gateway, gateway, response_of

BODY: JSON = {"model": "qwen3:8b", "messages": [{"role": "user", "content": "hi"}]}
COMPLETIONS = "/v1/chat/completions"


@pytest.fixture
def gate() -> Gateway:
    """A gateway whose jobs do not end, and that is told to stop as soon as somebody waits."""
    made = gateway(ChatdConfig(drain_s=60))
    made.replies.meanwhile = lambda _: made.front.stopping.begin()
    return made


def _error(response: Any) -> JSON:
    """The error of a response, checked against the contract."""
    ErrorAnswer.model_validate_json(response.data)
    error: JSON = response.json["error"]
    return error


def test_a_caller_goes_on_waiting_for_drain_s(gate: Gateway) -> None:
    """Then it has the job's id and its place, and the job goes on."""
    response = gate.client.post("/v1/chat", json=BODY)
    job = gate.store.newest()

    assert (response.status_code, response.headers["Retry-After"]) == (202, "1")
    assert response.headers["Location"] == f"/v1/jobs/{job.new.id}"
    assert "Preference-Applied" not in response.headers
    assert Record.model_validate_json(response.data).id == job.new.id
    assert (job.state, gate.clock.now) == (JobState.QUEUED, 1060)
    assert "cancel" not in gate.store.asked
    assert gate.replies.expected == []


def test_an_answer_that_comes_in_this_time_is_given(gate: Gateway) -> None:
    """As if nothing were the matter."""
    waits = iter(["it is told to stop", "the answer"])

    def meanwhile(job_id: str) -> None:
        gate.front.stopping.begin()
        if next(waits) == "the answer":
            gate.clock.advance(59)
            gate.store.end(job_id, response_of(gate.store.newest().new))

    gate.replies.meanwhile = meanwhile
    response = gate.client.post("/v1/chat", json=BODY)

    assert (response.status_code, response.headers.get("Location")) == (200, None)


def test_a_deadline_that_comes_first_decides(gate: Gateway) -> None:
    """The job is over, and there is nothing to hand over."""
    response = gate.client.post("/v1/chat", json={**BODY, "timeout_s": 20})

    assert (response.status_code, _error(response)["code"]) == (504, "deadline_exceeded")
    assert gate.store.newest().state is JobState.EXPIRED


def test_with_drain_s_zero_nobody_is_kept_waiting() -> None:
    """Not even a request that comes on a connection that was open; its job is accepted."""
    gate = gateway(ChatdConfig(drain_s=0))
    gate.front.stopping.begin()
    response = gate.client.post("/v1/chat", json=BODY)

    assert response.status_code == 202
    assert (len(gate.store.jobs), gate.clock.now, gate.replies.waits) == (1, 1000, [])


def test_who_prefers_a_wait_does_not_hold_up_the_stop(gate: Gateway) -> None:
    """It has agreed to 202."""
    response = gate.client.post("/v1/chat", json=BODY, headers={"Prefer": "wait=30"})
    job = gate.store.newest()

    assert (response.status_code, response.headers["Preference-Applied"]) == (202, "wait=30")
    assert response.headers["Location"] == f"/v1/jobs/{job.new.id}"
    assert (gate.clock.now, job.watchers) == (1000, [])


def test_a_long_poll_is_answered_at_once(gate: Gateway) -> None:
    """With the record as it is; the next one goes to the next front end."""
    gate.client.post("/v1/jobs", json=BODY)
    job = gate.store.newest()
    response = gate.client.get(f"/v1/jobs/{job.new.id}?wait=300")

    assert (response.status_code, response.json and response.json["state"]) == (200, "queued")
    assert (gate.clock.now, job.watchers) == (1000, [])


def test_a_cancellation_still_waits_for_the_worker(gate: Gateway) -> None:
    """Two seconds hold up nobody, and the answer is the end."""
    gate.client.post("/v1/jobs", json=BODY)
    job = gate.store.newest()
    job.state = JobState.CALLING
    gate.client.post(f"/v1/jobs/{job.new.id}/cancel")

    assert gate.clock.now == 1002


def test_a_caller_who_hangs_up_meanwhile_cancels(gate: Gateway) -> None:
    """Its answer would be thrown away as ever."""
    ours, theirs = socket.socketpair()

    def hang_up(_: str) -> None:
        gate.front.stopping.begin()
        theirs.close()
        for _look in range(2):
            gate.front.connections().hangups.sweep()

    gate.replies.meanwhile = hang_up
    with ours:
        response = gate.client.post(
            "/v1/chat", json=BODY, environ_overrides={"gunicorn.socket": ours}
        )

    assert (response.status_code, _error(response)["code"]) == (409, "job_cancelled")
    assert gate.store.newest().state is JobState.CANCELLED


class TestCompletions:
    """OpenAI's clients take every 2xx for an answer."""

    def test_they_are_told_to_come_back(self, gate: Gateway) -> None:
        """503 with the job's id; without a key they must not ask again by themselves."""
        response = gate.client.post(COMPLETIONS, json=BODY)
        job, error = gate.store.newest(), _error(response)

        assert (response.status_code, error["code"]) == (503, "draining")
        assert (error["job_id"], error["billed"]) == (job.new.id, "maybe")
        assert f"GET /v1/jobs/{job.new.id}" in error["message"]
        assert (response.headers["Retry-After"], response.headers["X-Should-Retry"]) == (
            "1",
            "false",
        )
        assert (job.state, gate.clock.now) == (JobState.QUEUED, 1060)

    def test_with_a_key_they_join_their_job(self, gate: Gateway) -> None:
        """What their client sends by itself is not a second call."""
        headers = {"Idempotency-Key": "k1"}
        told = gate.client.post(COMPLETIONS, json=BODY, headers=headers)
        gate.store.end(gate.store.newest().new.id, response_of(gate.store.newest().new))
        again = gate.client.post(COMPLETIONS, json=BODY, headers=headers)

        assert (told.status_code, "X-Should-Retry" in told.headers) == (503, False)
        assert again.status_code == 200
        assert len(gate.store.jobs) == 1

    def test_who_prefers_a_wait_has_its_202(self, gate: Gateway) -> None:
        """Nobody sends this without knowing what it means."""
        response = gate.client.post(COMPLETIONS, json=BODY, headers={"Prefer": "wait=30"})

        assert (response.status_code, gate.clock.now) == (202, 1000)
