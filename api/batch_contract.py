"""What the batch calls answer, as models for the OpenAPI document; see ``api.contract``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.contract import Output
from chat.batches.batch import Status

__all__ = ["BatchAnswer", "Batches"]


class FaultAnswer(Output):
    """What is wrong with the input file."""

    code: str
    message: str
    line: int | None = Field(description="counted from 1; null: all of the file")
    param: str | None


class Faults(Output):
    """The first hundred faults of the input file."""

    object: Literal["list"]
    data: list[FaultAnswer]


class RequestCounts(Output):
    """Lines of the input file, and how many have a result."""

    total: int
    completed: int
    failed: int


class InputDetails(Output):
    """Always 0: providers that cache do not say it in one way."""

    cached_tokens: int


class OutputDetails(Output):
    """Always 0: providers that reason do not count it in one way."""

    reasoning_tokens: int


class BatchUsage(Output):
    """Tokens of all results, where the providers said them."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class BatchExtension(Output):
    """What OpenAI's object has no place for."""

    cost_usd: float | None = Field(description="of the results whose cost is known")
    errors: dict[str, int] = Field(description="failed lines by code")


class BatchAnswer(Output):
    """A batch, as OpenAI's API shows one; times are seconds since the epoch."""

    id: str
    object: Literal["batch"]
    endpoint: str
    model: None = Field(description="lines may ask for different ones")
    errors: Faults | None
    input_file_id: str
    completion_window: str
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    expires_at: int
    in_progress_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None
    chatd: BatchExtension


class Batches(Output):
    """One page of the batches."""

    object: Literal["list"]
    data: list[BatchAnswer]
    first_id: str | None
    last_id: str | None = Field(description="what `after` has to be for the page that follows")
    has_more: bool
