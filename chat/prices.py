"""What a call costs by the table of the configuration, where the provider does not say it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from chat.routing import PROVIDERS
from chat.settings import PriceConfig
from chat.tables import Table

__all__ = ["cost_of", "read_price"]

_TOKENS = 1_000_000

#: Decimal places of a figure: a token of a cheap model costs some hundred-millionths of a dollar.
_PLACES = 9

_WILDCARD = re.compile(r"[*?\[]")

#: How the full name of a model can begin. OpenCode's second catalogue has a prefix of its own.
_BEGINNINGS = (*(f"{provider}/" for provider in PROVIDERS), "opencode-go/")


def cost_of(
    prices: Sequence[PriceConfig],
    provider: str,
    model: str,
    input_tokens: int | None,
    output_tokens: int | None,
) -> float | None:
    """US dollars for one call of ``model``, as a route has it; ``None`` where that is unknown.

    It is known when the first price that fits is there, and both counts of tokens.
    """
    if input_tokens is None or output_tokens is None:
        return None
    name = _full_name(provider, model)
    price = next((price for price in prices if fnmatchcase(name, price.match)), None)
    if price is None:
        return None
    tokens_usd = (
        input_tokens * price.input_per_million_usd + output_tokens * price.output_per_million_usd
    ) / _TOKENS
    return round(tokens_usd + price.per_call_usd, _PLACES)


def read_price(table: Table) -> PriceConfig:
    """One ``[[chatd.prices]]``. Raises ``ConfigError``."""
    match = table.text("match", "")
    per_input, per_output, per_call = (
        table.dollars_or_none(key)
        for key in ("input_per_million_usd", "output_per_million_usd", "per_call_usd")
    )
    table.finish()
    if not match:
        raise table.error(
            "match", "is missing or empty", 'write the models it is for, as match = "kimi/*"'
        )
    literal = _WILDCARD.split(match)[0]
    if not any(name.startswith(literal) or literal.startswith(name) for name in _BEGINNINGS):
        raise table.error(
            "match",
            "fits no model of any provider",
            f"begin it with {', '.join(_BEGINNINGS[:-1])} or {_BEGINNINGS[-1]}",
        )
    if per_input is None or per_output is None:
        key = "input_per_million_usd" if per_input is None else "output_per_million_usd"
        raise table.error(key, "is missing", f"write US dollars, such as {key} = 0.5, or 0")
    return PriceConfig(
        match=match,
        input_per_million_usd=per_input,
        output_per_million_usd=per_output,
        per_call_usd=per_call or 0.0,
    )


def _full_name(provider: str, model: str) -> str:
    """``provider/model``, but for ids that have such a prefix in a route already.

    Those are ``opencode-go/…`` and OpenRouter's own, such as ``openrouter/auto``.
    """
    if model.startswith((f"{provider}/", f"{provider}-go/")):
        return model
    return f"{provider}/{model}"
