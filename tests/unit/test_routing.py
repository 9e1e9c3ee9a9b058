"""Routing: which provider a model name asks, and for which id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.errors import InvalidRequest
from chat.routing import PROVIDERS, Route, quoted, resolve

CASES: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("model_ids.json").read_text(encoding="utf-8")
)["cases"]


def decision(model: str) -> dict[str, str]:
    """What ``resolve`` makes of ``model``, in the form of the table."""
    try:
        route = resolve(model)
    except InvalidRequest as error:
        return {"error": error.code}
    return {"provider": route.provider, "upstream_id": route.model}


@pytest.mark.parametrize("case", CASES, ids=[case["in"] or "(empty)" for case in CASES])
def test_each_name_of_the_table_goes_where_it_says(case: dict[str, Any]) -> None:
    """The table has real ids of all five providers, and those that break naive rules."""
    expected = {key: value for key, value in case["decision"].items() if key != "suggests"}

    assert decision(case["in"]) == expected


def test_the_table_gives_a_reason_for_each_difference() -> None:
    """A decision other than that of prefix, suffix, default is explained, and no other is."""
    plain = [
        case
        for case in CASES
        if case["decision"] == {"provider": case["rule"], "upstream_id": case["upstream_id"]}
    ]

    assert len(CASES) == 36
    assert all("reason" not in case for case in plain)
    assert all(case["reason"] for case in CASES if case not in plain)


@pytest.mark.parametrize(
    ("model", "route"),
    [
        pytest.param("openrouter/free", Route("openrouter", "openrouter/free"), id="free router"),
        pytest.param(
            "openrouter/auto:online", Route("openrouter", "openrouter/auto:online"), id="variant"
        ),
        pytest.param("kimi/a/b:c", Route("kimi", "a/b:c"), id="slashes after a prefix stay"),
        pytest.param("kimi/k3:cloud", Route("kimi", "k3:cloud"), id="a prefix beats the suffix"),
        pytest.param("x:CLOUD", Route("ollama_cloud", "x"), id="upper-case suffix"),
        pytest.param("x:cloud:cloud", Route("ollama_cloud", "x:cloud"), id="one suffix comes off"),
        pytest.param("ollama_cloud/x:Cloud", Route("ollama_cloud", "x"), id="prefix and suffix"),
        pytest.param("user/x:cloud", Route("ollama_cloud", "user/x"), id="suffix after a slash"),
        pytest.param("ollama/ollama/x", Route("ollama", "ollama/x"), id="one prefix comes off"),
        pytest.param(
            "ollama_cloud", Route("ollama", "ollama_cloud"), id="a prefix needs its slash"
        ),
        pytest.param(
            "opencode-go/a/b", Route("opencode", "opencode-go/a/b"), id="go is kept whole"
        ),
        pytest.param("my-cloud", Route("ollama", "my-cloud"), id="-cloud in a name, not a tag"),
        pytest.param("x:clouds", Route("ollama", "x:clouds"), id="a tag that only begins so"),
        pytest.param("h:5/x-cloud", Route("ollama", "h:5/x-cloud"), id="-cloud behind a slash"),
    ],
)
def test_a_name_goes_where_its_form_says(model: str, route: Route) -> None:
    """Prefix, then suffix, then local Ollama."""
    assert resolve(model) == route


@pytest.mark.parametrize(
    "model",
    [
        *("", " ", " x", "x\n", ":cloud", ":CLOUD", "x :cloud"),
        *("ollama/", "ollama/:cloud", "ollama/:x-cloud", "ollama_cloud/", "ollama_cloud/:cloud"),
        *("openrouter/", "opencode/", "opencode-go/", "opencode-go/ x", "kimi/", "kimi/ k3"),
    ],
)
def test_a_name_that_names_nothing_is_refused(model: str) -> None:
    """Empty names, also behind a prefix or before a suffix, and names with space around them."""
    with pytest.raises(InvalidRequest) as caught:
        resolve(model)

    assert caught.value.param == "model"
    assert quoted(model) in caught.value.message


class TestLocalCloud:
    """Ids that a local daemon would forward to ollama.com and have billed there."""

    @pytest.mark.parametrize(
        ("model", "instead"),
        [
            pytest.param("ollama/x:cloud", "x:cloud", id="suffix"),
            pytest.param("ollama/x:20b:Cloud", "x:20b:cloud", id="suffix after a tag"),
            pytest.param("x:120b-cloud", "x:120b:cloud", id="tag"),
            pytest.param("ollama/x:120B-CLOUD", "x:120B:cloud", id="upper-case tag"),
            pytest.param("x:-cloud", "x:cloud", id="nothing but the ending"),
            pytest.param("x: cloud", "x:cloud", id="space, which the daemon trims"),
            pytest.param("h:5000/u/x:v1-cloud", "h:5000/u/x:v1:cloud", id="after a port"),
        ],
    )
    def test_it_is_refused_with_the_way_to_ask_for_the_cloud(
        self, model: str, instead: str
    ) -> None:
        """The message has an id that does go to Ollama Cloud."""
        with pytest.raises(InvalidRequest) as caught:
            resolve(model)

        assert f'ask Ollama Cloud for "{instead}"' in caught.value.message
        assert "allow_local_cloud = true" in caught.value.message
        assert resolve(instead).provider == "ollama_cloud"

    @pytest.mark.parametrize(
        ("model", "instead"),
        [
            (case["in"], case["decision"]["suggests"])
            for case in CASES
            if "suggests" in case["decision"]
        ],
    )
    def test_the_table_suggests_the_same(self, model: str, instead: str) -> None:
        """The ids of the table as well."""
        with pytest.raises(InvalidRequest) as caught:
            resolve(model)

        assert f'"{instead}"' in caught.value.message

    @pytest.mark.parametrize("model", ["ollama/x:cloud", "ollama/x:120b-cloud"])
    def test_it_may_be_allowed(self, model: str) -> None:
        """With ``allow_local_cloud`` the id reaches the daemon as it is."""
        route = resolve(model, allow_local_cloud=True)

        assert route == Route("ollama", model.removeprefix("ollama/"))


class TestTiers:
    """A tier stands for a model id, wherever a model is asked for."""

    @pytest.mark.parametrize(
        ("value", "route"),
        [
            pytest.param("qwen3:8b", Route("ollama", "qwen3:8b"), id="local"),
            pytest.param("x:cloud", Route("ollama_cloud", "x"), id="cloud"),
            pytest.param("kimi/k3", Route("kimi", "k3"), id="prefix"),
        ],
    )
    def test_it_is_looked_up_first(self, value: str, route: Route) -> None:
        """Its value is routed like any model."""
        assert resolve("strong", {"strong": value}) == route

    def test_it_is_looked_up_once(self) -> None:
        """A value is a model id, even if a tier has the same name."""
        assert resolve("a", {"a": "b", "b": "kimi/k3"}) == Route("ollama", "b")

    def test_a_prefix_reaches_the_model_of_the_same_name(self) -> None:
        """A tier hides a bare local name; behind ``ollama/`` the model is there."""
        assert resolve("ollama/a", {"a": "kimi/k3"}) == Route("ollama", "a")


def test_a_long_name_is_cut_in_messages() -> None:
    """A message stays short whatever was asked for, and control characters are escaped."""
    assert len(quoted("x" * 10_000)) < 130
    assert quoted("a\nb") == '"a\\nb"'


@settings(deadline=None)
@given(st.text())
def test_every_name_has_a_route_or_is_refused(model: str) -> None:
    """No name crashes it, and no route is empty."""
    try:
        route = resolve(model)
    except InvalidRequest:
        return

    assert route.provider in PROVIDERS
    assert route.model
    assert route.model == route.model.strip()


@settings(deadline=None)
@given(st.from_regex(r"[a-z0-9]([a-z0-9./:_-]*[a-z0-9])?", fullmatch=True))
def test_a_prefix_always_decides(rest: str) -> None:
    """Whatever stands behind ``kimi/`` goes to Kimi, unchanged."""
    assert resolve(f"kimi/{rest}") == Route("kimi", rest)
