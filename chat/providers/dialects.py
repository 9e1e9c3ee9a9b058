"""Where OpenRouter, OpenCode and Kimi differ within one OpenAI-compatible protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from chat.types import JSON

__all__ = ["KIMI", "OPENCODE", "OPENROUTER", "Dialect"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One provider's way to say what the others say differently.

    ``token_limit`` is the field for ``max_tokens``. ``fixed_sampling`` tells of a model whether it
    refuses any temperature and top_p but its own. ``thinking`` turns what the request says about
    thinking into fields; it is not asked where the request says nothing. With ``echoes_reasoning``
    an assistant's tool calls go back together with the reasoning that led to them.
    ``omits_empty_content`` is about tool calls without text: the field is left out, not ``null``.
    ``demands_parameters`` asks for endpoints that honour a schema instead of dropping it. With
    ``counts_on_request`` an answer in pieces has its token counts only if they are asked for.
    """

    name: str
    token_limit: str
    fixed_sampling: Callable[[str], bool]
    thinking: Callable[[bool | str], JSON]
    echoes_reasoning: bool = False
    omits_empty_content: bool = False
    demands_parameters: bool = False
    counts_on_request: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


def _openrouter_thinking(think: bool | str) -> JSON:  # noqa: FBT001
    if think is True:
        return {"reasoning": {"enabled": True}}
    return {"reasoning": {"effort": think or "none"}}


def _opencode_thinking(think: bool | str) -> JSON:  # noqa: FBT001
    """Only a level can be said; whether a model thinks at all is fixed per model there."""
    return {"reasoning_effort": think} if isinstance(think, str) else {}


def _kimi_thinking(think: bool | str) -> JSON:  # noqa: FBT001
    if isinstance(think, str):
        return {"thinking": {"type": "enabled", "effort": think}}
    return {"thinking": {"type": "enabled" if think else "disabled"}}


#: Source: OpenRouter docs, api_reference/overview and guides/best-practices/reasoning-tokens; the
#: header is app-attribution's.
OPENROUTER = Dialect(
    name="openrouter",
    token_limit="max_tokens",  # noqa: S106
    fixed_sampling=lambda _model: False,
    thinking=_openrouter_thinking,
    demands_parameters=True,
    headers={"X-OpenRouter-Title": "chatd"},
)

#: Source: routes/zen/util/provider/openai-compatible.ts of anomalyco/opencode, which keeps
#: max_tokens and drops max_completion_tokens when it translates; issues 37161 and 36506.
OPENCODE = Dialect(
    name="opencode",
    token_limit="max_tokens",  # noqa: S106
    fixed_sampling=lambda model: model.lower().startswith("kimi"),
    thinking=_opencode_thinking,
    echoes_reasoning=True,
    counts_on_request=True,
)

#: Source: kosong/chat_provider/kimi.py of MoonshotAI/kimi-cli and kimi.com/code/docs,
#: error-reference: "text content is empty", "reasoning_content is missing".
KIMI = Dialect(
    name="kimi",
    token_limit="max_completion_tokens",  # noqa: S106
    fixed_sampling=lambda _model: True,
    thinking=_kimi_thinking,
    echoes_reasoning=True,
    omits_empty_content=True,
    counts_on_request=True,
)
