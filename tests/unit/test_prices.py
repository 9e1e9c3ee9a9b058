"""Prices: what a call costs by the table, and where the figure goes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.builder import build_registry
from chat.config import ChatdConfig, PriceConfig, load_config
from chat.errors import ConfigError
from chat.prices import cost_of
from chat.registry import Registry, Route
from chat.types import Cancelled, ChatRequest, ChatResponse, Deadline, FinishReason, Message, Role

SHIPPED = Path(__file__).parents[2] / "lakehouse.toml"

Load = Callable[[str], ChatdConfig]


def price(match: str, per_input: float = 1, per_output: float = 1, per_call: float = 0):
    """A price, of a dollar for a million tokens unless it says otherwise."""
    return PriceConfig(
        match=match,
        input_per_million_usd=per_input,
        output_per_million_usd=per_output,
        per_call_usd=per_call,
    )


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a configuration from text."""

    def load(text: str) -> ChatdConfig:
        file = tmp_path / "chatd.toml"
        file.write_text(text, encoding="utf-8")
        return load_config(file, {})

    return load


class TestCost:
    """The first price that fits, times the tokens."""

    def test_input_output_and_call_are_added(self) -> None:
        """Each has its own price."""
        cost = cost_of([price("kimi/*", 0.95, 4, 0.01)], "kimi", "k3", 2_000_000, 500_000)

        assert cost == 3.91

    @pytest.mark.parametrize(
        ("per_input", "tokens", "cost"),
        [
            pytest.param(0.02, 1, 2e-08, id="one cheap token"),
            pytest.param(0.1, 3, 3e-07, id="no dust of binary fractions"),
            pytest.param(0.0004, 1, 0.0, id="less than a billionth"),
            pytest.param(3, 0, 0.0, id="no tokens"),
        ],
    )
    def test_it_is_rounded_to_a_billionth_of_a_dollar(
        self, per_input: float, tokens: int, cost: float
    ) -> None:
        """Enough for a single token, and short to read."""
        assert cost_of([price("*", per_input)], "kimi", "k3", tokens, 0) == cost

    @pytest.mark.parametrize(
        ("provider", "model", "cost"),
        [
            pytest.param("openrouter", "anthropic/claude-sonnet-4.5", 1.0, id="first of two"),
            pytest.param("openrouter", "openai/gpt-5.2", 2.0, id="second"),
            pytest.param("openrouter", "openrouter/auto", 7.0, id="its own id has the prefix"),
            pytest.param("opencode", "glm-5.2", 3.0, id="zen"),
            pytest.param("opencode", "opencode-go/glm-5.2", 4.0, id="go"),
            pytest.param("ollama_cloud", "gpt-oss:120b", 5.0, id="cloud"),
            pytest.param("ollama", "openrouter/anthropic/x", 6.0, id="a local namesake"),
            pytest.param("ollama", "qwen3:8b", None, id="local without a price"),
            pytest.param("kimi", "K3", None, id="letter case counts"),
        ],
    )
    def test_the_first_match_counts(self, provider: str, model: str, cost: float | None) -> None:
        """Patterns are held against the name that one asks for, with its prefix."""
        prices = [
            price("openrouter/anthropic/*", 1),
            price("openrouter/auto", 7),
            price("openrouter/*", 2),
            price("opencode/*", 3),
            price("opencode-go/*", 4),
            price("*_cloud/gpt-oss:*", 5),
            price("ollama/openrouter/*", 6),
            price("kimi/k3", 8),
        ]

        assert cost_of(prices, provider, model, 1_000_000, 0) == cost

    @pytest.mark.parametrize("counts", [(None, 1), (1, None), (None, None)])
    def test_without_both_counts_there_is_no_figure(
        self, counts: tuple[int | None, int | None]
    ) -> None:
        """Half a cost would look like a whole one."""
        assert cost_of([price("*", per_call=1)], "kimi", "k3", *counts) is None

    @given(st.integers(0, 2**53), st.integers(0, 2**53), st.floats(0, 1e6), st.floats(0, 1e6))
    def test_it_is_an_amount_whatever_the_counts(
        self, given_in: int, out: int, per_input: float, per_output: float
    ) -> None:
        """Never negative, never infinite, and no less for more tokens."""
        prices = [price("*", per_input, per_output)]
        cost = cost_of(prices, "kimi", "k3", given_in, out)
        more = cost_of(prices, "kimi", "k3", given_in + 1_000_000, out)

        assert cost is not None
        assert more is not None
        assert 0 <= cost <= more < float("inf")


class TestConfiguration:
    """``[[chatd.prices]]`` is read and checked like every other table."""

    def test_prices_arrive_in_their_order(self, load: Load) -> None:
        """Whole numbers will do, and the price of a call may be left out."""
        config = load("""
            [[chatd.prices]]
            match = "openrouter/anthropic/*"
            input_per_million_usd = 3
            output_per_million_usd = 15.0
            [[chatd.prices]]
            match = "*"
            input_per_million_usd = 0
            output_per_million_usd = 0
            per_call_usd = 0.002
        """)

        assert config.prices == (price("openrouter/anthropic/*", 3, 15), price("*", 0, 0, 0.002))

    def test_without_any_there_are_none(self, load: Load) -> None:
        """Nothing is priced unasked."""
        assert load("").prices == ()

    @pytest.mark.parametrize(
        ("lines", "words"),
        [
            pytest.param(
                "input_per_million_usd = 1\noutput_per_million_usd = 1",
                "match is missing or empty",
                id="no match",
            ),
            pytest.param(
                "match = 'gpt-4o'\ninput_per_million_usd = 1\noutput_per_million_usd = 1",
                'match = "gpt-4o" fits no model of any provider; begin it with ollama/, ',
                id="no provider",
            ),
            pytest.param(
                "match = 'openruoter/*'\ninput_per_million_usd = 1\noutput_per_million_usd = 1",
                "fits no model of any provider",
                id="misspelt provider",
            ),
            pytest.param(
                "match = 'kimi/*'\noutput_per_million_usd = 1",
                "input_per_million_usd is missing; write US dollars",
                id="no price of input",
            ),
            pytest.param(
                "match = 'kimi/*'\ninput_per_million_usd = 1",
                "output_per_million_usd is missing; write US dollars",
                id="no price of output",
            ),
            pytest.param(
                "match = 'kimi/*'\ninput_per_million_usd = -1\noutput_per_million_usd = 1",
                "input_per_million_usd = -1 is not an amount of US dollars, 0 to 1000000; write",
                id="negative",
            ),
            pytest.param(
                "match = 'kimi/*'\ninput_per_million_usd = '1'\noutput_per_million_usd = 1",
                'input_per_million_usd = "1" is not an amount',
                id="text",
            ),
            pytest.param(
                "match = 'kimi/*'\ninput_per_million_usd = true\noutput_per_million_usd = 1",
                "is not an amount",
                id="a flag",
            ),
            pytest.param(
                "match = 'kimi/*'\ninput_per_million_usd = 1\noutput_per_million_usd = nan",
                "is not an amount",
                id="no number",
            ),
            pytest.param(
                "match = 'kimi/*'\ninput_per_million_usd = inf\noutput_per_million_usd = 1",
                "is not an amount",
                id="infinite",
            ),
            pytest.param(
                "match = 'kimi/*'\ninput_per_milion_usd = 1\noutput_per_million_usd = 1",
                'there is no key "input_per_milion_usd" here; did you mean input_per_million_usd?',
                id="misspelt",
            ),
        ],
    )
    def test_a_price_that_breaks_a_rule_is_refused(
        self, load: Load, lines: str, words: str
    ) -> None:
        """With file, table, key, value, rule and way out."""
        with pytest.raises(ConfigError) as caught:
            load(f"[[chatd.prices]]\n{lines}")

        assert "chatd.toml: [chatd.prices]: " in str(caught.value)
        assert words in str(caught.value)

    @pytest.mark.parametrize(
        "match", ["*", "open*", "openrouter/*", "[ok]*", "opencode-go/glm-*", "?imi/k3", "kimi/k3"]
    )
    def test_every_pattern_that_can_fit_is_taken(self, load: Load, match: str) -> None:
        """Wildcards may stand anywhere."""
        numbers = "input_per_million_usd = 1\noutput_per_million_usd = 1"

        assert load(f"[[chatd.prices]]\nmatch = '{match}'\n{numbers}").prices == (price(match),)

    def test_the_shipped_file_shows_every_key(self, load: Load) -> None:
        """In an example behind ``#``, which is valid."""
        text = re.sub(r"^#(?=\S)", "", SHIPPED.read_text(encoding="utf-8"), flags=re.MULTILINE)
        [shown] = tomllib.loads(text)["chatd"]["prices"]

        assert set(shown) == {field.name for field in fields(PriceConfig)}
        assert load(text).prices == (PriceConfig(**shown),)


class Answering:
    """A provider with one answer."""

    name = "kimi"

    def __init__(self, response: ChatResponse) -> None:
        self.response = response

    def chat(self, *_: object, **__: object) -> ChatResponse:
        return self.response


class TestWhereItGoes:
    """The registry puts the figure into the answer, of which the record and a batch are made."""

    def answer(self, cost_usd: float | None, prices: tuple[PriceConfig, ...]) -> ChatResponse:
        """What a call of Kimi's k3 with a million tokens each way comes to."""
        response = ChatResponse(
            "hi",
            FinishReason.STOP,
            input_tokens=1_000_000,
            output_tokens=1_000_000,
            cost_usd=cost_usd,
        )
        request = ChatRequest("kimi/k3", (Message(Role.USER, "hello"),))
        return Registry({"kimi": Answering(response)}, prices=prices).chat(
            Route("kimi", "k3"), request, deadline=Deadline(at=1e12), cancelled=Cancelled()
        )

    @pytest.mark.parametrize(
        ("told", "prices", "cost"),
        [
            pytest.param(None, (price("kimi/*"),), 2.0, id="the table's"),
            pytest.param(0.5, (price("kimi/*"),), 0.5, id="the provider's own"),
            pytest.param(0.0, (price("kimi/*"),), 0.0, id="nothing is a figure too"),
        ],
    )
    def test_the_providers_own_figure_comes_first(
        self, told: float | None, prices: tuple[PriceConfig, ...], cost: float
    ) -> None:
        """It knows of caches, discounts and subscriptions."""
        assert self.answer(told, prices).to_wire()["cost_usd"] == cost

    @pytest.mark.parametrize("prices", [(), (price("ollama/*"),)], ids=["none", "of another"])
    def test_without_a_price_there_is_no_figure(self, prices: tuple[PriceConfig, ...]) -> None:
        """Rather than a zero that somebody might add up."""
        assert "cost_usd" not in self.answer(None, prices).to_wire()

    def test_a_workers_registry_has_the_prices_of_the_configuration(self) -> None:
        """From the file to the answer."""
        prices = (price("ollama/*"),)

        assert build_registry(ChatdConfig(prices=prices), {})._prices == prices
