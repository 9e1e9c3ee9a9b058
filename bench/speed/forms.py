"""What a chat looks like on the wires of the systems that are measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FORMS", "Form"]


@dataclass(frozen=True, slots=True)
class Form:
    """How one wire asks and answers.

    ``said`` finds in a decoded answer what is to be held against the question; it may raise
    ``KeyError``, ``IndexError`` or ``TypeError`` for an answer that is something else. ``fields``
    are added to the body, and those named in ``repeat`` hold the question.
    """

    path: str
    said: Callable[[Any], object]
    status: int = 200
    fields: Mapping[str, Any] = field(default_factory=dict)
    repeat: tuple[str, ...] = ()

    def body(self, model: str, question: str) -> bytes:
        """A request in this form."""
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            **self.fields,
        }
        for name in self.repeat:
            body[name] = {"question": question}
        return json.dumps(body).encode()


def _completion(answer: Any) -> object:
    return answer["choices"][0]["message"]["content"]


#: ``chat`` is chatd's own wire and that of the textbook; ``job`` is a job that is only accepted:
#: its record repeats the question, so that two that were mixed up are found.
FORMS = {
    "chat": Form("/v1/chat", lambda answer: answer["content"]),
    "completion": Form("/v1/chat/completions", _completion),
    "ollama": Form(
        "/api/chat", lambda answer: answer["message"]["content"], fields={"stream": False}
    ),
    "job": Form(
        "/v1/jobs",
        lambda answer: f"echo: {answer['metadata']['question']}" if answer["id"] else None,
        status=202,
        repeat=("metadata",),
    ),
}
