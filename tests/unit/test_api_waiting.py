"""How long POST /v1/chat waits, for which job, and what a caller who hangs up leads to."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from api.contract import ErrorAnswer, Record
from api.hangup import HangupMonitor
from chat.jobs import JobState
from chat.types import JSON, Lane
from tests.fakes import Gateway, gateway, response_of

BODY: JSON = {"model": "qwen3:8b", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def gate() -> Gateway:
    """A gateway whose jobs are answered at once."""
    made = gateway()
    made.store.respond = response_of
    return made


def _error(response: Any) -> JSON:
    """The error of a response, checked against the contract."""
    ErrorAnswer.model_validate_json(response.data)
    error: JSON = response.json["error"]
    return error


def test_a_job_that_ends_while_the_caller_waits_is_answered() -> None:
    """The wait is for the job's deadline and a second."""
    gate = gateway()
    gate.replies.meanwhile = lambda job_id: gate.store.end(
        job_id, response_of(gate.store.newest().new)
    )
    response = gate.client.post("/v1/chat", json={**BODY, "timeout_s": 20})

    assert response.status_code == 200
    assert gate.replies.waits == [21.0]
    assert gate.replies.expected == []


def test_a_job_nobody_took_ends_at_its_deadline() -> None:
    """504 with its id, and the record says expired."""
    gate = gateway()
    response = gate.client.post("/v1/chat", json={**BODY, "timeout_s": 20})

    assert (response.status_code, _error(response)["code"]) == (504, "deadline_exceeded")
    assert _error(response)["job_id"] == gate.store.newest().new.id
    assert gate.store.newest().state is JobState.EXPIRED
    assert gate.clock.now == 1000 + 21


def test_a_call_that_is_still_out_at_the_deadline_is_504() -> None:
    """Its own worker will end it; the caller is told where to look."""
    gate = gateway()

    def call(job_id: str) -> None:
        gate.store.jobs[job_id].state = JobState.CALLING

    gate.replies.meanwhile = call
    response = gate.client.post("/v1/chat", json={**BODY, "timeout_s": 20})
    job_id = gate.store.newest().new.id

    assert (response.status_code, _error(response)["job_id"]) == (504, job_id)
    assert f"GET /v1/jobs/{job_id}" in _error(response)["message"]


def test_an_answer_that_is_no_longer_kept_is_410(gate: Gateway) -> None:
    """The record outlives the answer by a moment."""
    gate.store.respond = lambda _: None

    def forget(job_id: str) -> None:
        gate.store.end(job_id, response_of(gate.store.newest().new))
        job = gate.store.newest()
        assert job.outcome is not None
        job.outcome = type(job.outcome)(job_id, job.state, None, None)

    gate.replies.meanwhile = forget
    response = gate.client.post("/v1/chat", json=BODY)

    assert (response.status_code, _error(response)["code"]) == (410, "result_expired")


def test_respond_async_is_202_at_once() -> None:
    """With the record, and nobody waits."""
    gate = gateway()
    response = gate.client.post("/v1/chat", json=BODY, headers={"Prefer": "respond-async"})
    job = gate.store.newest().new

    assert response.status_code == 202
    assert response.headers["Location"] == f"/v1/jobs/{job.id}"
    assert response.headers["Preference-Applied"] == "respond-async"
    assert Record.model_validate_json(response.data).state is JobState.QUEUED
    assert (job.lane, job.reply_to, job.waits) == (Lane.INTERACTIVE, None, False)
    assert gate.replies.waits == []


def test_prefer_wait_is_202_after_that_long_and_the_job_goes_on() -> None:
    """The channel is taken back, since nobody waits any more."""
    gate = gateway()
    response = gate.client.post("/v1/chat", json=BODY, headers={"Prefer": "wait=3"})
    job = gate.store.newest()

    assert (response.status_code, response.headers["Preference-Applied"]) == (202, "wait=3")
    assert response.headers["Location"] == f"/v1/jobs/{job.new.id}"
    assert (job.state, job.watchers, gate.clock.now) == (JobState.QUEUED, [], 1003)


def test_prefer_wait_is_200_when_the_job_ends_in_time(gate: Gateway) -> None:
    """The preference was kept all the same."""
    response = gate.client.post("/v1/chat", json=BODY, headers={"Prefer": "wait=3"})

    assert (response.status_code, response.headers["Preference-Applied"]) == (200, "wait=3")


def test_prefer_wait_lasts_no_longer_than_the_job() -> None:
    """Whatever the caller prefers, the job is over by its deadline."""
    gate = gateway()
    gate.client.post("/v1/chat", json={**BODY, "timeout_s": 20}, headers={"Prefer": "wait=9999"})

    assert gate.clock.now == 1000 + 21


def test_a_call_that_may_go_on_alone_needs_no_worker() -> None:
    """A plain call is refused at once; one with a preference is queued."""
    gate = gateway()
    gate.store.seen = {"ollama": None}
    plain = gate.client.post("/v1/chat", json=BODY)
    patient = gate.client.post("/v1/chat", json=BODY, headers={"Prefer": "wait=1"})

    assert (plain.status_code, _error(plain)["code"]) == (503, "no_worker")
    assert patient.status_code == 202


def test_a_malformed_preference_is_ignored(gate: Gateway) -> None:
    """RFC 7240, section 2."""
    response = gate.client.post("/v1/chat", json=BODY, headers={"Prefer": "wait=soon"})

    assert response.status_code == 200
    assert "Preference-Applied" not in response.headers


def test_the_same_key_and_body_is_the_same_job(gate: Gateway) -> None:
    """A finished job is answered again; no second one is made."""
    headers = {"Idempotency-Key": "k1"}
    first = gate.client.post("/v1/chat", json=BODY, headers=headers)
    again = gate.client.post("/v1/chat", json={**BODY, "seed": None}, headers=headers)

    assert (again.status_code, again.json) == (200, first.json)
    assert len(gate.store.jobs) == 1


def test_the_same_key_joins_a_job_that_still_runs() -> None:
    """The second caller waits for the first one's job."""
    gate = gateway()
    headers = {"Idempotency-Key": "k1", "Prefer": "respond-async"}
    first = gate.client.post("/v1/chat", json=BODY, headers=headers)
    assert first.json is not None
    job_id = first.json["id"]
    gate.replies.meanwhile = lambda waited_for: gate.store.end(
        waited_for, response_of(gate.store.jobs[waited_for].new)
    )
    joined = gate.client.post("/v1/chat", json=BODY, headers={"Idempotency-Key": "k1"})

    assert joined.json is not None
    assert (joined.status_code, joined.json["id"]) == (200, job_id)
    assert gate.replies.expected == []


def test_the_same_key_with_another_body_is_422(gate: Gateway) -> None:
    """The key belongs to the first body."""
    headers = {"Idempotency-Key": "k1"}
    gate.client.post("/v1/chat", json=BODY, headers=headers)
    other = gate.client.post("/v1/chat", json={**BODY, "seed": 1}, headers=headers)

    assert (other.status_code, _error(other)["code"]) == (422, "idempotency_mismatch")


def test_a_key_belongs_to_its_path(gate: Gateway) -> None:
    """The same key on /v1/jobs is another call."""
    headers = {"Idempotency-Key": "k1"}
    gate.client.post("/v1/chat", json=BODY, headers=headers)
    gate.client.post("/v1/jobs", json=BODY, headers=headers)

    assert set(gate.store.keys) == {"POST /v1/chat k1", "POST /v1/jobs k1"}


def _hang_up_while_waiting(gate: Gateway, headers: dict[str, str]) -> Any:
    """Call over a socket pair whose far end closes during the first wait."""
    ours, theirs = socket.socketpair()
    hung_up: list[bool] = []

    def hang_up(_: str) -> None:
        theirs.close()
        if not hung_up:
            # Two looks at the closed connection, as the monitor's thread would have them.
            monitor = _monitor_of(gate)
            monitor.sweep()
            monitor.sweep()
        hung_up.append(True)

    gate.replies.meanwhile = hang_up
    with ours:
        return gate.client.post(
            "/v1/chat",
            json={**BODY, "timeout_s": 20},
            headers=headers,
            environ_overrides={"gunicorn.socket": ours},
        )


def _monitor_of(gate: Gateway) -> HangupMonitor:
    monitor: HangupMonitor = gate.client.application.extensions["chatd"].connections().hangups
    return monitor


def test_a_caller_who_hangs_up_cancels_the_job() -> None:
    """The job costs nothing if it was not sent; the wait ends at once."""
    gate = gateway()
    response = _hang_up_while_waiting(gate, {})

    assert gate.store.newest().state is JobState.CANCELLED
    assert (response.status_code, _error(response)["code"]) == (409, "job_cancelled")
    assert gate.clock.now < 1000 + 21


def test_a_caller_with_an_idempotency_key_may_hang_up() -> None:
    """It means to come back: the job goes on to its own end."""
    gate = gateway()
    _hang_up_while_waiting(gate, {"Idempotency-Key": "k1"})

    assert "cancel" not in gate.store.asked
    assert gate.clock.now == 1000 + 21


def test_a_caller_who_prefers_a_wait_may_hang_up() -> None:
    """The job goes on without it anyway."""
    gate = gateway()
    _hang_up_while_waiting(gate, {"Prefer": "wait=5"})

    assert gate.store.newest().state is JobState.QUEUED
