"""The limits of the scripted upstream, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.limits import (
    Closed,
    Concurrency,
    FixedWindow,
    Limit,
    NoLimit,
    Refusal,
    Several,
    SlidingWindow,
    TokenBucket,
)
from chat.errors import QuotaExhausted, UpstreamRateLimited, UpstreamUnavailable
from chat.providers.classify import classify


def call(limit: Limit, now: float) -> Refusal | None:
    """One call at ``now`` that ends at once."""
    refusal = limit.refusal(now)
    if refusal is None:
        limit.begin(now)
        limit.end(now)
    return refusal


def accepted(limit: Limit, times: Iterable[float]) -> list[float]:
    """At which of ``times`` a call is accepted."""
    return [now for now in times if call(limit, now) is None]


TIMES = st.lists(st.integers(0, 4000), max_size=120).map(sorted)


def test_without_a_limit_everything_is_accepted() -> None:
    """A hundred calls at one moment."""
    assert len(accepted(NoLimit(), [0.0] * 100)) == 100


# -- rates ----------------------------------------------------------------------------------------


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    """20 a second with a burst of 3: three at once, then one each 50 ms."""
    bucket = TokenBucket(20, burst=3)

    assert accepted(bucket, [0.0] * 5) == [0.0] * 3
    assert accepted(bucket, [0.04, 0.05, 0.06, 0.1]) == [0.05, 0.1]


def test_an_idle_bucket_holds_no_more_than_its_burst() -> None:
    """An hour without a call saves up nothing."""
    bucket = TokenBucket(20, burst=2)
    accepted(bucket, [0.0, 0.0])

    assert accepted(bucket, [3600.0] * 4) == [3600.0] * 2


@given(times=TIMES)
def test_no_stretch_of_time_passes_the_bucket(times: list[int]) -> None:
    """In t seconds at most rate * t + burst, from any call to any later one."""
    begun = accepted(TokenBucket(20, burst=4), [time / 1000 for time in times])

    for first, since in enumerate(begun):
        for last, until in enumerate(begun[first:], start=first):
            assert last - first + 1 <= 20 * (until - since) + 4 + 1e-6


@given(times=TIMES)
def test_no_window_holds_more_than_a_sliding_window_allows(times: list[int]) -> None:
    """Any five calls that follow an accepted one within half a second are not all accepted."""
    begun = accepted(SlidingWindow(5, 0.5), [time / 1000 for time in times])

    assert all(later - earlier >= 0.5 for earlier, later in zip(begun, begun[5:], strict=False))


def test_a_sliding_window_opens_when_its_oldest_call_leaves() -> None:
    """Two in a second: at 0 and 0.5, so that 1.0 and 1.5 are the next."""
    window = SlidingWindow(2, 1.0, tells=True, whole_seconds=False)

    assert accepted(window, [0.0, 0.5, 0.9, 1.0, 1.2, 1.5]) == [0.0, 0.5, 1.0, 1.5]
    assert call(window, 1.75) == Refusal(429, "Rate limit exceeded", "0.250000")


def test_refused_calls_cost_nothing() -> None:
    """However often it is asked, the next token comes when it comes."""
    bucket = TokenBucket(1)
    accepted(bucket, [0.0])

    assert accepted(bucket, [n / 100 for n in range(1, 101)]) == [1.0]


@pytest.mark.parametrize(
    ("tells", "whole", "header"),
    [
        pytest.param(False, True, None, id="no header"),
        pytest.param(True, True, "1", id="whole seconds, rounded up"),
        pytest.param(True, False, "0.030000", id="a compressed clock"),
    ],
)
def test_a_bucket_tells_when_to_come_again_if_it_is_meant_to(
    tells: bool,  # noqa: FBT001
    whole: bool,  # noqa: FBT001
    header: str | None,
) -> None:
    """20 ms after a call, the next token of 20 a second is 30 ms away."""
    bucket = TokenBucket(20, tells=tells, whole_seconds=whole)
    call(bucket, 0.0)
    refusal = call(bucket, 0.02)

    assert refusal == Refusal(429, "Rate limit exceeded", header)


# -- windows --------------------------------------------------------------------------------------


def test_a_free_model_has_twenty_a_minute_by_the_clock() -> None:
    """Twenty at the end of one minute and twenty at the beginning of the next."""
    free = FixedWindow(20, 60.0)

    assert len(accepted(free, [59.0] * 30)) == 20
    assert len(accepted(free, [60.0] * 30)) == 20


def test_a_full_window_tells_its_end() -> None:
    """In whole seconds, up: who comes then is not refused again."""
    free = FixedWindow(1, 60.0)
    call(free, 10.0)
    refusal = call(free, 27.4)

    assert refusal is not None
    assert refusal.headers == {"Retry-After": "33"}
    assert call(free, 27.4 + 33) is None


def test_a_minute_can_be_made_short() -> None:
    """20 in 60 ms: the fraction of a second that is left is told as one."""
    free = FixedWindow(20, 0.06, whole_seconds=False)

    assert len(accepted(free, [0.13] * 25)) == 20
    assert call(free, 0.15) == Refusal(429, "Rate limit exceeded", "0.030000")


# -- places, quotas, overload ---------------------------------------------------------------------


def test_places_are_given_back() -> None:
    """Two at a time: the third waits for one of them to end."""
    places = Concurrency(2)
    places.begin(0.0)
    places.begin(0.0)

    assert places.refusal(1.0) == Refusal(429, "too many concurrent requests")
    places.end(2.0)
    assert places.refusal(2.0) is None


def test_a_quota_is_closed_until_its_time() -> None:
    """The bounds: from `since` on, and no longer at `until`."""
    quota = Closed.quota(10.0, 20.0)

    assert accepted(quota, [9.9, 10.0, 19.9, 20.0]) == [9.9, 20.0]
    refusal = quota.refusal(12.5)
    assert refusal is not None
    assert refusal.headers == {"Retry-After": "8"}


@pytest.mark.parametrize(
    ("limit", "error", "retry_after_s"),
    [
        pytest.param(Closed(0, 9), UpstreamRateLimited, 9.0, id="rate limit"),
        pytest.param(Closed.quota(0, 9), QuotaExhausted, 9.0, id="quota"),
        pytest.param(Closed.overload(0, 9), UpstreamUnavailable, None, id="overload"),
        pytest.param(
            Closed(0, 0.06, whole_seconds=False), UpstreamRateLimited, 0.06, id="compressed"
        ),
    ],
)
@pytest.mark.parametrize("path", ["/api/chat", "/chat/completions"])
def test_chatd_reads_a_refusal_as_what_it_is(
    limit: Limit, error: type[Exception], retry_after_s: float | None, path: str
) -> None:
    """Status, words and header, as the provider in question sends them, through the classifier."""
    refusal = limit.refusal(0.0)
    assert refusal is not None
    headers = {name.lower(): value for name, value in refusal.headers.items()}
    read = classify("openrouter", refusal.status, headers, refusal.body(path), now=1e9)

    assert type(read) is error
    assert read.retry_after_s == retry_after_s


# -- together -------------------------------------------------------------------------------------


def test_a_call_counts_nowhere_when_one_limit_refuses() -> None:
    """The rate keeps its token while every place is taken."""
    places, rate = Concurrency(1), TokenBucket(1)
    both = Several([rate, places])
    places.begin(0.0)
    refusal = call(both, 0.0)
    places.end(0.0)

    assert refusal == Refusal(429, "too many concurrent requests")
    assert call(both, 0.0) is None


def test_of_several_limits_the_first_answers() -> None:
    """A used-up quota says so, rather than that the rate is passed as well."""
    rate = TokenBucket(1)
    both = Several([Closed.quota(0.0, 60.0), rate])
    call(rate, 0.0)
    refusal = call(both, 0.0)

    assert refusal is not None
    assert "per-day" in refusal.message


def test_an_end_reaches_every_limit() -> None:
    """A place that several limits count is free for all of them again."""
    first, second = Concurrency(1), Concurrency(1)
    both = Several([first, second])

    assert accepted(both, [0.0, 1.0]) == [0.0, 1.0]
