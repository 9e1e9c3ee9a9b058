"""What each provider makes of a request: takes a field, drops it, or refuses it.

The front end tells callers what is dropped, and never meets a provider; so the facts stand here
once more. A test asks every provider for the body that it would send, and holds each row to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from chat.types import ChatRequest, Message

__all__ = ["COLUMNS", "ROWS", "Row", "Use", "dropped"]

#: The providers, and the models that OpenCode has from Kimi, which differ from its others.
COLUMNS = ("ollama", "ollama_cloud", "openrouter", "opencode", "opencode/kimi", "kimi")

_OLLAMA = frozenset({"ollama", "ollama_cloud"})
_OPENAI = frozenset(COLUMNS) - _OLLAMA
_KIMI = frozenset({"opencode/kimi", "kimi"})
_OPENCODE = frozenset({"opencode", "opencode/kimi"})


class Use(StrEnum):
    """What becomes of a field."""

    TAKEN = "taken"
    DROPPED = "dropped"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Row:
    """One field by OpenAI's name, and which of its values if ``case`` says so.

    ``given`` tells whether a request has it; whoever neither drops nor refuses it takes it.
    """

    field: str
    given: Callable[[ChatRequest], bool]
    case: str = ""
    dropped_by: frozenset[str] = frozenset()
    refused_by: frozenset[str] = frozenset()

    def use(self, column: str) -> Use:
        """What one of ``COLUMNS`` does with it."""
        if column in self.dropped_by:
            return Use.DROPPED
        return Use.REFUSED if column in self.refused_by else Use.TAKEN


def dropped(provider: str, model: str, request: ChatRequest) -> tuple[str, ...]:
    """The fields of ``request`` that ``provider`` leaves out; ``model`` is its own id."""
    column = provider
    if provider == "opencode" and model.removeprefix("opencode-go/").lower().startswith("kimi"):
        column = "opencode/kimi"
    names = (row.field for row in ROWS if column in row.dropped_by and row.given(request))
    return tuple(dict.fromkeys(names))


def _any(has: Callable[[Message], object]) -> Callable[[ChatRequest], bool]:
    return lambda request: any(has(message) for message in request.messages)


def _has_odd_image(message: Message) -> bool:
    known = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")
    return any(not image.startswith(known) for image in message.images)


ROWS = (
    Row("max_completion_tokens", lambda r: r.max_tokens is not None),
    # Kimi's models have one temperature and one top_p, and refuse every other.
    Row("temperature", lambda r: r.temperature is not None, dropped_by=_KIMI),
    Row("top_p", lambda r: r.top_p is not None, dropped_by=_KIMI),
    Row("seed", lambda r: r.seed is not None),
    Row("stop", lambda r: bool(r.stop)),
    Row("response_format", lambda r: r.format == "json", "json_object"),
    Row("response_format", lambda r: isinstance(r.format, dict), "json_schema"),
    Row(
        "response_format.json_schema.description",
        lambda r: "description" in (r.schema_info or {}),
        dropped_by=_OLLAMA,
    ),
    # OpenCode can be told a level; whether a model thinks at all is fixed there.
    Row("reasoning_effort", lambda r: r.think is False, "none", dropped_by=_OPENCODE),
    Row("reasoning_effort", lambda r: isinstance(r.think, str), "a level"),
    Row("think", lambda r: r.think is True, "true", dropped_by=_OPENCODE),
    Row("tools", lambda r: bool(r.tools)),
    Row("tool_choice", lambda r: r.tool_choice == "none", "none"),
    Row(
        "tool_choice",
        lambda r: r.tool_choice not in (None, "auto", "none"),
        "required or a function",
        refused_by=_OLLAMA,
    ),
    Row(
        "parallel_tool_calls",
        lambda r: r.parallel_tool_calls is False,
        "false",
        refused_by=_OLLAMA,
    ),
    Row("messages.content.image_url", _any(lambda m: m.images), "PNG, JPEG, GIF, WebP"),
    Row("messages.content.image_url", _any(_has_odd_image), "others", refused_by=_OPENAI),
    Row("messages.name", _any(lambda m: m.name is not None), dropped_by=_OLLAMA),
    Row(
        "messages.reasoning_content",
        _any(lambda m: m.reasoning and m.tool_calls),
        "beside tool_calls",
        dropped_by=frozenset({"openrouter"}),
    ),
    Row(
        "messages.reasoning_content",
        _any(lambda m: m.reasoning and not m.tool_calls),
        "alone",
        dropped_by=_OPENAI,
    ),
)
