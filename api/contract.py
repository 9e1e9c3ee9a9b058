"""What the front end answers, as models for the OpenAPI document.

Nothing is validated by them at run time; the tests check the views' answers against them, so that
the document and the code cannot part. Requests are in ``chat.formats.chat``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel
from pydantic.json_schema import SkipJsonSchema

from chat.files import LIFETIMES_S, Purpose
from chat.formats.chat import MetadataKey, MetadataValue
from chat.jobs import JobState
from chat.types import Billed, FinishReason, Lane

__all__ = [
    "Answer",
    "DeletedFile",
    "ErrorAnswer",
    "Event",
    "FileAnswer",
    "FileContent",
    "FileForm",
    "Files",
    "Health",
    "Jobs",
    "Metrics",
    "ModelAnswer",
    "Models",
    "Output",
    "Providers",
    "Ready",
    "Record",
]


class Output(BaseModel):
    """Base of every answer: what a model does not name is not sent."""

    model_config = ConfigDict(extra="forbid")


class CalledFunction(Output):
    """Which function the model calls, and its arguments as JSON text."""

    name: str
    arguments: str


class ToolCallAnswer(Output):
    """One function call the model asks for."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class _Content(Output):
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
    cost_usd: float | None = Field(
        None, description="as the provider says, else by the configured prices; absent if unknown"
    )


class StoredAnswer(_Content):
    """An answer as the job's record has it."""


class Answer(_Content):
    """What the model answered. Empty content is never silent: ``finish_reason`` says why."""

    id: str = Field(description="the job's id")


class PartialAnswer(Output):
    """What had come of an answer that was to come piece by piece."""

    content: str
    reasoning: str | None
    tool_calls: list[ToolCallAnswer] = Field(
        description="the last one may lack a part of its arguments"
    )
    output_tokens: int | None = Field(None, description="as far as the provider had said")


class ErrorDetail(Output):
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
    partial: PartialAnswer | None = Field(
        None, description="of an answer that broke off in the middle of its stream"
    )
    retryable: bool | None = Field(None, description="where it is not what the code says")
    billed: Billed | None = Field(
        None, description="of all calls of the job, where it is not what the code says"
    )


class ErrorAnswer(Output):
    """The body of every answer with a status of 400 or more."""

    error: ErrorDetail


class Event(Output):
    """One event of a stream (WHATWG HTML, Server-sent events).

    `delta` has one of `content`, `reasoning` and `tool_call`, a piece of that; `answer` the whole
    answer; `error` what an answer that is an error has. In OpenAI's format events have no name:
    each has a chunk, `error` or, the last one, the word [DONE].
    """

    id: str | None = Field(None, description="what Last-Event-ID has to be to go on behind it")
    event: Literal["message", "delta", "answer", "error"] = "message"
    data: str = Field(description="JSON on one line")


class AttemptAnswer(Output):
    """One upstream call."""

    number: int
    worker: str
    started_at: str
    ended_at: str | None
    outcome: str | None
    upstream_status: int | None
    billed: Billed | None


class Waiting(Output):
    """Why a job is not in a call."""

    reason: str
    until: str | None = Field(None, description="RFC 3339; null when nobody knows")
    position: int | None = Field(None, description="its place among those that wait for the same")
    estimated_start_at: str | None = Field(None, description="RFC 3339; null when nobody knows")


class ListedJob(Output):
    """A job in a list: its record without ``response`` and ``partial``, which may be large."""

    id: str
    state: JobState
    lane: Lane
    model: str
    provider: str
    upstream_model: str
    created_at: str
    deadline_at: str
    attempts: list[AttemptAnswer]
    error: ErrorDetail | None
    waiting: Waiting | None
    metadata: dict[MetadataKey, MetadataValue]
    owner: str | None = Field(
        description="the name of the key that it was made with; null without keys"
    )


class Record(ListedJob):
    """Everything known about a job; times are RFC 3339."""

    response: StoredAnswer | None


class Jobs(Output):
    """One page of the jobs that match, newest first."""

    jobs: list[ListedJob] = Field(
        description="without `response`; GET /v1/jobs/{job_id} has it. May be fewer than `limit`, "
        "even none, while `next` is set: one call looks at 1,000 jobs at the most"
    )
    next: str | None = Field(
        description="what `after` has to be for the page that follows; null when there is none"
    )


class LaneAnswer(Output):
    """What waits in one lane of a provider."""

    depth: int = Field(description="jobs queued for a worker")
    oldest_age_s: float | None = Field(description="of what waits here; null if nothing does")
    parked: int = Field(description="jobs set aside until their budgets can start them")
    starts_per_s: float = Field(description="how many calls began, lately")


class Lanes(Output):
    """A provider's two lanes."""

    interactive: LaneAnswer
    batch: LaneAnswer


class LaneCounts(Output):
    """A number per lane."""

    interactive: int
    batch: int


class Closed(Output):
    """Why a budget starts no calls, and until when."""

    reason: Literal["rate_limited", "overloaded", "quota_exhausted", "day_quota"]
    until: str = Field(description="RFC 3339")
    seconds: float = Field(description="how long that is from now")


class Day(Output):
    """The calls of today against the most there may be."""

    used: int
    limit: int
    resets_at: str = Field(description="RFC 3339")


class BudgetAnswer(Output):
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


class UpstreamTimes(Output):
    """How long upstream calls took, in ms."""

    buckets: list[tuple[float | Literal["+Inf"], int]] = Field(
        description="pairs: an upper bound, and how many calls took no longer"
    )
    sum: float


class Totals(Output):
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


class ProviderAnswer(Output):
    """One registered provider."""

    name: str
    concurrency: int = Field(description="calls it may have in flight, over all workers")
    in_use: LaneCounts = Field(description="calls in flight")
    last_seen_s: float | None = Field(description="since a worker was last seen; null for never")
    drained_since: str | None = Field(
        description="RFC 3339: no call begins since then, by `chatd drain`; null: they begin"
    )
    lanes: Lanes
    budgets: list[BudgetAnswer]
    totals: Totals


class JobCounts(Output):
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
    recalled: int = Field(description="calls that Redis had forgotten and workers told it again")
    recreated: int = Field(description="of these, jobs that it had forgotten altogether")
    parks: int = Field(description="times a job was set aside for its budget")
    bytes: int = Field(description="of the requests of jobs that are not over")


class Providers(Output):
    """The registered providers, and counts of all jobs."""

    default: str
    providers: list[ProviderAnswer]
    jobs: JobCounts


class ModelNotes(Output):
    """What chatd knows of a model beyond OpenAI's fields; what does not apply is absent."""

    tier: Literal[True] | None = Field(None, description="a name of the configuration's [models]")
    model: str | None = Field(None, description="the model id that the tier stands for")
    weak: Literal[True] | None = Field(None, description="one of weak_models")


class ModelAnswer(Output):
    """A name that `model` of a chat can have."""

    id: str
    object: Literal["model"]
    created: int = Field(description="seconds since the epoch; 0 where the provider does not say")
    owned_by: str = Field(description="the provider, or chatd for a tier")
    chatd: ModelNotes | None = Field(None, description="absent where there is nothing to add")


class ModelLists(Output):
    """How old the lists are."""

    lists: dict[str, str | None] = Field(
        description="when each registered provider's list was fetched (RFC 3339); null: there is "
        "none of the last day"
    )


class Models(Output):
    """The tiers, and what each registered provider lists."""

    object: Literal["list"]
    data: list[ModelAnswer]
    chatd: ModelLists


class FileAnswer(Output):
    """A stored file, as OpenAI's API shows one; times are seconds since the epoch."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None = Field(description="null: never")
    filename: str
    purpose: Purpose
    status: Literal["processed"]


class Files(Output):
    """One page of the files that are there."""

    object: Literal["list"]
    data: list[FileAnswer]
    first_id: str | None
    last_id: str | None = Field(description="what `after` has to be for the page that follows")
    has_more: bool


class DeletedFile(Output):
    """A file that is no more."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


class FileContent(RootModel[str]):
    """What is in a file, as it was uploaded or written."""


_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


class FileForm(Output):
    """An upload, as multipart/form-data. Unlike JSON bodies it is checked part by part."""

    model_config = ConfigDict(
        json_schema_extra={"dependentRequired": {_ANCHOR: [_SECONDS], _SECONDS: [_ANCHOR]}}
    )

    file: str = Field(
        description="with a filename; at most `file_limit` of the configuration",
        min_length=1,
        json_schema_extra={"contentMediaType": "application/octet-stream"},
    )
    purpose: Literal["batch"]
    # A form has no null: these are left out or have a value.
    anchor: Literal["created_at"] | SkipJsonSchema[None] = Field(
        None,
        alias=_ANCHOR,
        description="together with the seconds",
        json_schema_extra=_without_default,
    )
    seconds: Annotated[int, Field(ge=LIFETIMES_S[0], le=LIFETIMES_S[1])] | SkipJsonSchema[None] = (
        Field(
            None,
            alias=_SECONDS,
            description="how long it is kept; otherwise `file_retention_s` of the configuration",
            json_schema_extra=_without_default,
        )
    )


class Metrics(RootModel[str]):
    """Metrics in the text format of Prometheus, version 0.0.4."""


class Health(Output):
    """The process answers."""

    status: Literal["ok"]
    version: str


class Ready(Output):
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
