"""Asking a provider which models it has: one GET for each list, two shapes of answer.

Ollama and ollama.com answer ``{"models": [{"name", "modified_at", …}]}`` at /api/tags (Ollama
docs/api.md, "List Local Models"); OpenRouter, both catalogues of OpenCode, and Kimi answer
``{"data": [{"id", "created", …}]}`` at /models, as OpenAI does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from chat.catalogue import LONGEST_NAME, MOST_MODELS, ListedModel
from chat.providers.fields import Fields
from chat.providers.upstream import Upstream
from chat.types import Cancelled, Deadline

__all__ = ["Found", "Listing", "ModelSource", "ollama_listing", "openai_listing"]

#: The largest time that is taken for one: the year 9999.
_LATEST = 253_402_300_799


@dataclass(frozen=True, slots=True)
class Found:
    """What a provider lists; ``left_out`` counts entries that nobody could ask for, or too many."""

    models: tuple[ListedModel, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class Listing:
    """One call that lists models; ``prefix`` goes before each id, as routes have it.

    ``items`` names the answer's list, ``id_field`` the id in an entry of it, and ``created`` reads
    from an entry when the model was made.
    """

    upstream: Upstream
    path: str
    items: str
    id_field: str
    created: Callable[[Fields], int]
    prefix: str = ""


class ModelSource:
    """All the lists of one provider."""

    def __init__(self, *listings: Listing) -> None:
        self._listings = listings

    def fetch(self, deadline: Deadline) -> Found:
        """Ask for every list, and return all models or none.

        Raises what ``Upstream.get`` raises, and UpstreamProtocolError for an answer without a list.
        """
        models: dict[str, ListedModel] = {}
        left_out = 0
        for listing in self._listings:
            try:
                reply = listing.upstream.get(listing.path, deadline=deadline, cancelled=Cancelled())
            finally:
                # No provider keeps a connection open until the next refresh.
                listing.upstream.close()
            for entry in _entries(reply.fields, listing.items):
                found = _listed(entry, listing)
                if found is None or (len(models) >= MOST_MODELS and found.id not in models):
                    left_out += 1
                else:
                    models.setdefault(found.id, found)
        return Found(tuple(models.values()), left_out)


def ollama_listing(upstream: Upstream) -> Listing:
    """Ollama, at home or at ollama.com."""
    return Listing(upstream, "/api/tags", "models", "name", _modified)


def openai_listing(upstream: Upstream, prefix: str = "") -> Listing:
    """A provider that lists models as OpenAI does."""
    return Listing(upstream, "/models", "data", "id", _created, prefix)


def _entries(answer: Fields, key: str) -> list[Fields]:
    """The entries of the list at ``key``. It may be empty, or null as Go writes one, not absent."""
    if key not in answer.values:
        raise answer.fault(key, "a list")
    return answer.children(key)


def _listed(entry: Fields, listing: Listing) -> ListedModel | None:
    """An entry as a model; ``None`` if no request could name it, or it repeats our key."""
    name = entry.values.get(listing.id_field)
    if not isinstance(name, str) or not name.isprintable() or name != name.strip():
        return None
    if not 0 < len(name) <= LONGEST_NAME - len(listing.prefix):
        return None
    if entry.secret and entry.secret in name:
        return None
    return ListedModel(listing.prefix + name, listing.created(entry))


def _created(entry: Fields) -> int:
    """``created``, in seconds since the epoch; 0 for one that is missing or no time."""
    value = entry.values.get("created")
    return value if type(value) is int and 0 <= value <= _LATEST else 0


def _modified(entry: Fields) -> int:
    """``modified_at``, which Ollama's own /v1/models calls ``created``; 0 as above."""
    value = entry.values.get("modified_at")
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return 0
    if moment is None or moment.tzinfo is None:
        return 0
    # Go writes the year 1 where it knows no time.
    return min(max(0, int(moment.timestamp())), _LATEST)
