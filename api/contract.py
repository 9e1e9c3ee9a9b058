"""What the front end answers, as models for the OpenAPI document.

Nothing is validated by them at run time; the tests check the views' answers against them, so that
the document and the code cannot part. Requests are in ``api.schema``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from api.schema import MetadataKey, MetadataValue
from chat.jobs import JobState
from chat.types import Billed, FinishReason, Lane

__all__ = ["Answer", "ErrorAnswer", "Health", "Metrics", "Providers", "Ready", "Record"]


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
    """What waits in one lane of a provider."""

    depth: int = Field(description="jobs queued for a worker")
    oldest_age_s: float | None = Field(description="of what waits here; null if nothing does")
    parked: int = Field(description="jobs set aside until their budgets can start them")
    starts_per_s: float = Field(description="how many calls began, lately")


class Lanes(_Output):
    """A provider's two lanes."""

    interactive: LaneAnswer
    batch: LaneAnswer


class LaneCounts(_Output):
    """A number per lane."""

    interactive: int
    batch: int


class Closed(_Output):
    """Why a budget starts no calls, and until when."""

    reason: Literal["rate_limited", "overloaded", "quota_exhausted", "day_quota"]
    until: str = Field(description="RFC 3339")
    seconds: float = Field(description="how long that is from now")


class Day(_Output):
    """The calls of today against the most there may be."""

    used: int
    limit: int
    resets_at: str = Field(description="RFC 3339")


class BudgetAnswer(_Output):
    """What the models that ``match`` may have of a provider, and what they have."""

    match: str
    model: str | None = Field(description="set where each model has a budget of its own")
    in_use: int = Field(description="calls in flight")
    rate_per_minute: float | None = Field(description="calls that may start now; null: no limit")
    rate_cap_per_minute: int | None = Field(description="as configured, or as the provider says")
    learned: bool = Field(description="whether refusals have made the rate what it is")
    tokens_per_minute: int | None
    closed: Closed | None
    day: Day | None
    parked: LaneCounts


class UpstreamTimes(_Output):
    """How long upstream calls took, in ms."""

    buckets: list[tuple[float | Literal["+Inf"], int]] = Field(
        description="pairs: an upper bound, and how many calls took no longer"
    )
    sum: float


class Totals(_Output):
    """What became of all calls to a provider, since Redis was empty."""

    calls: int
    succeeded: int
    failed: int
    cancelled: int
    refused: int = Field(description="of those that failed: by a rate limit (429)")
    overloaded: int = Field(description="of those that failed: the provider was overloaded")
    quota_exhausted: int = Field(description="of those that failed: a quota was used up")
    cool_downs: int = Field(description="times a budget was closed for a while")
    input_tokens: int
    output_tokens: int
    upstream_ms: UpstreamTimes


class ProviderAnswer(_Output):
    """One registered provider."""

    name: str
    concurrency: int = Field(description="calls it may have in flight, over all workers")
    in_use: LaneCounts = Field(description="calls in flight")
    last_seen_s: float | None = Field(description="since a worker was last seen; null for never")
    lanes: Lanes
    budgets: list[BudgetAnswer]
    totals: Totals


class JobCounts(_Output):
    """All jobs: ``accepted`` is the sum of the states and ``retired``, at every moment."""

    accepted: int
    queued: int
    waiting: int
    calling: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    retired: int = Field(description="ended jobs whose records were removed")
    republished: int = Field(description="lost wake-ups that were sent again")
    reclaimed: int = Field(description="calls given up because their worker was gone")
    permits_overrun: int = Field(description="calls that went on after they had been given up")
    parks: int = Field(description="times a job was set aside for its budget")
    bytes: int = Field(description="of the requests of jobs that are not over")


class Providers(_Output):
    """The registered providers, and counts of all jobs."""

    default: str
    providers: list[ProviderAnswer]
    jobs: JobCounts


class Metrics(RootModel[str]):
    """Metrics in the text format of Prometheus, version 0.0.4."""


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
