"""GET /v1/jobs: filters, pages, and queries that break a rule; over fakes."""

from __future__ import annotations

import time
from typing import Any

import fakeredis
import pytest

from api.contract import ErrorAnswer, Jobs, ListedJob, Record
from api.jobs import MOST_LISTED
from api.openapi import OPERATIONS
from chat.errors import QueueUnavailable, UpstreamAuth
from chat.jobs import JobState, new_id, new_job_id
from chat.settings import ChatdConfig
from chat.store import Grant, JobStore
from chat.types import JSON
from tests.fakes import Gateway, gateway, response_of
from tests.store_base import a_job


@pytest.fixture
def gate() -> Gateway:
    """A gateway whose jobs stay queued."""
    return gateway()


def submit(gate: Gateway, model: str = "qwen3:8b", **fields: Any) -> str:
    """A job that was accepted; its id."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}
    job_id: str = gate.client.post("/v1/jobs", json=body).json["id"]  # type: ignore[index]
    return job_id


def listed(gate: Gateway, query: str = "") -> JSON:
    """A page, checked against the contract."""
    response = gate.client.get(f"/v1/jobs{query}")

    assert response.status_code == 200, response.text
    Jobs.model_validate_json(response.data)
    assert response.json is not None
    page: JSON = response.json
    return page


def ids(page: JSON) -> list[str]:
    """The jobs of a page."""
    return [job["id"] for job in page["jobs"]]


def refused(gate: Gateway, query: str) -> JSON:
    """The error of a query that breaks a rule, before anybody asked Redis."""
    response = gate.client.get(f"/v1/jobs{query}")

    assert (response.status_code, gate.store.asked) == (400, [])
    ErrorAnswer.model_validate_json(response.data)
    assert response.json is not None
    error: JSON = response.json["error"]
    assert error["code"] == "invalid_request"
    return error


def test_the_list_is_newest_first(gate: Gateway) -> None:
    """Ids sort by time."""
    made = [submit(gate) for _ in range(5)]
    page = listed(gate)

    assert ids(page) == sorted(made, reverse=True)
    assert page["next"] is None


def test_a_listed_job_is_its_record_without_the_response(gate: Gateway) -> None:
    """Which may be large: the record has it. Everything else is the same."""
    answered, failed, queued = (submit(gate, metadata={"n": str(n)}) for n in range(3))
    gate.store.end(answered, response_of(gate.store.jobs[answered].new))
    gate.store.end(failed, UpstreamAuth("refused", provider="ollama", upstream_status=401))
    page = listed(gate)
    records = [gate.client.get(f"/v1/jobs/{job_id}").json for job_id in ids(page)]

    assert set(ids(page)) == {answered, failed, queued}
    assert [{**job, "response": ...} for job in page["jobs"]] == [
        {**(record or {}), "response": ...} for record in records
    ]
    assert not any("response" in job for job in page["jobs"])


def test_a_listed_job_has_nothing_of_an_answer_that_broke_off(gate: Gateway) -> None:
    """It may be as large as an answer."""
    job_id = submit(gate, stream=True)
    came: JSON = {"content": "Par", "reasoning": None, "tool_calls": [], "output_tokens": 1}
    gate.store.end(job_id, UpstreamAuth("refused", provider="ollama", partial=came))
    [job] = listed(gate)["jobs"]
    record = gate.client.get(f"/v1/jobs/{job_id}").json

    assert record is not None
    assert record["error"].pop("partial") == came
    assert job["error"] == record["error"]


def test_the_contract_of_a_listed_job_is_that_of_a_record_but_for_one_field() -> None:
    """So that a field which is added to one is added to both."""
    assert set(Record.model_fields) - set(ListedJob.model_fields) == {"response"}
    assert set(ListedJob.model_fields) < set(Record.model_fields)


def test_nothing_is_an_empty_list(gate: Gateway) -> None:
    """Which is no error."""
    assert listed(gate) == {"jobs": [], "next": None}


def test_pages_follow_each_other(gate: Gateway) -> None:
    """What one page calls next is what the other one comes after."""
    made = sorted((submit(gate) for _ in range(25)), reverse=True)
    first = listed(gate)
    second = listed(gate, f"?after={first['next']}")
    whole = listed(gate, "?limit=100")

    assert (ids(first), first["next"]) == (made[:20], made[19])
    assert (ids(second), second["next"]) == (made[20:], None)
    assert ids(whole) == made


def test_the_page_after_a_job_that_never_was(gate: Gateway) -> None:
    """A well-formed id marks a place in time, whether or not there is such a job."""
    made = sorted((submit(gate) for _ in range(3)), reverse=True)

    assert ids(listed(gate, f"?after={new_id('job_', 2**48 - 1)}")) == made
    assert ids(listed(gate, f"?after={new_id('job_', 0)}")) == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("?state=succeeded", {"kimi batch done"}, id="state"),
        pytest.param(
            "?state=succeeded,calling", {"kimi batch done", "ollama batch calling"}, id="states"
        ),
        pytest.param("?provider=kimi", {"kimi batch", "kimi batch done"}, id="provider"),
        pytest.param("?lane=interactive", {"ollama interactive"}, id="lane"),
        pytest.param("?provider=kimi&state=queued&lane=batch", {"kimi batch"}, id="all"),
        pytest.param("?provider=openrouter", set(), id="provider-without-jobs"),
    ],
)
def test_filters_are_kept(gate: Gateway, query: str, expected: set[str]) -> None:
    """All of them at once."""
    kinds = {
        submit(gate, "kimi/k3"): "kimi batch",
        submit(gate, lane="interactive"): "ollama interactive",
        submit(gate, "kimi/k3", seed=1): "kimi batch done",
        submit(gate): "ollama batch calling",
    }
    *_, done, calling = kinds
    gate.store.end(done, response_of(gate.store.jobs[done].new))
    gate.store.jobs[calling].state = JobState.CALLING

    assert {kinds[job_id] for job_id in ids(listed(gate, query))} == expected


@pytest.mark.parametrize("state", list(JobState))
def test_every_state_can_be_asked_for(gate: Gateway, state: JobState) -> None:
    """By its name in the record."""
    assert listed(gate, f"?state={state}")["jobs"] == []


@pytest.mark.parametrize(
    ("query", "param", "value", "rule"),
    [
        pytest.param("state=done", "state", '"done"', "one of queued, waiting", id="state"),
        pytest.param("state=queued,", "state", '""', "one of queued", id="comma-at-the-end"),
        pytest.param("state=queued,%20calling", "state", '" calling"', "one of", id="space"),
        pytest.param("state=QUEUED", "state", '"QUEUED"', "one of", id="upper-case"),
        pytest.param("state=", "state", '""', "leave it out for all", id="empty"),
        pytest.param("provider=openai", "provider", '"openai"', "one of ollama", id="provider"),
        pytest.param("lane=fast", "lane", '"fast"', "one of interactive, batch", id="lane"),
        pytest.param("limit=0", "limit", '"0"', "from 1 to 100", id="limit-0"),
        pytest.param("limit=101", "limit", '"101"', "from 1 to 100", id="limit-101"),
        pytest.param("limit=-1", "limit", '"-1"', "from 1 to 100", id="negative"),
        pytest.param("limit=1.0", "limit", '"1.0"', "a whole number", id="fraction"),
        pytest.param("limit=%D9%A3", "limit", '"٣"', "a whole number", id="other-digits"),
        pytest.param(f"limit={'9' * 5000}", "limit", "999…", "from 1 to 100", id="huge"),
        pytest.param("after=x", "after", '"x"', "must be a job id", id="after"),
        pytest.param("after=", "after", '""', "must be a job id", id="after-empty"),
        pytest.param("after=job_%5B" + "0" * 25, "after", '"job_[', "a job id", id="pattern"),
        pytest.param("status=failed", "status", '"status"', "takes state, provider", id="unknown"),
        pytest.param("wait=3", "wait", '"wait"', "takes state, provider", id="of-a-record"),
        pytest.param("state=queued&state=calling", "state", "2 times", "commas", id="twice"),
    ],
)
def test_a_query_that_breaks_a_rule_is_400(
    gate: Gateway, query: str, param: str, value: str, rule: str
) -> None:
    """It names the value, the rule and the way out."""
    error = refused(gate, f"?{query}")

    assert error["param"] == param
    assert value in error["message"]
    assert rule in error["message"]
    assert len(error["message"]) < 300


def test_the_contract_has_every_parameter_and_no_other(gate: Gateway) -> None:
    """What the document says may be asked is what is taken."""
    (operation,) = (o for o in OPERATIONS if (o.path, o.method) == ("/v1/jobs", "get"))
    examples = {"state": "queued", "provider": "kimi", "lane": "batch", "after": new_job_id()}
    told = {p["name"]: p["schema"] for p in operation.parameters}
    taken = refused(gate, "?x=1")["message"].partition(" takes ")[2].split(", ")

    assert list(told) == taken
    assert set(told) == {*examples, "limit"}
    assert (told["limit"]["maximum"], told["limit"]["default"]) == (MOST_LISTED, 20)
    for name, value in examples.items():
        listed(gate, f"?{name}={value}")
    for name in ("provider", "lane"):
        for value in told[name]["enum"]:
            listed(gate, f"?{name}={value}")


def test_without_redis_there_is_no_list(gate: Gateway) -> None:
    """503 as for every call."""
    gate.store.trouble = QueueUnavailable("Redis is away", retry_after_s=5)
    response = gate.client.get("/v1/jobs")

    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")


def test_what_the_real_store_tells_has_the_form_of_the_contract() -> None:
    """Of a job that is called, one that is queued and one that waits for its budget."""
    store = JobStore(fakeredis.FakeRedis(decode_responses=True), ChatdConfig())
    store.register_settings(["ollama"])
    called, queued, waiting = (a_job(id=new_id("job_", moment)) for moment in (3, 2, 1))
    store.admit(called)
    assert isinstance(store.start(called.id, worker="ollama-1@here", token="t1"), Grant)
    store.admit(queued)
    until = int(time.time() * 1000) + 9000
    store.redis.hset("budget:ollama:*", "closed_until", until)
    store.redis.hset("budget:ollama:*", "why", "rate_limited")
    store.admit(waiting)
    records = store.listed().records
    wire = [Record.model_validate(record.to_wire()) for record in records]

    assert [record.state for record in wire] == ["calling", "queued", "waiting"]
    assert [record.waiting and record.waiting.reason for record in wire] == [
        None,
        "queue",
        "rate_limited",
    ]
    assert all(record.waiting.estimated_start_at for record in wire if record.waiting)
