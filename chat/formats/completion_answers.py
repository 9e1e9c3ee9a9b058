"""Answers and errors in the format of OpenAI's Chat Completions.

Source: openai/openai-openapi, ``CreateChatCompletionResponse``,
``CreateChatCompletionStreamResponse`` and ``Error``. What is ours stands in ``chatd``, beside
OpenAI's fields, and in the extras of an error.
"""

from __future__ import annotations

from chat import errors
from chat.errors import ChatError, UpstreamRejected
from chat.formats.errors import STATUS, error_body
from chat.types import JSON, Delta, DeltaKind

__all__ = ["COMPLETION_STATUS", "Chunks", "completion", "completion_error"]

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
        "id": _id_of(job_id),
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
        "chatd": _about(job_id, answer),
    }


class Chunks:
    """The ``chat.completion.chunk`` objects of one job; ``created`` and the id are as above.

    ``model`` is that of the request. With ``usage`` there is a last one that has the usage.
    """

    def __init__(self, job_id: str, created: int, model: str, *, usage: bool) -> None:
        self._job_id = job_id
        self._head: JSON = {
            "id": _id_of(job_id),
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._usage = usage

    def piece(self, delta: Delta, *, first: bool) -> JSON:
        """The chunk of a piece; the first one of all says who speaks."""
        told = _told_of(delta)
        return self._chunk({"role": "assistant", **told} if first else told, None)

    def ends(self, answer: JSON, *, first: bool) -> list[JSON]:
        """What follows after the last piece: why it is the last, and the usage.

        A usage that the provider did not tell is left out: clients take what comes without a choice
        for the usage.
        """
        told: JSON = {"role": "assistant", "content": ""} if first else {}
        last = self._chunk(told, answer["finish_reason"])
        last["chatd"] = _about(self._job_id, answer)
        usage = _usage(answer["input_tokens"], answer["output_tokens"])
        if not self._usage or usage is None:
            return [last]
        return [last, {**self._head, "choices": [], "usage": usage}]

    def _chunk(self, delta: JSON, finish_reason: str | None) -> JSON:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        chunk: JSON = {**self._head, "choices": [choice]}
        if self._usage:
            chunk["usage"] = None
        return chunk


def completion_error(error: ChatError) -> tuple[int, JSON]:
    """The HTTP status and the body of an error."""
    status = COMPLETION_STATUS[type(error)]
    if isinstance(error, UpstreamRejected):
        told = error.upstream_status or 0
        if 400 <= told < 500 and told not in _MISREAD:  # noqa: PLR2004 - HTTP's client errors
            status = told
    return status, error_body(error)


def _id_of(job_id: str) -> str:
    return f"chatcmpl-{job_id.removeprefix('job_')}"


def _about(job_id: str, answer: JSON) -> JSON:
    return {"job_id": job_id, **{name: answer[name] for name in _ABOUT if name in answer}}


def _told_of(delta: Delta) -> JSON:
    if delta.kind is DeltaKind.CONTENT:
        return {"content": delta.text}
    if delta.kind is DeltaKind.REASONING:
        return {"reasoning_content": delta.text}
    call: JSON = {"index": delta.index}
    function: JSON = {"arguments": delta.text}
    if delta.id is not None:
        call |= {"id": delta.id, "type": "function"}
        function = {"name": delta.name, **function}
    return {"tool_calls": [{**call, "function": function}]}


def _usage(prompt: int | None, completion: int | None) -> JSON | None:
    if prompt is None or completion is None:
        return None
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
