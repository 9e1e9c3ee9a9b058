"""Answers and errors in the format of OpenAI's Chat Completions.

Source: openai/openai-openapi, ``CreateChatCompletionResponse`` and ``Error``. What is ours stands
in ``chatd``, beside OpenAI's fields, and in the extras of an error.
"""

from __future__ import annotations

from chat import errors
from chat.errors import ChatError, UpstreamRejected
from chat.formats.errors import STATUS, error_body
from chat.types import JSON

__all__ = ["COMPLETION_STATUS", "completion", "completion_error"]

#: The HTTP status of every error here. OpenAI's clients take a 5xx for something that passes, so a
#: refusal that no retry mends is a 4xx, whoever refused. It is never 401: that would tell a client
#: that its own key for chatd is wrong, while what was refused is chatd's key for the provider.
COMPLETION_STATUS: dict[type[ChatError], int] = {
    **STATUS,
    errors.UpstreamRejected: 400,
    errors.UpstreamAuth: 403,
    errors.UpstreamNotFound: 404,
    errors.ContentFiltered: 400,
}

#: Refusals that clients do not take as said: they look for another key or ask again.
_MISREAD = frozenset({401, 403, 407, 408, 409, 425, 429})

#: What ``chatd`` has of an answer.
_ABOUT = ("provider", "upstream_model", "latency_ms", "queue_ms", "attempt_count", "cost_usd")


def completion(job_id: str, created: int, answer: JSON) -> JSON:
    """The ``chat.completion`` for a job's answer; ``created`` is in seconds since the epoch.

    Its id has OpenAI's prefix, which some clients look for, before the characters of the job's id.
    ``usage`` is ``null`` unless the provider told both counts: OpenAI's has no half.
    """
    message: JSON = {
        "role": "assistant",
        "content": None if answer["tool_calls"] and not answer["content"] else answer["content"],
        "refusal": None,
    }
    if answer["reasoning"] is not None:
        message["reasoning_content"] = answer["reasoning"]
    if answer["tool_calls"]:
        message["tool_calls"] = answer["tool_calls"]
    return {
        "id": f"chatcmpl-{job_id.removeprefix('job_')}",
        "object": "chat.completion",
        "created": created,
        "model": answer["model"],
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": answer["finish_reason"],
                "logprobs": None,
            }
        ],
        "usage": _usage(answer["input_tokens"], answer["output_tokens"]),
        "chatd": {"job_id": job_id, **{name: answer[name] for name in _ABOUT if name in answer}},
    }


def completion_error(error: ChatError) -> tuple[int, JSON]:
    """The HTTP status and the body of an error."""
    status = COMPLETION_STATUS[type(error)]
    if isinstance(error, UpstreamRejected):
        told = error.upstream_status or 0
        if 400 <= told < 500 and told not in _MISREAD:  # noqa: PLR2004 - HTTP's client errors
            status = told
    return status, error_body(error)


def _usage(prompt: int | None, completion: int | None) -> JSON | None:
    if prompt is None or completion is None:
        return None
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
