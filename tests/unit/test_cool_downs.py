"""When a budget closes, and for how long: ``chat/lua/rates.lua``."""

from __future__ import annotations

import pytest

from tests.rates import MINUTE, NOW, Budget


class TestCoolDown:
    """Closed for as long as Retry-After says, or a backoff that doubles.

    The first refusal also lowers the rate, which is why it is met by half the backoff.
    """

    def test_it_doubles_up_to_a_minute(self) -> None:
        """While nothing is answered."""
        budget = Budget()
        budget.send(3, 10)

        assert [budget.refuse_next() for _ in range(8)] == [
            375,
            *(750 * 2**n for n in range(1, 6)),
            45_000,
            45_000,
        ]

    @pytest.mark.parametrize(("chance", "ms"), [(0.0, 250), (0.5, 375), (0.999, 499)])
    def test_jitter_halves_it_at_most(self, chance: float, ms: int) -> None:
        """Chance 0 is half of it, chance 1 would be all."""
        budget = Budget()
        started = budget.start()
        budget.refuse(started, None, chance)

        assert budget.closed_ms() == ms

    def test_a_longer_retry_after_wins(self) -> None:
        """And a shorter one does not."""
        assert Budget().refuse_next(7000) == 7000
        assert Budget().refuse_next(100) == 375

    def test_an_answer_ends_the_doubling(self) -> None:
        """That of a call begun after the last event."""
        budget = Budget()
        for _ in range(4):
            budget.refuse_next()
        budget.open()
        started = budget.start()
        budget.now += 500
        budget.accept(started)

        assert budget.refuse_next() == 375

    def test_an_answer_from_before_does_not(self) -> None:
        """It says nothing about the limit now."""
        budget = Budget()
        old = budget.start()
        for _ in range(3):
            budget.refuse_next()
        budget.accept(old)

        assert budget.refuse_next() == 6000

    def test_an_answer_from_between_two_events_makes_the_last_a_first(self) -> None:
        """It came late, since calls take time."""
        budget = Budget()
        for _ in range(3):
            budget.refuse_next()
        budget.open()
        between = budget.start()
        budget.refuse_next()
        budget.accept(between)

        assert budget.refuse_next() == 1500

    def test_quiet_ends_the_doubling_too(self) -> None:
        """More than the hold time passed without a refusal."""
        budget = Budget()
        for _ in range(3):
            budget.refuse_next()
        budget.open()
        budget.now += 5001

        assert budget.refuse_next() == 375


class TestOverload:
    """An overloaded upstream is left alone from the third refusal in a row on."""

    def test_the_third_in_a_row_closes(self) -> None:
        """For a short time that doubles, eight seconds at most; no rate is learned."""
        budget = Budget()
        closed = []
        for _ in range(8):
            budget.open()
            budget.now += 1000
            budget.overload(budget.start())
            closed.append(budget.closed_ms())

        assert closed == [0, 0, 750, 1500, 3000, 6000, 6000, 6000]
        assert budget.b.why == "overloaded"
        assert budget.rate() is None

    def test_an_answer_in_between_starts_anew(self) -> None:
        """One 503 among answers is that job's bad luck."""
        budget = Budget()
        for _ in range(5):
            budget.overload(budget.start())
            budget.overload(budget.start())
            budget.now += 10
            budget.accept(budget.start())

        assert budget.closed_ms() == 0

    def test_parallel_ones_close_once(self) -> None:
        """Those begun before the cool-down are part of it."""
        budget = Budget()
        calls = budget.send(16, 1)
        for started in calls:
            budget.overload(started)

        assert budget.closed_ms() == 750

    def test_retry_after_closes_at_once(self) -> None:
        """The upstream knows best."""
        budget = Budget()
        budget.overload(budget.start(), 5000)

        assert budget.closed_ms() == 5000


class TestQuota:
    """A used-up quota closes until its reset, or for a time that doubles."""

    def test_until_the_reset(self) -> None:
        """As told; a rate limit meanwhile does not shorten it."""
        budget = Budget()
        started = budget.start()
        budget.quota(NOW + 5 * 3_600_000)
        budget.refuse(started)

        assert budget.closed_ms() == 5 * 3_600_000
        assert budget.b.why == "quota_exhausted"

    @pytest.mark.parametrize("until", [None, NOW - 1])
    def test_an_unknown_reset_doubles_up_to_an_hour(self, until: int | None) -> None:
        """Ten minutes at first; many refusals at once count once."""
        budget = Budget()
        closed = []
        for _ in range(5):
            budget.start()
            for _ in range(20):
                budget.quota(until)
            closed.append(budget.closed_ms() / MINUTE)
            budget.open()

        assert closed == [10, 20, 40, 60, 60]

    def test_an_answer_ends_the_doubling(self) -> None:
        """Of a call begun since; one from before has nothing to say."""
        budget = Budget()
        old = budget.start()
        budget.now += 1
        budget.quota()
        budget.accept(old)
        budget.open()
        budget.quota()
        assert budget.closed_ms() == 20 * MINUTE
        budget.open()
        budget.now += 1
        budget.accept(budget.start())
        budget.quota()

        assert budget.closed_ms() == 10 * MINUTE

    def test_jitter_only_adds(self) -> None:
        """Nobody asks before the quota may be back."""
        budget = Budget()
        budget.quota(None, 0.5)

        assert budget.closed_ms() == 10.5 * MINUTE
