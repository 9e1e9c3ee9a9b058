"""/health, /ready, /openapi.json, and what Flask itself refuses."""

from __future__ import annotations

import os
import re
from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

from api.application import build
from api.contract import ErrorAnswer, Health, Ready
from api.frontend import FrontEnd
from api.health import chatd_version
from api.openapi import OPERATIONS, document
from chat.errors import QueueUnavailable, error_classes
from chat.formats.chat import ChatBody
from chat.settings import ChatdConfig
from chat.types import JSON
from tests.fakes import Gateway, gateway, registered_names


@pytest.fixture
def gate() -> Gateway:
    """A gateway with two providers registered."""
    return gateway()


def test_health_does_not_ask_redis(gate: Gateway) -> None:
    """A process that answers is alive."""
    gate.store.trouble = QueueUnavailable("Redis is away")
    response = gate.client.get("/health")

    assert response.status_code == 200
    Health.model_validate_json(response.data)
    assert response.json == {"status": "ok", "version": chatd_version()}
    assert gate.store.asked == []


def test_ready_when_redis_and_every_provider_answer(gate: Gateway) -> None:
    """With the seconds since each was seen; the grace itself is still ready."""
    gate.store.seen = {"ollama": 0.1234, "kimi": 30.0}
    response = gate.client.get("/ready")

    assert response.status_code == 200
    Ready.model_validate_json(response.data)
    assert response.json == {
        "status": "ready",
        "redis": "ok",
        "workers": {"ollama": 0.123, "kimi": 30.0},
    }


@pytest.mark.parametrize("seen", [None, 30.001], ids=["never seen", "beyond the grace"])
def test_not_ready_without_a_worker_of_every_provider(gate: Gateway, seen: float | None) -> None:
    """One missing worker is enough."""
    gate.store.seen = {"ollama": 0.0, "kimi": seen}
    response = gate.client.get("/ready")

    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert response.json == {
        "status": "not ready",
        "redis": "ok",
        "workers": {"ollama": 0.0, "kimi": seen},
    }


def test_not_ready_without_redis(gate: Gateway) -> None:
    """The body says what is wrong with it, and knows nothing of the workers."""
    gate.store.trouble = QueueUnavailable("Redis is away")
    response = gate.client.get("/ready")

    assert response.status_code == 503
    Ready.model_validate_json(response.data)
    assert response.json == {
        "status": "not ready",
        "redis": "Redis is away",
        "workers": {"ollama": None, "kimi": None},
    }


def test_without_an_address_of_redis_the_gateway_is_alive_and_not_ready(tmp_path: Any) -> None:
    """`chatd up` may still be starting its Redis; the next request looks again."""
    app = build(FrontEnd(ChatdConfig(data_dir=tmp_path), registered_names("ollama")))
    client = app.test_client()
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    chat = client.post("/v1/chat", json=body)
    ready = client.get("/ready")

    assert client.get("/health").status_code == 200
    assert (chat.status_code, ready.status_code) == (503, 503)
    assert ready.json is not None
    assert "chatd up" in ready.json["redis"]


def test_connections_are_kept_within_a_process_and_made_anew_in_the_next(gate: Gateway) -> None:
    """Gunicorn forks; two processes must not share a connection."""
    front: FrontEnd = gate.client.application.extensions["chatd"]
    first, second = front.connections(), front.connections()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"new" if front.connections() is not first else b"old")
        os._exit(0)
    os.waitpid(child, 0)
    said = os.read(reader, 3)
    os.close(reader)
    os.close(writer)

    assert first is second
    assert said == b"new"


def _routes(gate: Gateway) -> set[tuple[str, str]]:
    return {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in gate.client.application.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def test_the_document_has_every_route_and_no_other(gate: Gateway) -> None:
    """What is served is documented, what is documented is served."""
    response = gate.client.get("/openapi.json")

    assert response.json is not None
    documented = {(path, m) for path, methods in response.json["paths"].items() for m in methods}
    assert documented == _routes(gate)
    assert response.json["openapi"].startswith("3.1.")


def test_every_path_parameter_is_described() -> None:
    """OpenAPI requires it."""
    for operation in OPERATIONS:
        described = {p["name"] for p in operation.parameters if p["in"] == "path"}

        assert described == set(re.findall(r"{(\w+)}", operation.path))


def test_the_document_refers_to_the_models_that_validate() -> None:
    """The body of a chat is the schema that pydantic checks it with."""
    made = document("1")
    schemas = made["components"]["schemas"]
    body = made["paths"]["/v1/chat"]["post"]["requestBody"]["content"]["application/json"]

    assert body["schema"] == {"$ref": "#/components/schemas/ChatBody"}
    assert set(schemas["ChatBody"]["properties"]) == set(ChatBody.model_fields)
    assert schemas["ChatBody"]["additionalProperties"] is False


def test_every_reference_in_the_document_leads_somewhere() -> None:
    """No schema is named that is not there, none is there that is not named."""
    made = document("1")
    named = set(re.findall(r"'#/components/schemas/(\w+)'", str(made)))

    assert named == set(made["components"]["schemas"])


def test_a_chat_documents_every_error_there_is() -> None:
    """Its job may end in any of them."""
    responses: JSON = document("1")["paths"]["/v1/chat"]["post"]["responses"]
    told = {code for response in responses.values() for code in response["description"].split(", ")}

    assert {cls.code for cls in error_classes()} | {"internal_error"} <= told


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        pytest.param("GET", "/v1/nothing", 404, "not_found", id="no such path"),
        pytest.param("GET", "/v1/chat/", 404, "not_found", id="slash at the end"),
        pytest.param("GET", "/v1//jobs", 404, "not_found", id="two slashes"),
        pytest.param("GET", "/v1/chat", 405, "method_not_allowed", id="wrong method"),
        pytest.param("DELETE", "/health", 405, "method_not_allowed", id="not to be deleted"),
    ],
)
def test_what_flask_refuses_is_our_json(
    gate: Gateway, method: str, path: str, status: int, code: str
) -> None:
    """Never an HTML page, never a redirect."""
    response = gate.client.open(path, method=method)

    assert response.status_code == status
    ErrorAnswer.model_validate_json(response.data)
    assert response.json is not None
    assert response.json["error"]["code"] == code
    assert path in response.json["error"]["message"]


def test_a_refused_method_says_what_is_allowed(gate: Gateway) -> None:
    """In the header and in the message."""
    response = gate.client.get("/v1/chat")

    assert response.headers["Allow"] == "OPTIONS, POST"
    assert "use OPTIONS, POST" in response.text


def test_an_error_in_routing_does_not_show_what_it_cannot_print(gate: Gateway) -> None:
    """A path may hold anything."""
    response = gate.client.get("/%1b[31m")

    assert response.status_code == 404
    assert "\x1b" not in response.text


def test_the_version_is_that_of_the_package() -> None:
    """Or says that there is none, in a source tree that is not installed."""
    try:
        from importlib.metadata import version  # noqa: PLC0415 - may fail, which is the case

        expected = version("chatd")
    except PackageNotFoundError:
        expected = "0+unknown"

    assert chatd_version() == expected
