"""What the evaluation calls answer, as models for the OpenAPI document; see ``api.contract``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, RootModel

from api.batch_contract import Faults
from api.contract import AttemptAnswer, Output
from chat.batches.batch import Status
from chat.types import FinishReason

__all__ = [
    "CacheAnswer",
    "ClearedCache",
    "EvaluationAnswer",
    "Evaluations",
    "ReportPage",
    "ReportTable",
    "ReportTests",
    "Row",
    "SuiteSchema",
    "Summary",
]


class ScoreFigures(Output):
    """What one scorer says of one model. An error is no wrong answer: it is in no mean."""

    scorer: str
    type: str
    mean: float | None = Field(
        description="of the means of the samples, each over its repeats; null without any score"
    )
    stderr: float | None = Field(
        description="standard error of the mean, with the samples as clusters; null below two of "
        "them, and while the evaluation runs"
    )
    low: float | None = Field(description="Wilson's 95 % interval; null while it runs")
    high: float | None
    scored: int = Field(description="answers that have a score")
    unparsable: int = Field(description="answers whose verdict could not be read")
    errored: int = Field(description="answers whose verdict could not be had")
    samples: int | None = Field(description="those the mean is of; null while it runs")


class Percentiles(Output):
    """The least value that so many percent do not exceed, in ms."""

    p50: int
    p95: int
    p99: int


class JudgeFigures(Output):
    """What the verdicts on one model's answers took."""

    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None = Field(description="of the calls whose cost is known")


class ModelFigures(Output):
    """One model's results, at the end of a round."""

    name: str = Field(description="what the suite calls it")
    model: str = Field(description="as asked")
    provider: str | None = Field(description="null in a summary where nothing was answered")
    upstream_model: str | None
    total: int = Field(description="questions: samples x repeats")
    answered: int
    errored: int
    cached: int = Field(description="answers that were known already")
    truncated: int | None = Field(
        description="answers that ended at max_tokens; null while it runs"
    )
    errors: dict[str, int] = Field(description="questions without an answer, by code")
    scores: list[ScoreFigures]
    queue_ms: Percentiles | None = Field(description="from admission to the call")
    model_ms: Percentiles | None = Field(description="the upstream call alone")
    input_tokens: int
    output_tokens: int
    cost_usd: float | None = Field(description="of the answers whose cost is known")
    judge: JudgeFigures


class VerdictCounts(Output):
    """Verdicts of judges; ``total`` is those that the answers so far ask for."""

    total: int
    scored: int
    unparsable: int
    errored: int


class ModelProgress(ModelFigures):
    """One model's results so far."""

    verdicts: VerdictCounts


class AnswerCounts(Output):
    """Questions of all models, and what came of them."""

    total: int
    answered: int
    errored: int
    cached: int


class EvaluationUsage(Output):
    """Of all answers and verdicts, where the providers said it; what was cached took nothing."""

    input_tokens: int
    output_tokens: int
    cost_usd: float | None


class EvaluationAnswer(Output):
    """An evaluation; times are seconds since the epoch."""

    id: str
    object: Literal["evaluation"]
    name: str
    description: str | None
    status: Status
    errors: Faults | None = Field(description="of the dataset; then nothing was asked")
    input_file_id: str
    created_at: int
    expires_at: int | None = Field(description="of the round; null before the first")
    in_progress_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    round: int = Field(description="1 asks everything, each further one what failed; 0: not yet")
    batch_ids: list[str] = Field(description="one for each round")
    samples: int
    repeats: int
    counts: AnswerCounts
    verdicts: VerdictCounts
    models: list[ModelProgress]
    usage: EvaluationUsage
    metadata: dict[str, str] | None


class Evaluations(Output):
    """One page of the evaluations."""

    object: Literal["list"]
    data: list[EvaluationAnswer]
    first_id: str | None
    last_id: str | None = Field(description="what `after` has to be for the page that follows")
    has_more: bool


class RowError(Output):
    """Why a question has no answer."""

    code: str
    message: str
    upstream_status: int | None = None
    provider: str | None = None
    upstream_model: str | None = None


class RowJudge(Output):
    """How a verdict came to be; the counts are of both tries and of every round."""

    reply: str | None = Field(description="the last one; null if there was none")
    tries: int
    cached: bool
    input_tokens: int
    output_tokens: int
    queue_ms: int
    latency_ms: int
    cost_usd: float | None
    job_ids: list[str]
    attempts: list[AttemptAnswer]


class RowScore(Output):
    """What one scorer says of an answer."""

    status: Literal["scored", "unparsable", "errored"]
    score: float | None = Field(description="from 0 to 1; null unless the status is scored")
    reason: str | None
    code: str | None = Field(description="of the error, if the status is errored")
    judge: RowJudge | None = Field(description="null for a scorer that needs no model")


class Row(Output):
    """One line of the results: there is one for each model, sample and repeat."""

    sample: str = Field(description="its id")
    model: str = Field(description="what the suite calls it")
    repeat: int = Field(description="counted from 1")
    status: Literal["answered", "errored"]
    cached: bool = Field(description="the answer was known already: it took no time and money")
    messages: list[dict[str, Any]] = Field(description="as the model was sent them")
    expected: Any
    answer: str | None
    reasoning: str | None
    finish_reason: FinishReason | None
    error: RowError | None
    scores: dict[str, RowScore] = Field(description="by scorer; empty without an answer")
    provider: str | None
    upstream_model: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    queue_ms: int | None
    latency_ms: int | None
    job_id: str | None
    round: int | None = Field(description="in which it was asked last; null if it never was")
    attempts: list[AttemptAnswer] = Field(description="every upstream call, in all rounds")


class EvaluationNotes(Output):
    """Which evaluation, and how it ended; times are seconds since the epoch."""

    id: str
    name: str
    description: str | None
    status: Status
    created_at: int
    ended_at: int | None
    metadata: dict[str, str] | None
    round: int


class Comparison(Output):
    """Two models by one scorer, over the samples that every model has a score for."""

    scorer: str
    a: str
    b: str
    samples: int
    difference: float | None = Field(description="mean of b minus a")
    stderr: float | None
    low: float | None = Field(description="95 % interval of the difference")
    high: float | None
    wins: int = Field(description="samples in which b is better")
    losses: int
    ties: int
    p: float = Field(description="two-sided sign test over wins and losses")


class Timeline(Output):
    """When calls were answered and when they were refused by a limit, by model."""

    begins: int = Field(description="seconds since the epoch")
    step_s: int
    answered: dict[str, list[int]]
    refused: dict[str, list[int]]


class EvaluationTotals(Output):
    """All models together."""

    rows: int
    answered: int
    errored: int
    cached: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None = Field(description="of the answers; those of judges are beside it")
    judge_calls: int
    judge_cost_usd: float | None


class Summary(Output):
    """Every figure of an evaluation, at the end of its last round."""

    evaluation: EvaluationNotes
    suite: dict[str, Any] = Field(description="as it was given")
    samples: int
    repeats: int
    models: list[ModelFigures]
    comparisons: list[Comparison]
    timeline: Timeline | None
    totals: EvaluationTotals


class ReportPage(RootModel[str]):
    """The report: one HTML page that needs no network."""


class ReportTable(RootModel[str]):
    """The results as CSV, with a column for each scorer."""


class ReportTests(RootModel[str]):
    """The scores as JUnit has them: a suite for each model."""


class SuiteSchema(Output):
    """A JSON Schema (draft 2020-12)."""

    model_config = ConfigDict(extra="allow")

    properties: dict[str, Any]


class CacheAnswer(Output):
    """The answers at temperature 0 that are known."""

    answers: int
    bytes: int
    oldest_at: int | None = Field(description="seconds since the epoch; null when there are none")


class ClearedCache(Output):
    """How many answers are known no more."""

    deleted: int
