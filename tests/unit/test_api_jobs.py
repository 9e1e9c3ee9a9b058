"""POST /v1/jobs, GET /v1/jobs/<id> and its cancellation, over fakes."""

from __future__ import annotations

from typing import Any

import pytest

from api.contract import ErrorAnswer, Record
from chat.errors import JobCancelled, QueueUnavailable, UpstreamAuth
from chat.jobs import JobState, new_id, new_job_id
from chat.types import JSON, Lane
from tests.fakes import Gateway, gateway

BODY: JSON = {"model": "kimi/k3", "messages": [{"role": "user", "content": "hi"}]}
RESPONSE: JSON = {
    "model": "kimi/k3",
    "provider": "kimi",
    "upstream_model": "k3",
    "content": "",
    "reasoning": "thought of nothing",
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    "finish_reason": "tool_calls",
    "input_tokens": None,
    "output_tokens": None,
    "latency_ms": 1,
    "queue_ms": 2,
    "attempt_count": 1,
    "cost_usd": 0.5,
}


@pytest.fixture
def gate() -> Gateway:
    """A gateway whose jobs stay queued."""
    return gateway()


def _submit(gate: Gateway, **fields: Any) -> str:
    response = gate.client.post("/v1/jobs", json={**BODY, **fields})
    assert response.json is not None
    job_id: str = response.json["id"]
    return job_id


def _record(response: Any) -> JSON:
    """The record of a response, checked against the contract."""
    assert response.status_code == 200
    Record.model_validate_json(response.data)
    record: JSON = response.json
    return record


def _code(response: Any) -> str:
    ErrorAnswer.model_validate_json(response.data)
    code: str = response.json["error"]["code"]
    return code


def test_a_job_is_accepted_with_its_record_and_its_place(gate: Gateway) -> None:
    """202 at once; Location is a path."""
    response = gate.client.post("/v1/jobs", json={**BODY, "metadata": {"k": "v"}})
    job = gate.store.newest().new

    assert response.status_code == 202
    assert response.headers["Location"] == f"/v1/jobs/{job.id}"
    Record.model_validate_json(response.data)
    assert response.json == {
        "id": job.id,
        "state": "queued",
        "lane": "batch",
        "model": "kimi/k3",
        "provider": "kimi",
        "upstream_model": "k3",
        "created_at": "2026-11-18T11:23:20.000Z",
        "deadline_at": "2026-11-19T11:23:20.000Z",
        "attempts": [],
        "response": None,
        "error": None,
        "waiting": None,
        "metadata": {"k": "v"},
        "owner": None,
    }


def test_a_job_waits_in_the_batch_lane_for_a_day_unless_it_says_otherwise(gate: Gateway) -> None:
    """Nobody holds a connection for it, so it needs no worker now."""
    gate.store.seen = {"kimi": None}
    _submit(gate)
    usual = gate.store.newest().new
    _submit(gate, lane="interactive")
    quick = gate.store.newest().new

    assert (usual.lane, usual.timeout_ms) == (Lane.BATCH, 86_400_000)
    assert (quick.lane, quick.timeout_ms) == (Lane.INTERACTIVE, 180_000)
    assert (usual.reply_to, usual.waits) == (None, False)


def test_the_same_key_and_body_returns_the_same_job(gate: Gateway) -> None:
    """202 with the record as it is by now."""
    headers = {"Idempotency-Key": "k"}
    first = gate.client.post("/v1/jobs", json=BODY, headers=headers)
    assert first.json is not None
    gate.store.end(first.json["id"], RESPONSE)
    again = gate.client.post("/v1/jobs", json=BODY, headers=headers)
    other = gate.client.post("/v1/jobs", json={**BODY, "seed": 1}, headers=headers)

    assert again.json is not None
    assert (again.status_code, again.json["id"]) == (202, first.json["id"])
    assert again.json["state"] == "succeeded"
    assert (other.status_code, _code(other)) == (422, "idempotency_mismatch")


def test_a_bad_idempotency_key_is_400(gate: Gateway) -> None:
    """Before anything is queued."""
    response = gate.client.post("/v1/jobs", json=BODY, headers={"Idempotency-Key": "a b"})

    assert (response.status_code, _code(response)) == (400, "invalid_request")
    assert gate.store.asked == []


def test_the_record_is_200_whatever_the_state(gate: Gateway) -> None:
    """Answers and errors are inside it."""
    job_id = _submit(gate)
    queued = _record(gate.client.get(f"/v1/jobs/{job_id}"))
    gate.store.end(job_id, RESPONSE)
    succeeded = _record(gate.client.get(f"/v1/jobs/{job_id}"))
    gate.store.end(job_id, UpstreamAuth("refused", provider="kimi", upstream_status=401))
    failed = _record(gate.client.get(f"/v1/jobs/{job_id}"))

    assert (queued["state"], queued["response"], queued["error"]) == ("queued", None, None)
    assert (succeeded["state"], succeeded["response"]) == ("succeeded", RESPONSE)
    assert (failed["state"], failed["error"]["code"]) == ("failed", "upstream_auth")


def test_an_unknown_job_is_404(gate: Gateway) -> None:
    """Never "pending"; with a wait it does not wait either."""
    job_id = new_job_id()
    paths = [f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}?wait=9"]
    responses = [gate.client.get(path) for path in paths]
    responses.append(gate.client.post(f"/v1/jobs/{job_id}/cancel"))

    assert [(r.status_code, _code(r)) for r in responses] == [(404, "job_not_found")] * 3
    assert (gate.replies.waits, gate.replies.expected) == ([], [])


def test_an_unknown_job_of_long_ago_is_410(gate: Gateway) -> None:
    """Its id tells its age: there may have been a record, which was removed in its time."""
    job_id = new_id("job_", 1_700_000_000_000)
    paths = [f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}?wait=9"]
    responses = [gate.client.get(path) for path in paths]
    responses.append(gate.client.post(f"/v1/jobs/{job_id}/cancel"))

    assert [(r.status_code, _code(r)) for r in responses] == [(410, "result_expired")] * 3
    assert (gate.replies.waits, gate.replies.expected) == ([], [])
    for response in responses:
        assert response.json is not None
        assert response.json["error"]["job_id"] == job_id
        assert "of 2023-11-14T22:13:20.000Z" in response.json["error"]["message"]
        assert "sync_retention_s = 900 " in response.json["error"]["message"]


@pytest.mark.parametrize(
    "job_id",
    ["x", "job_", "job_" + "0" * 25, "job_" + "0" * 27, "job_" + "0" * 25 + "O", "job_*", "%00"],
)
def test_what_is_no_job_id_is_404_without_asking_redis(gate: Gateway, job_id: str) -> None:
    """The shape is checked first."""
    read = gate.client.get(f"/v1/jobs/{job_id}")
    cancelled = gate.client.post(f"/v1/jobs/{job_id}/cancel")

    assert (read.status_code, _code(read)) == (404, "job_not_found")
    assert (cancelled.status_code, _code(cancelled)) == (404, "job_not_found")
    assert gate.store.asked == []


def test_every_new_job_id_passes_that_check(gate: Gateway) -> None:
    """The check and the maker of ids agree on the alphabet."""
    for _ in range(200):
        gate.client.get(f"/v1/jobs/{new_job_id()}")

    assert gate.store.asked == ["record"] * 200


def test_a_long_poll_returns_when_the_job_ends(gate: Gateway) -> None:
    """With the record as it is then."""
    job_id = _submit(gate)
    gate.replies.meanwhile = lambda waited_for: gate.store.end(waited_for, RESPONSE)
    record = _record(gate.client.get(f"/v1/jobs/{job_id}?wait=30"))

    assert (record["state"], gate.replies.waits) == ("succeeded", [30.0])


def test_a_long_poll_returns_after_its_wait(gate: Gateway) -> None:
    """The job goes on; nobody is left waiting or watching."""
    job_id = _submit(gate)
    record = _record(gate.client.get(f"/v1/jobs/{job_id}?wait=2.5"))

    assert (record["state"], gate.clock.now) == ("queued", 1002.5)
    assert (gate.store.newest().watchers, gate.replies.expected) == ([], [])


@pytest.mark.parametrize("query", ["", "?wait=0"], ids=["absent", "zero"])
def test_without_a_wait_the_record_is_read_once(gate: Gateway, query: str) -> None:
    """One question to Redis, no listener."""
    job_id = _submit(gate)
    gate.store.asked.clear()
    gate.client.get(f"/v1/jobs/{job_id}{query}")

    assert gate.store.asked == ["record"]


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [("2.5", 2.5), ("2.5e0", 2.5), ("25E-1", 2.5), ("1e-5", 1e-5), ("3e+1", 30)],
)
def test_a_wait_is_a_number_as_json_has_it(gate: Gateway, wait: str, seconds: float) -> None:
    """The document says that it is a number; some libraries write small ones with an exponent."""
    _record(gate.client.get(f"/v1/jobs/{_submit(gate)}", query_string={"wait": wait}))

    assert gate.clock.now == 1000 + seconds


@pytest.mark.parametrize("wait", ["-1", "301", "1e3", "1e999", "soon", "", "nan", "inf", "٣"])
def test_a_wait_that_breaks_the_rule_is_400(gate: Gateway, wait: str) -> None:
    """A number of seconds from 0 to 300."""
    response = gate.client.get(f"/v1/jobs/{_submit(gate)}", query_string={"wait": wait})

    assert (response.status_code, _code(response)) == (400, "invalid_request")
    assert response.json is not None
    assert response.json["error"]["param"] == "wait"
    assert "from 0 to 300" in response.json["error"]["message"]


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.WAITING])
def test_a_job_in_no_call_is_cancelled_at_once(gate: Gateway, state: JobState) -> None:
    """Without waiting for anybody: it has cost nothing."""
    job_id = _submit(gate)
    gate.store.newest().state = state
    record = _record(gate.client.post(f"/v1/jobs/{job_id}/cancel"))

    assert (record["state"], record["error"]["code"]) == ("cancelled", "job_cancelled")
    assert gate.replies.waits == []


def test_a_job_in_a_call_is_over_when_its_worker_has_closed_it(gate: Gateway) -> None:
    """The record that comes back is then final."""
    job_id = _submit(gate)
    gate.store.newest().state = JobState.CALLING
    gate.replies.meanwhile = lambda waited_for: gate.store.end(
        waited_for, JobCancelled("closed"), JobState.CANCELLED
    )
    record = _record(gate.client.post(f"/v1/jobs/{job_id}/cancel"))

    assert record["state"] == "cancelled"


def test_a_worker_that_takes_its_time_is_not_waited_for_long(gate: Gateway) -> None:
    """Two seconds, then the record as it is."""
    job_id = _submit(gate)
    gate.store.newest().state = JobState.CALLING
    record = _record(gate.client.post(f"/v1/jobs/{job_id}/cancel"))

    assert (record["state"], gate.clock.now) == ("calling", 1002)
    assert gate.store.newest().watchers == []


def test_a_finished_job_stays_as_it_is(gate: Gateway) -> None:
    """Terminal states never change; cancelling twice is no error."""
    job_id = _submit(gate)
    gate.store.end(job_id, RESPONSE)
    record = _record(gate.client.post(f"/v1/jobs/{job_id}/cancel"))

    assert record["state"] == "succeeded"


def test_without_redis_every_call_is_503(gate: Gateway) -> None:
    """With Retry-After, and nobody is left waiting."""
    job_id = _submit(gate)
    gate.store.trouble = QueueUnavailable("Redis is away", retry_after_s=5)
    responses = [
        gate.client.post("/v1/jobs", json=BODY),
        gate.client.get(f"/v1/jobs/{job_id}"),
        gate.client.get(f"/v1/jobs/{job_id}?wait=5"),
        gate.client.post(f"/v1/jobs/{job_id}/cancel"),
        gate.client.get("/v1/chat/providers"),
    ]

    assert [(r.status_code, _code(r)) for r in responses] == [(503, "redis_unavailable")] * 5
    assert all(r.headers["Retry-After"] == "5" for r in responses)
    assert gate.replies.expected == []
