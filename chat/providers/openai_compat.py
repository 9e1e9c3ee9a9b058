"""OpenRouter, OpenCode (Zen and Go) and Kimi For Coding: one protocol, one class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from chat.providers.asking import ask
from chat.providers.dialects import KIMI, OPENCODE, OPENROUTER, Dialect
from chat.providers.error_text import status_inside
from chat.providers.json_answer import checked_json
from chat.providers.openai_stream import ChunkStream
from chat.providers.openai_wire import chat_body, chat_response, failed_choice
from chat.providers.upstream import Reply, Upstream
from chat.types import Billed, Cancelled, ChatRequest, ChatResponse, Deadline, Deltas

__all__ = ["OpenAICompat", "kimi", "opencode", "openrouter"]


class OpenAICompat:
    """A provider over /chat/completions, in the ``dialect`` of its table.

    ``catalogues`` are further base URLs: a model that begins with one of its prefixes is called
    without it, at the upstream of that prefix.
    """

    def __init__(
        self,
        dialect: Dialect,
        upstream: Upstream,
        catalogues: Mapping[str, Upstream] | None = None,
    ) -> None:
        self.name = dialect.name
        self._dialect = dialect
        self._upstream = upstream
        self._catalogues = dict(catalogues or {})

    def chat(
        self,
        request: ChatRequest,
        *,
        deadline: Deadline,
        cancelled: Cancelled,
        deltas: Deltas | None = None,
    ) -> ChatResponse:
        """Make one call; raises what ``Provider.chat`` says."""
        upstream = self._upstream
        for prefix, its_upstream in self._catalogues.items():
            if request.model.startswith(prefix):
                upstream = its_upstream
                request = replace(request, model=request.model.removeprefix(prefix))
        body = chat_body(self._dialect, request)
        if deltas is not None and self._dialect.counts_on_request:
            body["stream_options"] = {"include_usage": True}
        return ask(
            upstream,
            "/chat/completions",
            body,
            lambda reply: self._read(upstream, request, reply),
            None if deltas is None else ChunkStream(deltas),
            deadline=deadline,
            cancelled=cancelled,
            headers=self._dialect.headers,
        )

    def _read(self, upstream: Upstream, request: ChatRequest, reply: Reply) -> ChatResponse:
        failed = failed_choice(reply.fields)
        if failed is not None:
            error = failed.values.get("error")
            refusal = upstream.refusal(status_inside(error), reply.headers, {"error": error})
            # Part of an answer was generated, whatever its end would cost alone.
            refusal.billed = Billed.MAYBE
            raise refusal
        return checked_json(self.name, request, chat_response(reply.fields))


def openrouter(upstream: Upstream) -> OpenAICompat:
    """OpenRouter, base URL ``https://openrouter.ai/api/v1``."""
    return OpenAICompat(OPENROUTER, upstream)


def opencode(zen: Upstream, go: Upstream) -> OpenAICompat:
    """OpenCode, base URLs ``https://opencode.ai/zen/v1`` and ``https://opencode.ai/zen/go/v1``.

    One account has two catalogues; the models of Go are named ``opencode-go/<model>``.
    """
    return OpenAICompat(OPENCODE, zen, {"opencode-go/": go})


def kimi(upstream: Upstream) -> OpenAICompat:
    """Kimi For Coding, base URL ``https://api.kimi.com/coding/v1``."""
    return OpenAICompat(KIMI, upstream)
