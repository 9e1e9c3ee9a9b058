"""Why a job is not admitted, as the error its caller gets. Nothing was queued then."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chat.budget import budget_of
from chat.connection import RETRY_AFTER_S
from chat.errors import (
    ChatError,
    Draining,
    IdempotencyMismatch,
    NoWorker,
    QueueFull,
    QueueUnavailable,
    QuotaExhausted,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from chat.jobs import NewJob, rfc3339
from chat.types import Billed, Lane

if TYPE_CHECKING:
    from chat.settings import ChatdConfig

__all__ = ["NO_CAPS", "Caps", "caps_of", "refusal"]

#: The share of ``max_queued`` that batch jobs leave to people.
_LEFT_TO_PEOPLE = 0.05


@dataclass(frozen=True, slots=True)
class Caps:
    """How many jobs, and bytes of their requests, may wait: in all, and in one lane."""

    jobs: int
    bytes: int
    lane_jobs: int
    lane_bytes: int


#: For a job that was accepted once.
NO_CAPS = Caps(10**15, 10**15, 10**15, 10**15)


def caps_of(config: ChatdConfig, provider: str, lane: Lane) -> Caps:
    """What holds for a job of this provider and lane."""
    own = config.providers[provider]
    if lane is Lane.INTERACTIVE:
        return Caps(
            config.max_queued,
            config.max_queued_bytes,
            own.max_interactive,
            own.max_interactive_bytes,
        )
    jobs = config.max_queued - int(config.max_queued * _LEFT_TO_PEOPLE)
    return Caps(jobs, config.max_queued_bytes, own.max_batch, own.max_batch_bytes)


def refusal(reply: Sequence[Any], job: NewJob, config: ChatdConfig) -> ChatError:
    """The error for an answer of ``admit.lua`` that is not a job."""
    match reply:
        case ["mismatch", job_id]:
            return IdempotencyMismatch(
                f"this Idempotency-Key belongs to job {job_id}, which had another body; "
                "send the same body or another key",
                job_id=job_id,
            )
        case ["no_worker", seconds]:
            seen = f"for {seconds} s" if seconds else "since this Redis was started"
            return NoWorker(
                f"no worker of provider {job.provider} was seen {seen}; start one with "
                f"`chatd worker {job.provider}`, or POST /v1/jobs, which waits for one",
                provider=job.provider,
                retry_after_s=RETRY_AFTER_S,
            )
        case ["drained", since]:
            return Draining(
                f"provider {job.provider} is drained since {rfc3339(int(since))}: no call of it "
                f"begins until `chatd resume {job.provider}`; try again then, or POST /v1/jobs, "
                "which waits for that",
                provider=job.provider,
                retry_after_s=RETRY_AFTER_S,
            )
        case ["closed", why, milliseconds, opens_at]:
            return _closed(job, config, why, int(milliseconds), int(opens_at))
        case ["full", "memory", seconds]:
            return QueueUnavailable(
                "Redis has nearly used up its maxmemory, so that nothing more is accepted; try "
                "again when jobs have ended, or raise maxmemory",
                retry_after_s=float(seconds),
            )
    _, what, seconds = reply
    return QueueFull(
        f"{_rule(what, job, config)}; try again later",
        provider=job.provider,
        retry_after_s=float(seconds),
    )


def _rule(what: str, job: NewJob, config: ChatdConfig) -> str:
    caps = caps_of(config, job.provider, job.lane)
    if what == "bytes":
        return f"waiting requests reached max_queued_bytes = {caps.bytes}"
    if what == "jobs":
        kept = config.max_queued - caps.jobs
        left = f", less {kept} that are kept for people," if kept else ""
        return f"max_queued = {config.max_queued} jobs{left} are waiting"
    lane = f"the {job.lane.value} lane of {job.provider}"
    key = f"max_{job.lane.value}"
    if what == "lane bytes":
        return f"requests in {lane} reached {key}_bytes = {caps.lane_bytes}"
    return f"{key} = {caps.lane_jobs} jobs are waiting in {lane}"


def _closed(
    job: NewJob, config: ChatdConfig, why: str, milliseconds: int, opens_at: int
) -> ChatError:
    """The refusal of a job whose budget opens only after its deadline; nothing was queued."""
    seconds = math.ceil(milliseconds / 1000)
    match = budget_of(config.providers[job.provider], job.upstream_model).match
    what = f"{job.provider}, models {match}"
    late = f"for another {seconds} s, which is past timeout_s = {job.timeout_ms / 1000:g}"
    about: dict[str, Any] = {
        "provider": job.provider,
        "upstream_model": job.upstream_model,
        "retry_after_s": float(seconds),
    }
    if why == "rate_limited":
        return UpstreamRateLimited(f"{what}: the rate limit keeps them closed {late}", **about)
    if why == "overloaded":
        return UpstreamUnavailable(
            f"{what}: overloaded, and left alone {late}", billed=Billed.NO, **about
        )
    used = "the day's requests_per_day are" if why == "day_quota" else "the quota is"
    about["resets_at"] = rfc3339(opens_at)
    return QuotaExhausted(f"{what}: {used} used up {late}", retryable=True, **about)
