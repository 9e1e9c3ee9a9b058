"""What ``POST /v1/chat/completions`` answers, as models for the OpenAPI document.

Like those of ``api.contract``, they validate nothing at run time.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.contract import Output, ToolCallAnswer
from chat.types import FinishReason

__all__ = ["Completion"]


class CompletionMessage(Output):
    """What the model said."""

    role: Literal["assistant"]
    content: str | None = Field(description="null where tool_calls stand without a text")
    refusal: None = Field(description="a refusal stands in content, with content_filter")
    reasoning_content: str | None = Field(None, description="absent when there is none")
    tool_calls: list[ToolCallAnswer] | None = Field(None, description="absent when there are none")


class CompletionChoice(Output):
    """The one answer."""

    index: Literal[0]
    message: CompletionMessage
    finish_reason: FinishReason
    logprobs: None


class CompletionUsage(Output):
    """How many tokens it took, as the provider counts them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionNotes(Output):
    """What chatd has to say beyond OpenAI's fields."""

    job_id: str
    provider: str
    upstream_model: str
    latency_ms: int = Field(description="the upstream call alone")
    queue_ms: int = Field(description="from admission to the call")
    attempt_count: int
    cost_usd: float | None = Field(
        None, description="as the provider says, else by the configured prices; absent if unknown"
    )


class Completion(Output):
    """OpenAI's ``chat.completion``."""

    id: str = Field(description="chatcmpl- and what follows job_ in the job's id")
    object: Literal["chat.completion"]
    created: int = Field(description="seconds since the epoch")
    model: str = Field(description="as asked")
    choices: list[CompletionChoice] = Field(min_length=1, max_length=1)
    usage: CompletionUsage | None = Field(
        description="null when the provider did not say both numbers"
    )
    chatd: CompletionNotes
