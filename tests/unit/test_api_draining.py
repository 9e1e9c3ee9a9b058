"""What callers are told of a provider that is drained: the views over the real store."""

from __future__ import annotations

import json

import fakeredis
import pytest
from flask.testing import FlaskClient

from api import create_app
from api.contract import ErrorAnswer, Providers, Record
from chat.catalogue import Catalogue
from chat.settings import ChatdConfig
from chat.store import JobStore
from chat.types import JSON
from tests.fakes import FakeClock, FakeReplies, FakeStore, registered_names

BODY: JSON = {"model": "kimi/k3", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def store() -> JobStore:
    """A store in which Kimi is drained, and both providers have a worker."""
    made = JobStore(fakeredis.FakeRedis(decode_responses=True), ChatdConfig())
    made.register_settings(["ollama", "kimi"])
    for provider in ("ollama", "kimi"):
        made.heartbeat(f"{provider}-1@here", provider, [])
    made.drain("kimi")
    return made


@pytest.fixture
def client(store: JobStore) -> FlaskClient:
    """A caller of a front end over that store, in which nobody can wait for long."""
    clock = FakeClock()
    app = create_app(
        ChatdConfig(),
        names=registered_names("ollama", "kimi"),
        store=store,
        replies=FakeReplies(FakeStore(clock), clock),
        catalogue=Catalogue(store.redis),
        clock=clock,
    )
    return app.test_client()


@pytest.mark.parametrize("path", ["/v1/chat", "/v1/chat/completions"])
def test_a_call_that_waits_is_refused(store: JobStore, client: FlaskClient, path: str) -> None:
    """Before it is queued, with the provider and the way out; it may be sent again."""
    response = client.post(path, json=BODY)
    error = ErrorAnswer.model_validate_json(response.data).error

    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert (error.code, error.provider, error.job_id) == ("draining", "kimi", None)
    assert "`chatd resume kimi`" in error.message
    assert "X-Should-Retry" not in response.headers
    assert store.counters() == {}


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/jobs", {}),
        ("/v1/chat", {"Prefer": "respond-async"}),
        ("/v1/chat", {"Prefer": "wait=1"}),
    ],
    ids=["a job", "not waiting", "waiting for a while"],
)
def test_what_may_wait_is_queued(client: FlaskClient, path: str, headers: dict[str, str]) -> None:
    """That is what a queue is for; its record says what it waits for."""
    response = client.post(path, json=BODY, headers=headers)
    record = Record.model_validate_json(response.data)

    assert (response.status_code, record.state) == (202, "queued")
    assert record.waiting is not None
    assert (record.waiting.reason, record.waiting.until) == ("drained", None)


def test_the_providers_are_told_apart(client: FlaskClient) -> None:
    """Since when in the list and 1 in the metrics; chatd is ready, since its workers are there."""
    listed = json.loads(client.get("/v1/chat/providers").data)
    told = Providers.model_validate(listed).providers
    metrics = client.get("/metrics").data.decode().splitlines()

    assert [(one.name, one.drained_since is None) for one in told] == [
        ("ollama", True),
        ("kimi", False),
    ]
    assert 'chatd_provider_drained{provider="kimi"} 1.0' in metrics
    assert 'chatd_provider_drained{provider="ollama"} 0.0' in metrics
    assert client.get("/ready").status_code == 200
