"""Whether an answer is the JSON that was asked for.

Upstreams accept the wish and may drop it in silence: Ollama with thinking off on some versions
(ollama/ollama issues 14645 and 15260), Ollama Cloud always (docs/capabilities/structured-outputs),
OpenRouter on endpoints that do not know the parameter.
"""

from __future__ import annotations

from chat.errors import UpstreamProtocolError
from chat.providers.error_text import printable
from chat.providers.fields import parse_json
from chat.types import Billed, ChatRequest, ChatResponse, FinishReason

__all__ = ["checked_json"]


def checked_json(provider: str, request: ChatRequest, response: ChatResponse) -> ChatResponse:
    """``response``, if it is the JSON that ``request`` asked for or did not have to be.

    Text that the token limit cut off, tool calls and filtered answers tell by their finish reason
    why they are no JSON. A schema is checked no further than its topmost ``"type": "object"``.
    Raises UpstreamProtocolError, billed, for anything else.
    """
    if request.format is None or response.finish_reason is not FinishReason.STOP:
        return response
    try:
        value = parse_json(response.content)
    except ValueError:
        raise _fault(provider, response, "not JSON") from None
    wants_object = isinstance(request.format, dict) and request.format.get("type") == "object"
    if wants_object and not isinstance(value, dict):
        raise _fault(provider, response, "JSON, but not the object of the schema")
    return response


def _fault(provider: str, response: ChatResponse, kind: str) -> UpstreamProtocolError:
    shown = printable(response.content, None) or "nothing"
    return UpstreamProtocolError(
        f"the request set format, but {provider} answered with text that is {kind}: {shown}; "
        "ask for JSON in the prompt as well, or choose another model",
        provider=provider,
        upstream_status=200,
        billed=Billed.YES,
    )
