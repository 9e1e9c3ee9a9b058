"""Local Ollama."""

from __future__ import annotations

from chat.providers.asking import ask
from chat.providers.json_answer import checked_json
from chat.providers.ollama_stream import ChatStream
from chat.providers.ollama_wire import chat_body, chat_response
from chat.providers.upstream import Upstream
from chat.types import Cancelled, ChatRequest, ChatResponse, Deadline, Deltas

__all__ = ["Ollama"]


class Ollama:
    """Local Ollama over /api/chat. Needs no key; thinking is off unless the request asks for it."""

    name = "ollama"

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def chat(
        self,
        request: ChatRequest,
        *,
        deadline: Deadline,
        cancelled: Cancelled,
        deltas: Deltas | None = None,
    ) -> ChatResponse:
        """Make one call; raises what ``Provider.chat`` says."""
        return ask(
            self._upstream,
            "/api/chat",
            chat_body(request),
            lambda reply: checked_json(self.name, request, chat_response(reply.fields)),
            None if deltas is None else ChatStream(deltas),
            deadline=deadline,
            cancelled=cancelled,
        )
