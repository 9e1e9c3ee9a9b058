"""Jobs that Redis forgets after it has confirmed them: what the front end keeps of each."""

from __future__ import annotations

import pytest

from chat.types import JSON, Lane
from tests.fakes import Gateway, gateway, response_of

BODY: JSON = {"model": "qwen3:8b", "messages": [{"role": "user", "content": "hi"}]}
KEY = {"Idempotency-Key": "k"}


@pytest.fixture
def gate() -> Gateway:
    return gateway()


def forget(gate: Gateway, seconds: float, **headers: str) -> tuple[Gateway, JSON]:
    """Ask; Redis forgets the job so many seconds later, and its waiter admits it again."""

    def meanwhile(job_id: str) -> None:
        if len(gate.replies.waits) > 1:
            return
        gate.store.jobs.pop(job_id)
        gate.store.keys.clear()
        gate.clock.advance(seconds)
        gate.store.respond = response_of
        again = gate.replies.expected[0].again
        assert again is not None
        again()

    gate.replies.meanwhile = meanwhile
    response = gate.client.post("/v1/chat", json=BODY | {"timeout_s": 30}, headers=headers)
    assert response.status_code == 200
    answer: JSON = response.get_json()
    return gate, answer


@pytest.mark.parametrize(
    "headers", [{}, KEY, {"Prefer": "wait=20"}], ids=["plain", "with-a-key", "for-a-while"]
)
def test_a_forgotten_job_is_admitted_again_for_the_time_that_is_left(gate, headers):
    """Under its id, with its key, by the same rules of retention; a caller waits already."""
    gate, answer = forget(gate, 10, **headers)
    (job,) = gate.store.jobs.values()

    assert answer["id"] == job.new.id
    assert job.new.timeout_ms == 20_000
    assert (job.new.reply_to is None) == ("Prefer" in headers)
    assert (job.new.idempotency_key is None) == ("Idempotency-Key" not in headers)
    assert not job.new.waits


def test_a_key_that_came_again_meanwhile_has_the_job(gate):
    """The waiter waits for that one."""

    def meanwhile(job_id: str) -> None:
        if len(gate.replies.waits) > 1:
            return
        gate.store.jobs.pop(job_id)
        gate.store.keys.clear()
        gate.store.respond = response_of
        gate.replies.meanwhile = lambda _: None
        other.append(gate.client.post("/v1/chat", json=BODY, headers=KEY).json["id"])
        again = gate.replies.expected[0].again
        assert again is not None
        again()

    other: list[str] = []
    gate.replies.meanwhile = meanwhile
    answer = gate.client.post("/v1/chat", json=BODY, headers=KEY)

    assert [answer.json["id"]] == other
    assert len(gate.store.jobs) == 1


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/jobs", {}),
        ("/v1/chat", {"Prefer": "respond-async"}),
        ("/v1/chat", {"Prefer": "wait=1"}),
    ],
)
def test_a_job_that_goes_on_by_itself_is_remembered(gate, path, headers):
    """Its caller was told 202; whoever repeats a key has the first one's job."""
    first = gate.client.post(path, json=BODY, headers=headers | KEY)
    second = gate.client.post(path, json=BODY, headers=headers | KEY)

    assert (first.status_code, second.status_code) == (202, 202)
    size = first.request.content_length
    assert gate.replies.remembered == {first.json["id"]: size} == {second.json["id"]: size}
    assert gate.store.newest().new.lane is (Lane.BATCH if path == "/v1/jobs" else Lane.INTERACTIVE)
