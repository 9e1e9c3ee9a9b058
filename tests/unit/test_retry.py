"""Again or not: every kind of failure in a table, and what holds whatever happens to a job."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import cycle, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import (
    ChatError,
    ContentFiltered,
    DeadlineExceeded,
    JobCancelled,
    OutcomeUnknown,
    QuotaExhausted,
    UpstreamAuth,
    UpstreamNotFound,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    error_classes,
)
from chat.retry import Decision, Signal, Tally, decide, signal, tally
from chat.types import Billed


@dataclass(frozen=True, kw_only=True)
class Job:
    """What ``decide`` is told beside the error."""

    answered: int = 0
    refused: int = 0
    unknown: int = 0
    max_attempts: int = 3
    max_lost_calls: int = 5
    on_lost_call: str = "retry"
    remaining_s: float = 1000.0
    chance: float = 1.0

    def after(self, error: ChatError) -> Decision:
        """The decision once ``error`` has been counted."""
        return decide(
            error,
            answered=self.answered,
            refused=self.refused,
            unknown=self.unknown,
            max_attempts=self.max_attempts,
            max_lost_calls=self.max_lost_calls,
            on_lost_call=self.on_lost_call,
            remaining_s=self.remaining_s,
            chance=self.chance,
        )


def rate(seconds: float | None = None) -> ChatError:
    return UpstreamRateLimited("slow", upstream_status=429, retry_after_s=seconds)


def quota(seconds: float | None = None, *, renewed: bool = True) -> ChatError:
    return QuotaExhausted("spent", upstream_status=429, retry_after_s=seconds, retryable=renewed)


def busy(status: int | None = 503, seconds: float | None = None) -> ChatError:
    return UpstreamUnavailable(
        "full", upstream_status=status, retry_after_s=seconds, billed=Billed.NO
    )


def failed(status: int | None = 500) -> ChatError:
    return UpstreamUnavailable("broken", upstream_status=status)


def timed_out(status: int | None = None, billed: Billed = Billed.MAYBE) -> ChatError:
    return UpstreamTimeout("late", upstream_status=status, billed=billed)


END = Decision(again=False)


def again(reason: str, delay_s: float = 0.0) -> Decision:
    return Decision(again=True, delay_s=delay_s, reason=reason)


FIRST = Job(answered=1)
REFUSED = Job(refused=1)
LOST = Job(unknown=1)


@pytest.mark.parametrize(
    ("error", "job", "decision"),
    [
        pytest.param(rate(), REFUSED, again("rate_limited"), id="rate limit"),
        pytest.param(rate(9), REFUSED, again("rate_limited"), id="rate limit, with a hint"),
        pytest.param(rate(1000), REFUSED, END, id="rate limit that outlasts the deadline"),
        pytest.param(rate(), replace(REFUSED, remaining_s=0), END, id="rate limit, no time left"),
        pytest.param(
            rate(),
            Job(refused=299, answered=3),
            again("rate_limited"),
            id="refusals are no attempts",
        ),
        pytest.param(rate(), Job(refused=300), END, id="refused for the last time"),
        pytest.param(
            rate(), Job(refused=100, max_attempts=1), END, id="fewer attempts, fewer refusals"
        ),
        pytest.param(
            UpstreamRateLimited("slow", upstream_status=429, billed=Billed.MAYBE),
            FIRST,
            again("retry", 1.0),
            id="a limit in mid-answer is an attempt",
        ),
        pytest.param(quota(60), REFUSED, again("quota_exhausted"), id="quota, reset in time"),
        pytest.param(quota(1000), REFUSED, END, id="quota, reset too late"),
        pytest.param(quota(), REFUSED, again("quota_exhausted"), id="quota, reset unknown"),
        pytest.param(quota(), Job(refused=300), END, id="quota, asked often enough"),
        pytest.param(quota(renewed=False), REFUSED, END, id="balance"),
        pytest.param(
            quota(60, renewed=False), REFUSED, again("quota_exhausted"), id="balance, until when"
        ),
        pytest.param(busy(), FIRST, again("overloaded", 1.0), id="overloaded"),
        pytest.param(busy(529), FIRST, again("overloaded", 1.0), id="overloaded, 529"),
        pytest.param(busy(429), FIRST, again("overloaded", 1.0), id="engine overloaded"),
        pytest.param(busy(None), FIRST, again("overloaded", 1.0), id="never reached"),
        pytest.param(busy(), Job(answered=2), again("overloaded", 2.0), id="overloaded again"),
        pytest.param(busy(), Job(answered=3), END, id="overloaded for the last time"),
        pytest.param(busy(503, 7), FIRST, again("overloaded", 7.0), id="overloaded, with a hint"),
        pytest.param(busy(503, 1000), FIRST, END, id="overloaded for too long"),
        pytest.param(busy(503, 0), FIRST, again("overloaded", 1.0), id="a hint of nothing"),
        pytest.param(busy(), replace(FIRST, remaining_s=1), END, id="no time for the back-off"),
        pytest.param(
            busy(), replace(FIRST, remaining_s=1.01), again("overloaded", 1.0), id="just in time"
        ),
        pytest.param(busy(), replace(FIRST, chance=0), again("overloaded", 0.5), id="by chance"),
        pytest.param(
            busy(), Job(answered=99, max_attempts=100), again("overloaded", 60.0), id="a minute"
        ),
        pytest.param(failed(), FIRST, again("retry", 1.0), id="failed"),
        pytest.param(failed(502), FIRST, again("retry", 1.0), id="failed behind"),
        pytest.param(failed(), Job(answered=3), END, id="failed for the last time"),
        pytest.param(busy(499), FIRST, again("retry", 1.0), id="let go"),
        pytest.param(
            failed(),
            Job(answered=2, unknown=4),
            again("retry", 2.0),
            id="lost before, answered now",
        ),
        pytest.param(
            timed_out(billed=Billed.NO), FIRST, again("retry", 1.0), id="late before it was sent"
        ),
        pytest.param(failed(None), LOST, again("retry", 1.0), id="connection cut"),
        pytest.param(timed_out(), LOST, again("retry", 1.0), id="time limit of the call"),
        pytest.param(timed_out(408), LOST, again("retry", 1.0), id="408"),
        pytest.param(timed_out(504), LOST, again("retry", 1.0), id="504"),
        pytest.param(timed_out(524), LOST, again("retry", 1.0), id="524"),
        pytest.param(
            timed_out(), Job(unknown=1, answered=1), again("retry", 2.0), id="lost after an answer"
        ),
        pytest.param(
            timed_out(), replace(LOST, on_lost_call="fail"), END, id="unknown, not to be repeated"
        ),
        pytest.param(
            timed_out(504), replace(LOST, on_lost_call="fail"), END, id="504, not to be repeated"
        ),
        pytest.param(timed_out(), Job(unknown=3), END, id="unknown too often for an attempt"),
        pytest.param(
            timed_out(), Job(unknown=2, answered=1), END, id="unknown and answered together"
        ),
        pytest.param(
            timed_out(), Job(unknown=5, max_attempts=100), END, id="unknown too often for a loss"
        ),
        pytest.param(timed_out(), Job(unknown=1, max_lost_calls=1), END, id="no call may be lost"),
    ],
)
def test_a_failure_ends_the_job_or_is_tried_again(
    error: ChatError, job: Job, decision: Decision
) -> None:
    """The table of decisions; with a chance of 1 the back-off is whole."""
    assert job.after(error) == decision


#: What never passes, by class; an error that is not here has to be retryable.
FINAL = [cls for cls in error_classes() if not cls.retryable]


@pytest.mark.parametrize("cls", FINAL, ids=lambda cls: cls.__name__)
def test_what_does_not_pass_is_never_tried_again(cls: type[ChatError]) -> None:
    """Whatever the bill says, and however early it is."""
    for billed in Billed:
        error = cls("no", billed=billed)

        assert tally(error) is Tally.NONE
        assert Job().after(error) == END


def test_the_final_errors_are_those_of_the_request_the_key_and_the_policy() -> None:
    """None of them became retryable unseen."""
    never = {
        *(UpstreamRejected, UpstreamAuth, UpstreamNotFound, UpstreamProtocolError),
        *(ContentFiltered, JobCancelled, DeadlineExceeded, OutcomeUnknown),
    }

    assert never <= set(FINAL)


@pytest.mark.parametrize(
    ("error", "learned"),
    [
        pytest.param(None, Signal.ACCEPTED, id="success"),
        pytest.param(
            UpstreamProtocolError("no JSON", upstream_status=200, billed=Billed.YES),
            Signal.ACCEPTED,
            id="an answer that cannot be used",
        ),
        pytest.param(
            UpstreamProtocolError("no HTTP"), Signal.NONE, id="something that is no answer"
        ),
        pytest.param(rate(), Signal.REFUSED, id="rate limit"),
        pytest.param(
            UpstreamRateLimited("slow", upstream_status=429, billed=Billed.MAYBE),
            Signal.REFUSED,
            id="rate limit in mid-answer",
        ),
        pytest.param(quota(), Signal.QUOTA, id="quota, reset unknown"),
        pytest.param(quota(60), Signal.QUOTA, id="quota, reset known"),
        pytest.param(quota(renewed=False), Signal.NONE, id="balance"),
        pytest.param(quota(60, renewed=False), Signal.QUOTA, id="balance, until when"),
        pytest.param(busy(503), Signal.OVERLOADED, id="503"),
        pytest.param(busy(529), Signal.OVERLOADED, id="529"),
        pytest.param(busy(429), Signal.OVERLOADED, id="engine overloaded"),
        pytest.param(busy(None), Signal.OVERLOADED, id="never reached"),
        pytest.param(
            UpstreamUnavailable("TLS", billed=Billed.NO, retryable=False),
            Signal.NONE,
            id="never to be reached",
        ),
        pytest.param(busy(500), Signal.NONE, id="a local model crashed"),
        pytest.param(failed(500), Signal.NONE, id="500"),
        pytest.param(failed(None), Signal.NONE, id="connection cut"),
        pytest.param(timed_out(504), Signal.NONE, id="504"),
        pytest.param(UpstreamAuth("key", upstream_status=401), Signal.NONE, id="refused key"),
        pytest.param(JobCancelled("stop"), Signal.NONE, id="cancelled"),
    ],
)
def test_a_budget_learns_from_the_end_of_a_call(error: ChatError | None, learned: Signal) -> None:
    """Only what says something about its limits, its quota or its load."""
    assert signal(error) is learned


@pytest.mark.parametrize(
    ("error", "count"),
    [
        pytest.param(rate(), Tally.REFUSED, id="rate limit"),
        pytest.param(quota(), Tally.REFUSED, id="quota"),
        pytest.param(quota(renewed=False), Tally.NONE, id="balance"),
        pytest.param(busy(), Tally.ANSWERED, id="overloaded"),
        pytest.param(busy(None), Tally.ANSWERED, id="never reached"),
        pytest.param(failed(), Tally.ANSWERED, id="failed"),
        pytest.param(failed(None), Tally.UNKNOWN, id="connection cut"),
        pytest.param(timed_out(), Tally.UNKNOWN, id="time limit of the call"),
        pytest.param(timed_out(408), Tally.UNKNOWN, id="408"),
        pytest.param(timed_out(504), Tally.UNKNOWN, id="504"),
        pytest.param(timed_out(524), Tally.UNKNOWN, id="524"),
        pytest.param(
            UpstreamUnavailable("cut", billed=Billed.YES), Tally.NONE, id="paid for already"
        ),
    ],
)
def test_a_failed_attempt_belongs_to_one_count(error: ChatError, count: Tally) -> None:
    """So that the worker and the decision count alike."""
    assert tally(error) is count


_STATUSES = st.sampled_from([None, 200, 402, 408, 429, 500, 502, 503, 504, 524, 529])
_HINTS = st.none() | st.floats(0, 10**6)


@st.composite
def _errors(draw: st.DrawFn) -> ChatError:
    cls = draw(st.sampled_from(error_classes()))
    return cls(
        "what happened",
        upstream_status=draw(_STATUSES),
        retry_after_s=draw(_HINTS),
        retryable=draw(st.none() | st.booleans()),
        billed=draw(st.sampled_from(Billed)),
    )


_JOBS = st.builds(
    Job,
    answered=st.integers(0, 200),
    refused=st.integers(0, 2000),
    unknown=st.integers(0, 200),
    max_attempts=st.integers(1, 100),
    max_lost_calls=st.integers(0, 1000),
    on_lost_call=st.sampled_from(["retry", "fail"]),
    remaining_s=st.floats(-10, 10**6),
    chance=st.floats(0, 1),
)


@given(error=_errors(), job=_JOBS)
def test_nothing_is_tried_again_that_does_not_fit(error: ChatError, job: Job) -> None:
    """Neither past the deadline, nor before the upstream wants it, nor twice on the bill."""
    decision = job.after(error)

    if decision.again:
        assert max(decision.delay_s, error.retry_after_s or 0.0) < job.remaining_s
        assert error.billed is not Billed.YES
        assert decision.reason in {"rate_limited", "quota_exhausted", "overloaded", "retry"}
        if tally(error) is not Tally.REFUSED:
            assert decision.delay_s >= (error.retry_after_s or 0.0)
    else:
        assert decision == END


@given(error=_errors(), job=_JOBS)
def test_an_unknown_outcome_is_never_repeated_unasked(error: ChatError, job: Job) -> None:
    """What may have run, and may cost money, runs again only where somebody has said so."""
    decision = replace(job, on_lost_call="fail").after(error)

    if decision.again:
        assert error.billed is Billed.NO or error.upstream_status not in {None, 408, 504, 524}


@given(error=_errors(), job=_JOBS)
def test_chance_only_scales_the_back_off(error: ChatError, job: Job) -> None:
    """It never decides whether a job is called again, and moves the time by half at most."""
    endless = replace(job, remaining_s=math.inf)
    least = replace(endless, chance=0.0).after(error)
    most = replace(endless, chance=1.0).after(error)
    drawn = endless.after(error)

    assert least.again == drawn.again == most.again
    assert least.reason == drawn.reason == most.reason
    assert least.delay_s <= drawn.delay_s <= most.delay_s <= max(60.0, error.retry_after_s or 0.0)
    assert most.delay_s <= max(2 * least.delay_s, error.retry_after_s or 0.0)


_PASSING = [rate(), quota(), quota(5), busy(), busy(None), failed(), failed(None), timed_out(504)]


@given(
    pattern=st.lists(st.sampled_from(_PASSING), min_size=1, max_size=5),
    job=st.builds(
        Job,
        max_attempts=st.integers(1, 6),
        max_lost_calls=st.integers(1, 6),
        on_lost_call=st.sampled_from(["retry", "fail"]),
        remaining_s=st.just(math.inf),
        chance=st.floats(0, 1),
    ),
)
def test_a_job_comes_to_an_end_within_its_caps(pattern: list[ChatError], job: Job) -> None:
    """Even with all the time in the world, and failures that would all pass."""
    for error in islice(cycle(pattern), 20_000):
        count = tally(error).value
        job = replace(job, **{count: getattr(job, count) + 1})
        if not job.after(error).again:
            break
    else:
        pytest.fail(f"{job} was still called again after {pattern}")

    assert job.answered <= job.max_attempts
    assert job.refused <= 100 * job.max_attempts
    assert job.unknown <= (
        min(job.max_lost_calls, job.max_attempts) if job.on_lost_call == "retry" else 1
    )
