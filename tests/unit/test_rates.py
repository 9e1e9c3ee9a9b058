"""Rates and tokens per minute, and the soundness of a budget's state: ``chat/lua/rates.lua``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.rates import MINUTE, NOW, RATES_FIELDS, Budget


def fullest(starts: Sequence[tuple[int, float]], window_ms: int = MINUTE) -> float:
    """The most that any half-open window holds."""
    return max(
        sum(cost for at, cost in starts if begin <= at < begin + window_ms) for begin, _ in starts
    )


def greedy(
    budget: Budget, pauses: Sequence[int], cost: Callable[[int], float]
) -> list[tuple[int, float]]:
    """Polls as soon as told, and late by each pause; every call that may start does."""
    starts = []
    for number, pause in enumerate(pauses):
        budget.now += budget.wait(cost(number)) + pause
        if budget.wait(cost(number)) == 0:
            starts.append((budget.start(cost(number)), cost(number)))
    return starts


class TestConfiguredRate:
    """Requests per minute: what the upstream counts never passes the limit."""

    @settings(max_examples=60, deadline=None)
    @given(
        rpm=st.integers(1, 50),
        pauses=st.lists(
            st.one_of(st.just(0), st.integers(0, 900), st.integers(0, 90_000)), max_size=150
        ),
    )
    def test_no_minute_holds_more_than_the_limit(self, rpm: int, pauses: list[int]) -> None:
        """Whenever the jobs ask; nor when calls reach the upstream half a second apart in time."""
        starts = greedy(Budget({"rpm": rpm, "learn": True}), [0, *pauses], lambda _: 1)

        assert fullest(starts) <= rpm
        assert fullest(starts, MINUTE + 500) <= rpm

    @settings(max_examples=30, deadline=None)
    @given(
        rpm=st.integers(5, 40),
        steps=st.lists(
            st.tuples(st.sampled_from([0, 0, 0, 3, 700]), st.booleans()), min_size=50, max_size=150
        ),
    )
    def test_learning_loosens_no_configured_limit(
        self, rpm: int, steps: list[tuple[int, bool]]
    ) -> None:
        """Refusals in between, growth and all."""
        budget = Budget({"rpm": rpm, "learn": True})
        starts = []
        for pause, refused in steps:
            budget.now += budget.wait() + pause
            budget.open()
            if budget.wait() == 0:
                starts.append((budget.start(), 1.0))
                budget.now += 5
                if refused:
                    budget.refuse(starts[-1][0])

        assert fullest(starts) <= rpm

    @pytest.mark.parametrize("rpm", [1, 20, 500, 6000])
    def test_it_is_used(self, rpm: int) -> None:
        """A backlog gets 98 % of it, for ten minutes."""
        budget = Budget({"rpm": rpm, "learn": True})
        calls = 0
        while budget.now < NOW + 10 * MINUTE and calls < 20_000:
            budget.now += budget.wait()
            budget.start()
            calls += 1
        passed = budget.now - NOW

        assert calls >= 0.98 * rpm * passed / MINUTE

    def test_the_reason_is_the_rate(self) -> None:
        """Two calls may not go at once."""
        budget = Budget({"rpm": 2, "learn": True})
        budget.start()

        assert budget.why() == "rate"

    def test_no_limit_no_wait(self) -> None:
        """Nothing is configured and nothing learned."""
        budget = Budget()
        budget.send(1000, 0)

        assert budget.wait() == 0
        assert budget.rate() is None

    @settings(max_examples=100, deadline=None)
    @given(
        rpm=st.integers(1, 1000),
        calls=st.integers(1, 20),
        back=st.integers(0, 100 * 24 * 3_600_000),
    )
    def test_a_clock_that_steps_back_costs_one_interval(
        self, rpm: int, calls: int, back: int
    ) -> None:
        """And the half second that calls may be early; also when no wait was stored."""
        budget = Budget({"rpm": rpm, "learn": True})
        greedy(budget, [0] * calls, lambda _: 1)
        budget.now -= back
        wait = budget.wait()

        assert wait <= 61_000 / rpm + 501
        budget.now += wait
        assert budget.wait() == 0


class TestTokens:
    """Tokens per minute: a quarter at once, three quarters over the minute."""

    @settings(max_examples=60, deadline=None)
    @given(
        tpm=st.integers(40, 100_000),
        parts=st.lists(
            st.tuples(st.floats(0.001, 1), st.sampled_from([0, 0, 0, 40, 5000])),
            min_size=1,
            max_size=80,
        ),
    )
    @example(tpm=48, parts=[(1.0, 0), (1.0, 0)])
    def test_no_minute_passes_the_limit(self, tpm: int, parts: list[tuple[float, int]]) -> None:
        """For calls that fit into the burst."""
        budget = Budget({"tpm": tpm, "learn": False})
        costs = [max(1, math.floor(part * tpm / 4)) for part, _ in parts]
        starts = greedy(budget, [pause for _, pause in parts], lambda number: costs[number])

        assert len(starts) == len(parts)
        assert fullest(starts) <= tpm

    def test_a_dear_call_waits_for_a_full_bucket(self) -> None:
        """It then leaves a debt that the next one waits for."""
        budget = Budget({"tpm": 4000, "learn": False})
        budget.start(500)

        assert budget.wait(9000) == 10_000
        assert budget.why(9000) == "tokens"
        budget.now += 10_000
        assert budget.wait(9000) == 0
        budget.start(9000)
        assert budget.wait(1) == 8001 * 60_000 / 3000

    def test_the_true_count_is_made_good(self) -> None:
        """What was booked too much comes back, up to the burst; what was too little is owed."""
        budget = Budget({"tpm": 4000, "learn": False})
        budget.start(1000)
        budget.true_up(1000, 400)

        assert budget.wait(600) == 0
        assert budget.wait(601) > 0
        budget.true_up(400, 4000)
        assert budget.wait(1) == 3001 * 60_000 / 3000
        budget.true_up(9000, 0)
        assert budget.wait(1000) == 0
        budget.start(1000)
        assert budget.wait(1) > 0

    def test_a_true_count_without_a_limit_is_nothing(self) -> None:
        """Nobody counts tokens here."""
        budget = Budget()
        budget.true_up(10, 1000)

        assert budget.wait(1_000_000) == 0

    @given(back=st.integers(0, 10**9))
    def test_a_clock_that_steps_back_does_not_dry_it_up(self, back: int) -> None:
        """It fills within its twenty seconds and one, or counts as full."""
        budget = Budget({"tpm": 4000, "learn": False})
        budget.start(1000)
        budget.now -= back
        wait = budget.wait(1000)

        assert wait <= 20_000
        budget.now += wait + 1000 if wait else 0
        assert budget.wait(1000) == 0


OPERATIONS = [
    "start",
    "accept",
    "refuse",
    "refuse with Retry-After",
    "overload",
    "quota",
    "true up",
]


class TestState:
    """Whatever happens, in whatever order, and however the clock jumps."""

    @settings(max_examples=150, deadline=None)
    @given(
        limit=st.fixed_dictionaries(
            {"learn": st.booleans()},
            optional={"rpm": st.integers(1, 10_000), "tpm": st.integers(1, 10**7)},
        ),
        steps=st.lists(
            st.tuples(
                st.sampled_from(OPERATIONS),
                st.one_of(st.integers(0, 300), st.integers(-(10**8), 10**8)),
                st.integers(0, 30_000),
                st.floats(0, 1, exclude_max=True),
            ),
            max_size=60,
        ),
    )
    def test_it_stays_sound(
        self, limit: dict[str, object], steps: list[tuple[str, int, int, float]]
    ) -> None:
        """Waits are whole and not negative, rates positive, numbers finite, all fields known."""
        budget = Budget(limit)
        for operation, passed, age, chance in steps:
            budget.now += passed
            started = budget.now - age
            match operation:
                case "start":
                    budget.start(age)
                case "accept":
                    budget.accept(started)
                case "refuse":
                    budget.refuse(started, None, chance)
                case "refuse with Retry-After":
                    budget.refuse(started, age, chance)
                case "overload":
                    budget.overload(started, None, chance)
                case "quota":
                    budget.quota(None, chance)
                case "true up":
                    budget.true_up(age, 1000 * chance)
            rate = budget.rate()

            assert budget.wait(age) >= 0
            assert rate is None or 0 < rate < math.inf
            assert set(budget.b.keys()) <= set(RATES_FIELDS)
            assert all(math.isfinite(value) for key, value in budget.b.items() if key != "why")

    def test_its_fields_are_named_once(self) -> None:
        """What is not named is not stored."""
        assert len(RATES_FIELDS) == len(set(RATES_FIELDS))
