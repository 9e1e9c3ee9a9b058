"""What the front end answers, as models for the OpenAPI document.

Nothing is validated by them at run time; the tests check the views' answers against them, so that
the document and the code cannot part. Requests are in ``api.schema``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schema import MetadataKey, MetadataValue
from chat.jobs import JobState
from chat.types import Billed, FinishReason, Lane

__all__ = ["Answer", "ErrorAnswer", "Health", "Providers", "Ready", "Record"]


class _Output(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CalledFunction(_Output):
    """Which function the model calls, and its arguments as JSON text."""

    name: str
    arguments: str


class ToolCallAnswer(_Output):
    """One function call the model asks for."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class _Content(_Output):
    model: str = Field(description="as asked")
    provider: str
    upstream_model: str
    content: str
    reasoning: str | None
    tool_calls: list[ToolCallAnswer]
    finish_reason: FinishReason
    input_tokens: int | None = Field(description="null when the provider did not say")
    output_tokens: int | None = Field(description="null when the provider did not say")
    latency_ms: int = Field(description="the upstream call alone")
    queue_ms: int = Field(description="from admission to the call")
    attempt_count: int
    cost_usd: float | None = Field(None, description="only where the provider says it")


class StoredAnswer(_Content):
    """An answer as the job's record has it."""


class Answer(_Content):
    """What the model answered. Empty content is never silent: ``finish_reason`` says why."""

    id: str = Field(description="the job's id")


class ErrorDetail(_Output):
    """What went wrong, with a stable ``code``."""

    code: str
    message: str = Field(description="names the value, the rule and the way out")
    type: (
        Literal["invalid_request_error", "rate_limit_error", "upstream_error", "server_error"]
        | None
    ) = Field(None, description="absent in a job's record")
    param: str | None = Field(None, description="the field at fault")
    job_id: str | None = None
    provider: str | None = None
    upstream_model: str | None = None
    upstream_status: int | None = None
    retry_after_s: float | None = None
    resets_at: str | None = Field(None, description="RFC 3339")
    latency_ms: int | None = None


class ErrorAnswer(_Output):
    """The body of every answer with a status of 400 or more."""

    error: ErrorDetail


class AttemptAnswer(_Output):
    """One upstream call."""

    number: int
    worker: str
    started_at: str
    ended_at: str | None
    outcome: str | None
    upstream_status: int | None
    billed: Billed | None


class Waiting(_Output):
    """Why a job is not in a call."""

    reason: str
    until: str | None = None
    position: int | None = None


class Record(_Output):
    """Everything known about a job; times are RFC 3339."""

    id: str
    state: JobState
    lane: Lane
    model: str
    provider: str
    upstream_model: str
    created_at: str
    deadline_at: str
    attempts: list[AttemptAnswer]
    response: StoredAnswer | None
    error: ErrorDetail | None
    waiting: Waiting | None
    metadata: dict[MetadataKey, MetadataValue]


class LaneAnswer(_Output):
    """What waits in one lane."""

    depth: int
    oldest_age_s: float | None


class Lanes(_Output):
    """A provider's two lanes."""

    interactive: LaneAnswer
    batch: LaneAnswer


class BudgetAnswer(_Output):
    """How many calls at a time the models that ``match`` may have, and how many they have."""

    match: str
    concurrency: int
    in_use: int


class ProviderAnswer(_Output):
    """One registered provider."""

    name: str
    lanes: Lanes
    budgets: list[BudgetAnswer]


class Providers(_Output):
    """The registered providers."""

    default: str
    providers: list[ProviderAnswer]


class Health(_Output):
    """The process answers."""

    status: Literal["ok"]
    version: str


class Ready(_Output):
    """Whether a chat would be served now."""

    status: Literal["ready", "not ready"]
    redis: str = Field(description='"ok", or what is wrong with it')
    workers: dict[str, float | None] = Field(
        description="seconds since a worker of each provider was last seen; null for never"
    )


class Document(BaseModel):
    """An OpenAPI document."""

    model_config = ConfigDict(extra="allow")

    openapi: str
    paths: dict[str, Any]
