"""Ollama Cloud: ollama.com with an API key."""

from __future__ import annotations

from chat.errors import InvalidRequest
from chat.providers.asking import ask
from chat.providers.json_answer import checked_json
from chat.providers.ollama_stream import ChatStream, GenerateStream
from chat.providers.ollama_wire import chat_body, chat_response, generate_response, settings
from chat.providers.upstream import Upstream
from chat.types import JSON, Cancelled, ChatRequest, ChatResponse, Deadline, Deltas, Message, Role

__all__ = ["OllamaCloud", "flattened"]

_SPEAKERS = {Role.SYSTEM: "System", Role.USER: "User", Role.ASSISTANT: "Assistant"}


class OllamaCloud:
    """Ollama Cloud over /api/generate with the messages flattened, or over /api/chat.

    ``api`` is ``"generate"``, ``"chat"`` or ``"auto"``: then only a request that would lose
    something by being flattened (tools, images, several turns) takes /api/chat, which keeps the
    roles. Thinking is off unless the request asks for it.
    """

    name = "ollama_cloud"

    def __init__(self, upstream: Upstream, api: str = "auto") -> None:
        if api not in ("auto", "generate", "chat"):
            raise ValueError(f'api {api!r} is none of "auto", "generate" and "chat"')
        self._upstream = upstream
        self._api = api

    def chat(
        self,
        request: ChatRequest,
        *,
        deadline: Deadline,
        cancelled: Cancelled,
        deltas: Deltas | None = None,
    ) -> ChatResponse:
        """Make one call; raises what ``Provider.chat`` says."""
        generate = self._api == "generate" or (self._api == "auto" and not _needs_roles(request))
        path, body, read, assembly = (
            ("/api/generate", generate_body(request), generate_response, GenerateStream)
            if generate
            else ("/api/chat", chat_body(request), chat_response, ChatStream)
        )
        return ask(
            self._upstream,
            path,
            body,
            lambda reply: checked_json(self.name, request, read(reply.fields)),
            None if deltas is None else assembly(deltas),
            deadline=deadline,
            cancelled=cancelled,
        )


def _needs_roles(request: ChatRequest) -> bool:
    """Whether flattening would lose something."""
    turns = [message for message in request.messages if message.role is not Role.SYSTEM]
    return (
        bool(request.tools)
        or any(message.images for message in request.messages)
        or any(message.role is not Role.USER for message in turns)
        or len(turns) > 1
    )


def generate_body(request: ChatRequest) -> JSON:
    """The body of /api/generate.

    Raises InvalidRequest for tools, which this call does not have.
    """
    if request.tools or any(
        message.role is Role.TOOL or message.tool_calls for message in request.messages
    ):
        raise InvalidRequest(
            'tools do not work with ollama_cloud_api = "generate"; leave them out, or set it to '
            '"auto" or "chat"',
            param="tools" if request.tools else "messages",
        )
    wire = settings(request)
    wire["prompt"] = flattened(request.messages)
    images = [image for message in request.messages for image in message.images]
    if images:
        wire["images"] = images
    return wire


def flattened(messages: tuple[Message, ...]) -> str:
    """All messages as one prompt, which /api/generate puts to the model as a single user turn.

    A user turn alone is the prompt as it stands. Otherwise each turn is named, and the prompt ends
    with the cue for the model, or with the assistant's turn that the model is to go on with.
    """
    if len(messages) == 1 and messages[0].role is Role.USER:
        return messages[0].content
    turns = [f"{_SPEAKERS[message.role]}: {message.content}" for message in messages]
    if messages[-1].role is not Role.ASSISTANT:
        turns.append("Assistant:")
    return "\n\n".join(turns)
