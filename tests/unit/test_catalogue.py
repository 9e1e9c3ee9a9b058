"""The catalogue: what Redis keeps of the providers' lists, and the name each model is asked by."""

from __future__ import annotations

import json
from typing import cast

import fakeredis
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from chat.catalogue import LONGEST_NAME, Catalogue, ListedModel, name_of, tagged
from chat.errors import QueueUnavailable
from chat.routing import PROVIDERS, Route, resolve

MODELS = (ListedModel("qwen3:8b", 1_790_000_000), ListedModel("hf.co/user/Größe:Q4"))


@pytest.fixture
def client() -> redis.Redis:
    """A server of its own, empty."""
    return fakeredis.FakeRedis(decode_responses=True)


def now_ms(client: redis.Redis) -> int:
    """The time as Redis has it."""
    seconds, micros = client.time()
    return seconds * 1000 + micros // 1000


class TestWhatRedisKeeps:
    """One key per provider, with the time of its fetch."""

    def test_a_list_is_read_as_it_was_kept(self, client: redis.Redis) -> None:
        """In the same order, with the time that Redis had."""
        catalogue = Catalogue(client)
        before = now_ms(client)
        catalogue.keep("ollama", MODELS)
        after = now_ms(client)
        lists = catalogue.lists(["ollama", "kimi"])

        assert lists["kimi"] is None
        assert lists["ollama"] is not None
        assert lists["ollama"].models == MODELS
        assert before <= lists["ollama"].fetched_at <= after

    def test_a_list_replaces_the_one_before(self, client: redis.Redis) -> None:
        """Models that are gone are not kept, and an empty list is a list."""
        catalogue = Catalogue(client)
        catalogue.keep("ollama", MODELS)
        catalogue.keep("ollama", ())
        found = catalogue.lists(["ollama"])["ollama"]

        assert found is not None
        assert found.models == ()

    def test_it_is_one_key_that_goes_by_itself(self, client: redis.Redis) -> None:
        """A provider whose worker never comes back is not listed for ever."""
        Catalogue(client).keep("kimi", MODELS)

        assert client.keys("*") == ["models:kimi"]
        assert 0 < client.ttl("models:kimi") <= 86_400
        text = cast("str", client.get("models:kimi"))
        assert json.loads(text)["models"] == [
            ["qwen3:8b", 1_790_000_000],
            ["hf.co/user/Größe:Q4", 0],
        ]

    def test_without_providers_nothing_is_asked(self) -> None:
        """MGET without keys would be an error of Redis."""
        server = fakeredis.FakeServer()
        server.connected = False

        assert Catalogue(fakeredis.FakeRedis(server=server)).lists([]) == {}

    def test_trouble_with_redis_is_told_as_such(self) -> None:
        """Both ways."""
        server = fakeredis.FakeServer()
        server.connected = False
        catalogue = Catalogue(fakeredis.FakeRedis(server=server, decode_responses=True))

        with pytest.raises(QueueUnavailable):
            catalogue.lists(["ollama"])
        with pytest.raises(QueueUnavailable):
            catalogue.keep("ollama", MODELS)


class TestNames:
    """A listed model has the name that leads to it, or none."""

    @pytest.mark.parametrize(
        ("provider", "model", "name"),
        [
            pytest.param("ollama", "qwen3:8b", "qwen3:8b", id="local: bare"),
            pytest.param(
                "ollama", "hf.co/user/m:Q4_K_M", "hf.co/user/m:Q4_K_M", id="local with slashes"
            ),
            pytest.param(
                "ollama", "kimi/k3:latest", "ollama/kimi/k3:latest", id="local, disguised"
            ),
            pytest.param("ollama", "fast", "ollama/fast", id="local, hidden by a tier"),
            pytest.param("ollama", "gpt-oss:120b-cloud", None, id="forwarded by the daemon"),
            pytest.param("ollama", "glm-5.2:cloud", None, id="forwarded, other spelling"),
            pytest.param("ollama_cloud", "gpt-oss:120b", "ollama_cloud/gpt-oss:120b", id="cloud"),
            pytest.param(
                "openrouter", "openai/gpt-4o-mini", "openrouter/openai/gpt-4o-mini", id="router"
            ),
            pytest.param("openrouter", "openrouter/auto", "openrouter/auto", id="router's own"),
            pytest.param("openrouter", "x/y:cloud", "openrouter/x/y:cloud", id="router, :cloud"),
            pytest.param("openrouter", "auto", None, id="router without a vendor"),
            pytest.param("opencode", "glm-5.2", "opencode/glm-5.2", id="zen"),
            pytest.param("opencode", "opencode-go/glm-5.2", "opencode-go/glm-5.2", id="go"),
            pytest.param("kimi", "fast", "kimi/fast", id="a tier's name elsewhere"),
            pytest.param("kimi", "k" * LONGEST_NAME, None, id="too long with its prefix"),
        ],
    )
    def test_the_name_leads_to_the_model(self, provider: str, model: str, name: str | None) -> None:
        """Bare where that is enough, with the prefix where it is not."""
        assert name_of(Route(provider, model), {"fast": f"{provider}/{model}"}) == name

    @pytest.mark.parametrize(
        ("model", "name"),
        [("gpt-oss:120b-cloud", "gpt-oss:120b-cloud"), ("glm-5.2:cloud", "ollama/glm-5.2:cloud")],
    )
    def test_forwarded_models_have_names_where_they_are_allowed(
        self, model: str, name: str
    ) -> None:
        """``allow_local_cloud`` lets them by; bare, ``:cloud`` leads to Ollama Cloud."""
        assert name_of(Route("ollama", model), {}, allow_local_cloud=True) == name

    @given(
        st.sampled_from(PROVIDERS),
        st.lists(
            st.sampled_from(
                [
                    "a",
                    "b:1",
                    ":cloud",
                    "-cloud",
                    ":",
                    "/",
                    " ",
                    "fast",
                    "opencode-go/",
                    "openrouter",
                ]
            ),
            min_size=1,
            max_size=5,
        ),
        st.booleans(),
    )
    def test_no_name_leads_elsewhere(
        self,
        provider: str,
        parts: list[str],
        allow_local_cloud: bool,  # noqa: FBT001
    ) -> None:
        """Whatever a provider lists."""
        route, tiers = Route(provider, "".join(parts)), {"fast": "kimi/k3"}
        name = name_of(route, tiers, allow_local_cloud=allow_local_cloud)

        assert name is None or resolve(name, tiers, allow_local_cloud=allow_local_cloud) == route

    @pytest.mark.parametrize(
        ("provider", "model", "expected"),
        [
            pytest.param("ollama", "llama3.2", "llama3.2:latest", id="no tag"),
            pytest.param("ollama", "llama3.2:3b", "llama3.2:3b", id="a tag"),
            pytest.param("ollama", "host:5000/team/m", "host:5000/team/m:latest", id="a port"),
            pytest.param("ollama_cloud", "glm-5.2", "glm-5.2", id="ollama.com lists without tags"),
            pytest.param("kimi", "k3", "k3", id="another provider"),
        ],
    )
    def test_local_ollama_takes_a_tag_that_is_not_written(
        self, provider: str, model: str, expected: str
    ) -> None:
        """So that both ways to write a model are the same one."""
        assert tagged(Route(provider, model)) == Route(provider, expected)
