"""Which budget a call uses, what it may cost, and what the scripts are told of a provider."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.budget import Budget, budget_of, estimated_tokens, limits_of, settings_of
from chat.config import ChatdConfig
from chat.settings import LimitConfig
from chat.types import ChatRequest, Message, Role

PROVIDERS = ChatdConfig().providers
OPENROUTER = PROVIDERS["openrouter"]


def a_request(*texts: str, **changes: object) -> ChatRequest:
    """A request of these user messages."""
    request = ChatRequest("m", tuple(Message(Role.USER, text) for text in texts))
    return replace(request, **changes)  # type: ignore[arg-type]  # what is changed is tested here


# -- which budget


@pytest.mark.parametrize(
    ("provider", "model", "budget"),
    [
        pytest.param("ollama", "qwen3:8b", Budget("ollama:*", "*"), id="one-for-everything"),
        pytest.param("kimi", "k2", Budget("kimi:*", "*"), id="kimi-too"),
        pytest.param(
            "openrouter",
            "qwen/qwen3:free",
            Budget("openrouter:*:free", "*:free"),
            id="free-models-share-one",
        ),
        pytest.param(
            "openrouter",
            "openai/gpt-5",
            Budget("openrouter:openai/gpt-5", "*"),
            id="each-paid-model-has-its-own",
        ),
        pytest.param(
            "opencode",
            "opencode-go/glm-5",
            Budget("opencode:opencode-go/*", "opencode-go/*"),
            id="go-shares-one",
        ),
        pytest.param(
            "opencode", "grok-free", Budget("opencode:*-free", "*-free"), id="free-ones-of-zen"
        ),
        pytest.param(
            "opencode",
            "opencode-go/big-free",
            Budget("opencode:opencode-go/*", "opencode-go/*"),
            id="the-first-that-fits-counts",
        ),
        pytest.param(
            "openrouter",
            "a/B:FREE",
            Budget("openrouter:a/B:FREE", "*"),
            id="capitals-are-not-small-letters",
        ),
    ],
)
def test_a_model_has_one_budget(provider, model, budget):
    """The first limit that fits decides; `per_model` gives each of its models one."""
    assert budget_of(PROVIDERS[provider], model) == budget


def test_limits_of_the_file_come_before_the_published_ones():
    """A person knows the account; we know only what the documentation says."""
    own = LimitConfig(match="*:free", requests_per_minute=5, requests_per_day=1000)
    provider = replace(PROVIDERS["openrouter"], limits=(own,))

    assert limits_of(provider)[0] is own
    assert json.loads(settings_of_provider(provider)["limit:*:free"])["rpm"] == 5


def test_every_model_fits_a_limit():
    """What no other limit fits shares one that allows everything."""
    provider = replace(PROVIDERS["ollama"], limits=(LimitConfig(match="big-*"),))

    assert [limit.match for limit in limits_of(provider)] == ["big-*", "*"]
    assert budget_of(provider, "small") == Budget("ollama:*", "*")


def test_a_limit_for_everything_is_not_followed_by_another():
    """Nothing would ever reach it."""
    own = LimitConfig(match="*", requests_per_minute=9)
    provider = replace(PROVIDERS["ollama"], limits=(own,))

    assert limits_of(provider) == (own,)


@given(model=st.text(min_size=1))
def test_every_model_of_every_provider_has_a_budget(model):
    """Whatever somebody calls a model; its name begins with that of the provider."""
    for provider in PROVIDERS.values():
        budget = budget_of(provider, model)

        assert budget.name.startswith(f"{provider.name}:")
        assert budget.match in {limit.match for limit in limits_of(provider)}


# -- what a call may cost


@pytest.mark.parametrize(
    ("request_", "tokens"),
    [
        pytest.param(a_request(""), 512, id="an-answer-of-usual-length"),
        pytest.param(a_request("x" * 400), 612, id="four-characters-a-token"),
        pytest.param(a_request("x" * 400, "x" * 400), 712, id="all-messages"),
        pytest.param(a_request("x" * 400, max_tokens=10), 110, id="the-most-that-was-asked-for"),
        pytest.param(a_request("xx", "x", "x"), 513, id="messages-are-counted-together"),
        pytest.param(
            ChatRequest("m", (Message(Role.USER, "", images=("a", "b")),)),
            2512,
            id="a-thousand-for-an-image",
        ),
    ],
)
def test_tokens_are_estimated_from_the_request(request_, tokens):
    """Until the answer says how many it were."""
    assert estimated_tokens(request_) == tokens


# -- what the scripts are told


def settings_of_provider(provider):
    """What the scripts would be told of this provider."""
    config = ChatdConfig()
    providers = {**config.providers, provider.name: provider}
    return settings_of(replace(config, providers=providers), provider.name)


def test_the_settings_of_a_provider():
    """One field for all its calls, one for each limit; only numbers that are there."""
    fields = {name: json.loads(text) for name, text in settings_of_provider(OPENROUTER).items()}

    assert fields == {
        "provider": {"permits": 16, "share": 0.7, "turn": 10, "max_wait": 60_000, "reserve": 0.1},
        "limit:*:free": {"rpm": 20, "learn": True},
        "limit:*": {"learn": True},
    }


@pytest.mark.parametrize(
    ("share", "turn"),
    [
        pytest.param(0.1, 10, id="a-tenth"),
        pytest.param(0.3, 3, id="three-tenths"),
        pytest.param(1.0, 1, id="each-grant"),
        pytest.param(0.0, 0, id="never"),
    ],
)
def test_the_least_share_is_a_turn(share, turn):
    """Each how many-th grant is batch's once its oldest job has waited long enough."""
    fields = settings_of(ChatdConfig(batch_min_share=share, max_batch_wait_s=1.5), "ollama")

    assert json.loads(fields["provider"])["turn"] == turn
    assert json.loads(fields["provider"])["max_wait"] == 1500


def test_all_numbers_of_a_limit_are_told():
    """And that nothing is to be learned."""
    limit = LimitConfig(
        match="*", requests_per_minute=1, requests_per_day=2, tokens_per_minute=3, per_model=True
    )
    fields = settings_of_provider(replace(OPENROUTER, limits=(limit,), known=(), learn=False))

    assert json.loads(fields["limit:*"]) == {"rpm": 1, "rpd": 2, "tpm": 3, "learn": False}


def test_of_two_limits_with_one_pattern_the_first_counts():
    """As for the budget itself."""
    limits = tuple(LimitConfig(match="*", requests_per_minute=rpm) for rpm in (1, 2))
    fields = settings_of_provider(replace(OPENROUTER, limits=limits))

    assert json.loads(fields["limit:*"])["rpm"] == 1
