"""Local Ollama."""

from __future__ import annotations

from chat.providers.json_answer import checked_json
from chat.providers.ollama_wire import chat_body, chat_response
from chat.providers.upstream import Upstream
from chat.types import Cancelled, ChatRequest, ChatResponse, Deadline

__all__ = ["Ollama"]


class Ollama:
    """Local Ollama over /api/chat. Needs no key; thinking is off unless the request asks for it."""

    name = "ollama"

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def chat(
        self, request: ChatRequest, *, deadline: Deadline, cancelled: Cancelled
    ) -> ChatResponse:
        """Make one call; raises what ``Provider.chat`` says."""
        reply = self._upstream.post(
            "/api/chat", chat_body(request), deadline=deadline, cancelled=cancelled
        )
        return checked_json(self.name, request, chat_response(reply.fields))
