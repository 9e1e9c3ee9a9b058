"""What an upstream answers that repeats the key wherever it finds room for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.upstream import Answer, End, Request

__all__ = ["CASES", "ROUTES", "Case", "script"]

#: What stands before a model id, and the path at which its upstream is then called.
ROUTES = {
    "ollama": ("", "/ollama/api/chat"),
    "ollama_cloud": ("ollama_cloud/", "/ollama_cloud/api/generate"),
    "openrouter": ("openrouter/", "/openrouter/chat/completions"),
    "opencode": ("opencode/", "/opencode/chat/completions"),
    "opencode-go": ("opencode-go/", "/opencode/go/chat/completions"),
    "kimi": ("kimi/", "/kimi/chat/completions"),
}

NEVER = threading.Event()


@dataclass(frozen=True)
class Case:
    """One way to answer ``said``, a sentence with the Authorization header in it.

    ``code`` is what chatd makes of it, except at the routes in ``others``.
    """

    code: str | None
    answer: Callable[[str], Answer]
    others: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60


def answered(content: str, tool: str = "") -> Answer:
    """An answer in every provider's protocol at once; ``tool`` is what a tool is called with."""
    message: dict[str, Any] = {"role": "assistant", "content": content, "thinking": content}
    if tool:
        function = {"name": "look", "arguments": {tool: [tool]}}
        message["tool_calls"] = [{"id": tool, "type": "function", "function": function}]
    counts = {"prompt_eval_count": 1, "eval_count": 1, "done": True, "done_reason": "stop"}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return Answer.json(
        {"message": message, "response": content, "choices": choices, **counts},
        headers={"x-you-sent": content.replace("\n", " ")},
    )


def error(status: int, kind: str = "error", **headers: str) -> Callable[[str], Answer]:
    """An error answer as JSON."""
    return lambda said: Answer.json(
        {"error": {"type": kind, "message": said, "param": said}},
        status,
        {"x-you-sent": said, **headers},
    )


def text(status: int, body: str) -> Callable[[str], Answer]:
    """An answer that is no JSON."""
    return lambda said: Answer.of(body.replace("SAID", said).encode(), status)


def broken(rest: str, end: End = End.CLOSE) -> Callable[[str], Answer]:
    """A 200 that ends badly."""
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    return lambda said: Answer.raw((head + rest.replace("SAID", said)).encode(), end)


def redirect(said: str) -> Answer:
    """To where somebody would like to have the key."""
    place = f"http://127.0.0.1:1/elsewhere?said={quote(said, safe='')}"
    return Answer.of(said.encode(), 302, {"location": place})


CASES = {
    "good": Case(None, lambda _: answered("fine")),
    "repeated": Case(None, answered),
    "repeated to a tool": Case(None, lambda said: answered(said, said)),
    "rejected": Case("upstream_rejected", error(400)),
    "key refused": Case("upstream_auth", error(401)),
    "half the key": Case("upstream_auth", lambda said: error(401)(said[: len(said) * 3 // 4])),
    "account empty": Case("quota_exhausted", error(402)),
    "quota used up": Case(
        "quota_exhausted",
        error(403, "weekly usage limit, key limit exceeded"),
        dict.fromkeys(("opencode", "opencode-go"), "upstream_auth"),
    ),
    "filtered": Case(
        "upstream_rejected",
        error(400, "content_filter content_policy_violation"),
        dict.fromkeys(("openrouter", "kimi"), "content_filtered"),
    ),
    "model unknown": Case("upstream_not_found", error(404)),
    "too many": Case("rate_limited", error(429, **{"retry-after": "7200"})),
    "too late": Case("upstream_timeout", error(504)),
    "failed": Case("upstream_unavailable", text(500, "SAID")),
    "page": Case("upstream_unavailable", text(503, "<title>SAID</title><p>SAID")),
    "error in 200": Case(
        "upstream_auth", lambda said: Answer.json({"error": {"code": 401, "message": said}})
    ),
    "not JSON": Case("upstream_protocol", text(200, "SAID")),
    "wrong types": Case(
        "upstream_protocol",
        lambda said: Answer.json({"choices": said, "message": said, "response": [said]}),
    ),
    "redirect": Case("upstream_protocol", redirect),
    "not HTTP": Case("upstream_protocol", lambda said: Answer.raw(said.encode() + b"\r\n\r\n")),
    "bad header": Case("upstream_protocol", broken("X SAID\r\n\r\nSAID")),
    "bad chunk": Case("upstream_protocol", broken("Transfer-Encoding: chunked\r\n\r\nSAID\r\n")),
    "cut": Case("upstream_unavailable", broken("Content-Length: 999\r\n\r\nSAID")),
    "reset": Case("upstream_unavailable", broken("Content-Length: 999\r\n\r\nSAID", End.RESET)),
    "silent": Case("deadline_exceeded", lambda _: Answer.raw(NEVER), timeout_s=1),
}


def script(request: Request) -> Answer:
    """The answer of the case that the model's name asks for; to any other, silence."""
    said = f"you sent {request.headers.get('authorization', 'nothing')}"
    case = CASES.get(request.json()["model"].removeprefix("case/"))
    return Answer.raw(NEVER) if case is None else case.answer(said)
