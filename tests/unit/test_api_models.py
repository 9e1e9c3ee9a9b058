"""``GET /v1/models`` and ``GET /v1/models/<id>``."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import quote

import fakeredis
import pytest

from api.contract import ErrorAnswer, ModelAnswer, Models
from chat.catalogue import LONGEST_NAME, ListedModel
from chat.registry import Names
from chat.settings import ChatdConfig
from tests.fakes import Gateway, gateway, registered_names

TIERS = {"fast": "qwen3:8b", "strong": "kimi/k3", "elsewhere": "opencode/glm-5.2"}
PROVIDERS = ("ollama", "ollama_cloud", "openrouter", "kimi")

#: What stands in the lists of the tests, by provider.
LISTS = {
    "ollama": (
        ListedModel("qwen3:8b", 1_790_000_000),
        ListedModel("llama3.2:latest", 1_780_000_000),
        ListedModel("gpt-oss:120b-cloud", 1_790_000_000),
        ListedModel("kimi/k3:latest"),
    ),
    "openrouter": (ListedModel("openrouter/auto"), ListedModel("openai/gpt-4o-mini:free", 5)),
    "kimi": (ListedModel("k3", 1_770_000_000),),
}


def made(
    *, names: Names | None = None, weak_models: tuple[str, ...] = (), lists: Any = None
) -> Gateway:
    """A gateway with four providers, of which Ollama Cloud has no list yet."""
    gate = gateway(
        ChatdConfig(weak_models=weak_models),
        names or registered_names(*PROVIDERS, models=TIERS),
    )
    for provider, models in (LISTS if lists is None else lists).items():
        gate.catalogue.keep(provider, models)
    return gate


def listed(gate: Gateway) -> list[dict[str, Any]]:
    """The entries of the list, which keeps to the contract."""
    response = gate.client.get("/v1/models")
    assert response.status_code == 200
    Models.model_validate_json(response.data)
    assert response.json is not None
    entries: list[dict[str, Any]] = response.json["data"]
    return entries


class TestTheList:
    """Every name in it can be asked for."""

    def test_tiers_come_first_then_each_provider_in_turn(self) -> None:
        """In OpenAI's shape, with what is our own in ``chatd``."""
        assert listed(made()) == [
            {
                "id": "fast",
                "object": "model",
                "created": 1_790_000_000,
                "owned_by": "chatd",
                "chatd": {"tier": True, "model": "qwen3:8b"},
            },
            {
                "id": "strong",
                "object": "model",
                "created": 1_770_000_000,
                "owned_by": "chatd",
                "chatd": {"tier": True, "model": "kimi/k3"},
            },
            *(
                {"id": name, "object": "model", "created": created, "owned_by": owner}
                for name, created, owner in (
                    ("qwen3:8b", 1_790_000_000, "ollama"),
                    ("llama3.2:latest", 1_780_000_000, "ollama"),
                    ("ollama/kimi/k3:latest", 0, "ollama"),
                    ("openrouter/auto", 0, "openrouter"),
                    ("openrouter/openai/gpt-4o-mini:free", 5, "openrouter"),
                    ("kimi/k3", 1_770_000_000, "kimi"),
                )
            ),
        ]

    def test_every_name_is_accepted_by_a_chat_and_found_by_itself(self) -> None:
        """None leads to another provider than the one that lists it."""
        gate = made(weak_models=("gpt-oss:20b", "fast"))
        for entry in listed(gate):
            body = {"model": entry["id"], "messages": [{"role": "user", "content": "hello"}]}
            job = gate.client.post("/v1/jobs", json=body)
            alone = gate.client.get(f"/v1/models/{quote(entry['id'])}")

            assert job.status_code == 202, entry
            assert job.json is not None
            assert entry["owned_by"] in {"chatd", job.json["provider"]}
            assert alone.json == entry

    def test_the_longest_name_is_accepted_and_a_longer_one_is_not_listed(self) -> None:
        """What a request cannot say is no name."""
        longest = "m" * (LONGEST_NAME - len("kimi/"))
        gate = made(lists={"kimi": (ListedModel(longest), ListedModel(longest + "m"))})
        names = [entry["id"] for entry in listed(gate)]
        body = {"model": names[-1], "messages": [{"role": "user", "content": "hello"}]}
        longer = {**body, "model": f"{names[-1]}m"}

        assert names == ["fast", "strong", f"kimi/{longest}"]
        assert gate.client.post("/v1/jobs", json=body).status_code == 202
        assert gate.client.post("/v1/jobs", json=longer).status_code == 400

    def test_it_says_when_each_list_was_fetched(self) -> None:
        """As RFC 3339; null for a provider that has no list."""
        gate = made()
        response = gate.client.get("/v1/models").json
        assert response is not None
        lists = response["chatd"]["lists"]
        moments = {name: datetime.fromisoformat(lists[name]) for name in LISTS}

        assert list(lists) == list(PROVIDERS)
        assert lists["ollama_cloud"] is None
        assert all(moment.tzinfo is not None for moment in moments.values())

    def test_without_any_list_the_tiers_remain(self) -> None:
        """Before the first fetch, and where fetching is switched off."""
        gate = made(lists={})

        assert [entry["id"] for entry in listed(gate)] == ["fast", "strong"]
        assert [entry["created"] for entry in listed(gate)] == [0, 0]

    def test_without_providers_it_is_empty(self) -> None:
        """And Redis is not asked for nothing."""
        assert listed(made(names=registered_names(models=TIERS), lists={})) == []

    def test_what_a_provider_without_key_listed_once_is_not_shown(self) -> None:
        """Its list may be there for a day; nobody could use it."""
        gate = made(names=registered_names("ollama"))

        assert {entry["owned_by"] for entry in listed(gate)} == {"ollama"}

    def test_models_that_the_daemon_forwards_are_listed_where_they_are_allowed(self) -> None:
        """``allow_local_cloud``: a chat with them is accepted then."""
        names = registered_names("ollama", allow_local_cloud=True)

        assert "gpt-oss:120b-cloud" in [entry["id"] for entry in listed(made(names=names))]

    def test_without_redis_it_is_an_error(self) -> None:
        """An empty list would look like an answer."""
        gate = made()
        server = fakeredis.FakeServer()
        server.connected = False
        gate.catalogue._redis = fakeredis.FakeRedis(server=server, decode_responses=True)
        response = gate.client.get("/v1/models")

        assert response.status_code == 503
        ErrorAnswer.model_validate_json(response.data)


class TestWeakModels:
    """``weak_models`` are listed, and marked."""

    def test_a_listed_model_is_marked_however_it_is_written(self) -> None:
        """So are the tiers that stand for it; nothing is listed twice."""
        gate = made(weak_models=("ollama/qwen3:8b", "llama3.2"))
        entries = {entry["id"]: entry.get("chatd") for entry in listed(gate)}

        assert entries["fast"] == {"tier": True, "model": "qwen3:8b", "weak": True}
        assert entries["qwen3:8b"] == {"weak": True}
        assert entries["llama3.2:latest"] == {"weak": True}
        assert entries["kimi/k3"] is None
        assert not {"ollama/qwen3:8b", "llama3.2"} & set(entries)

    def test_a_tier_may_be_one(self) -> None:
        """Then the model it stands for is as weak."""
        entries = {entry["id"]: entry for entry in listed(made(weak_models=("strong",)))}

        assert entries["strong"]["chatd"]["weak"] is True
        assert entries["kimi/k3"]["chatd"] == {"weak": True}

    def test_one_that_no_list_has_comes_last(self) -> None:
        """The configuration knows it; one of a provider that is not registered stays out."""
        weak = ("gpt-oss:20b", "gpt-oss:20b:cloud", "opencode/big-pickle")
        entries = listed(made(weak_models=weak))

        assert entries[-2:] == [
            {
                "id": name,
                "object": "model",
                "created": 0,
                "owned_by": owner,
                "chatd": {"weak": True},
            }
            for name, owner in (("gpt-oss:20b", "ollama"), ("gpt-oss:20b:cloud", "ollama_cloud"))
        ]
        assert "opencode" not in {entry["owned_by"] for entry in entries}


class TestOneModel:
    """An entry is found by every name that leads to its model."""

    @pytest.mark.parametrize(
        ("name", "owner", "created"),
        [
            pytest.param("qwen3:8b", "ollama", 1_790_000_000, id="as it is listed"),
            pytest.param("ollama/qwen3:8b", "ollama", 1_790_000_000, id="with a prefix"),
            pytest.param("llama3.2", "ollama", 1_780_000_000, id="without its tag"),
            pytest.param("openrouter/openai/gpt-4o-mini:free", "openrouter", 5, id="slashes"),
            pytest.param("openrouter/openrouter/auto", "openrouter", 0, id="prefix twice"),
            pytest.param("strong", "chatd", 1_770_000_000, id="a tier"),
        ],
    )
    def test_it_is_answered_under_the_name_that_was_asked(
        self, name: str, owner: str, created: int
    ) -> None:
        """As an answer to a chat has the model as asked."""
        response = made().client.get(f"/v1/models/{name}")

        assert response.status_code == 200
        ModelAnswer.model_validate_json(response.data)
        assert response.json is not None
        assert (response.json["id"], response.json["owned_by"]) == (name, owner)
        assert response.json["created"] == created

    def test_slashes_may_be_escaped(self) -> None:
        """Clients do either."""
        client = made().client
        plain = client.get("/v1/models/openrouter/openai/gpt-4o-mini:free")
        escaped = client.get("/v1/models/openrouter%2Fopenai%2Fgpt-4o-mini%3Afree")

        assert plain.status_code == escaped.status_code == 200
        assert plain.json == escaped.json

    @pytest.mark.parametrize(
        ("name", "status", "code", "words"),
        [
            pytest.param(
                "nobody/knows", 404, "model_not_found", "does not have it", id="in no list"
            ),
            pytest.param(
                "glm-5.2:cloud", 404, "model_not_found", "no list of it is there", id="no list"
            ),
            pytest.param(
                "opencode/glm-5.2",
                404,
                "provider_not_registered",
                "set OPENCODE_KEY",
                id="no provider",
            ),
            pytest.param(
                "elsewhere", 404, "provider_not_registered", "set OPENCODE_KEY", id="tier of none"
            ),
            pytest.param(
                "gpt-oss:120b-cloud", 400, "invalid_request", "allow_local_cloud", id="refused"
            ),
            pytest.param("kimi/", 400, "invalid_request", "names no model", id="no model left"),
        ],
    )
    def test_any_other_is_refused_in_openais_shape(
        self, name: str, status: int, code: str, words: str
    ) -> None:
        """A model that stands in no list is not found; a bad name is told as a chat tells it."""
        response = made().client.get(f"/v1/models/{name}")

        assert response.status_code == status
        error = ErrorAnswer.model_validate_json(response.data).error
        assert (error.code, error.param) == (code, "model")
        assert error.type == "invalid_request_error"
        assert words in error.message

    def test_the_message_shows_nothing_that_cannot_be_printed(self) -> None:
        """A path may hold anything, of any length."""
        response = made().client.get(f"/v1/models/%1b[31m{'x' * 5000}")

        assert response.status_code == 404
        assert "\x1b" not in response.text
        assert len(response.text) < 1000
