"""What a budget learns from refusals, and how it grows again: ``chat/lua/rates.lua``."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bench.learning import SCENARIOS
from tests.rates import MINUTE, NOW, Budget, settled


class TestEvent:
    """The first refusal of an event sets the rate; those of calls begun before it belong to it."""

    def test_fifty_parallel_refusals_are_one_event(self) -> None:
        """One cool-down, one rate: 0.93 of the ten a second that were accepted."""
        budget = Budget()
        budget.send(300, 100)
        parallel = [budget.start() for _ in range(50)]
        budget.now += 30
        events = [budget.refuse(started) for started in parallel]

        assert events == [True] + [False] * 49
        assert budget.closed_ms() == 375
        assert budget.learned() == pytest.approx(9.3, rel=0.02)
        assert budget.b.streak == 1

    def test_a_burst_at_the_start_teaches_what_was_accepted(self) -> None:
        """Of 64 calls at once 59 were refused: five in what counts as a second."""
        budget = Budget()
        burst = [budget.start() for _ in range(64)]
        budget.now += 20
        for started in burst[5:]:
            budget.refuse(started)

        assert budget.learned() == pytest.approx(0.93 * 5)

    def test_answers_that_are_still_to_come_count(self) -> None:
        """Calls of half a minute: none has ended, and the rate is that of the starts."""
        budget = Budget()
        started = budget.send(40, 250)
        budget.refuse(started[-1])

        assert budget.learned() == pytest.approx(0.93 * 4, rel=0.08)

    def test_idle_time_before_does_not_count(self) -> None:
        """An hour of nothing, then ten calls a second."""
        budget = Budget()
        budget.send(3, 10)
        budget.now += 3_600_000
        started = budget.send(40, 100)
        budget.refuse(started[-1])

        assert budget.learned() == pytest.approx(9.3, rel=0.05)

    def test_a_call_begun_before_only_lengthens_the_cool_down(self) -> None:
        """If its Retry-After says so."""
        budget = Budget()
        first, second, third = budget.send(3, 10)
        budget.refuse(first)
        before = budget.b.closed_until

        assert not budget.refuse(second)
        assert budget.b.closed_until == before
        assert not budget.refuse(third, 4000)
        assert budget.closed_ms() == 4000
        assert budget.b.why == "rate_limited"

    def test_a_late_refusal_does_not_close_again(self) -> None:
        """The cool-down of its event has passed."""
        budget = settled()
        budget.now += 3000
        budget.refuse(NOW)

        assert budget.closed_ms() == 0

    def test_a_second_event_in_the_hold_time_measures_between_the_two(self) -> None:
        """Ten a second became two: what was accepted since the first, its cool-down included."""
        budget = settled(10)
        calls = [budget.send(1, 110)[0] for _ in range(14)]
        for _ in range(3):
            budget.refuse(calls[-1])
            budget.open()
            calls = [budget.send(1, 200)[0] for _ in range(12)]

        assert budget.learned() < 5
        assert budget.learned() > 1

    def test_a_window_by_the_minute_is_found_from_its_retry_after(self) -> None:
        """Twenty at once, closed to the end of the minute, twenty again: twenty a minute."""
        budget = Budget()
        calls = budget.send(21, 100)
        budget.refuse(calls[-1], MINUTE - 2100)
        budget.open()
        calls = budget.send(21, 200)
        budget.refuse(calls[-1], MINUTE - 4200)

        assert budget.learned() <= 0.7

    def test_an_event_never_raises_the_rate(self) -> None:
        """However much was accepted before."""
        budget = settled()
        rates = [budget.learned()]
        for _ in range(8):
            budget.refuse_next()
            rates.append(budget.learned())

        assert rates == sorted(rates, reverse=True)
        assert rates[-1] >= 1 / 60

    @pytest.mark.parametrize("at_once", [1, 3])
    def test_an_outage_teaches_nothing_about_the_rate(self, at_once: int) -> None:
        """Nothing got through for more than a minute: the rate stays, and is soon back after it."""
        budget = settled()
        rates = []
        for _ in range(14):
            budget.open()
            calls = budget.send(at_once, 1)
            for call in calls:
                budget.refuse(call, 30_000)
            rates.append(budget.learned())
        budget.open()
        budget.now += 22_000

        assert rates[3:] == [rates[3]] * 11
        assert budget.learned() == pytest.approx(rates[3] * math.exp(0.15 * 20))

    def test_a_limit_that_lets_few_through_is_no_outage(self) -> None:
        """One call a minute is accepted, the next is refused: the rate goes on down."""
        budget = settled()
        rates = []
        for _ in range(12):
            budget.open()
            _, refused = budget.send(2, 1)
            budget.refuse(refused, MINUTE)
            rates.append(budget.learned())

        assert rates == sorted(set(rates), reverse=True)
        assert rates[-1] < 1 / 25

    def test_without_learning_there_are_only_cool_downs(self) -> None:
        """The rate stays what is configured: none."""
        budget = Budget({"learn": False})
        started = budget.send(50, 20)

        assert budget.refuse(started[-1])
        assert budget.closed_ms() > 0
        assert budget.rate() is None

    def test_learning_can_be_switched_off_and_on(self) -> None:
        """What was learned counts only while it is wanted, and state of the other kind is fine."""
        budget = settled()
        assert budget.rate() is not None
        budget.learns(learn=False)
        assert budget.rate() is None
        budget.refuse_next()
        budget.learns(learn=True)

        assert budget.refuse_next() > 0
        assert budget.rate() is not None


class TestGrowth:
    """A learned rate holds, grows slowly, faster in calm, and ends at the configured one."""

    def test_it_holds_five_seconds(self) -> None:
        """After the cool-down."""
        budget = settled()
        rate = budget.learned()
        budget.now += 5000

        assert budget.learned() == rate
        budget.now += 1000
        assert budget.learned() > rate

    def test_it_grows_half_a_per_cent_a_second(self) -> None:
        """For the rest of the minute."""
        budget = settled()
        rate = budget.learned()
        budget.now += 25_000

        assert budget.learned() / rate == pytest.approx(math.exp(0.005 * 20))

    def test_a_slow_rate_grows_more_slowly(self) -> None:
        """A limit by the minute shows only a minute later that the rate is too high."""
        budget = settled(1)
        rate = budget.learned()
        budget.now += 25_000

        assert 1 < budget.learned() / rate < math.exp(0.005 * 20 * 0.5)

    def test_it_grows_faster_after_a_minute_without_a_refusal(self) -> None:
        """An upstream that allows four times as much again has it within two minutes."""
        budget = settled()
        rate = budget.learned()
        budget.now += 2 * MINUTE

        assert budget.learned() / rate > 4

    def test_a_guess_grows_fast(self) -> None:
        """Five calls in no time are no measurement."""
        budget = Budget()
        burst = budget.send(6, 1)
        budget.refuse(burst[-1])
        budget.open()
        rate = budget.learned()
        budget.now += 12_000

        assert budget.learned() / rate == pytest.approx(math.exp(0.15 * 10))

    def test_it_grows_only_in_use(self) -> None:
        """Ten minutes of nothing and a call: the rate is what it was."""
        budget = settled()
        budget.start()
        rate = budget.learned()
        budget.now += 10 * MINUTE
        budget.start()

        assert budget.learned() == pytest.approx(rate, rel=0.01)

    def test_growth_shortens_the_wait_of_those_already_waiting(self) -> None:
        """The wait follows from the rate now, not from that of the last call."""
        budget = settled(1)
        budget.send(3, 0)
        waits = []
        for _ in range(3):
            waits.append(budget.now + budget.wait())
            budget.now += 600

        assert waits == sorted(waits, reverse=True)

    def test_the_configured_rate_is_the_end_of_it(self) -> None:
        """Then it counts as not learned."""
        budget = Budget({"rpm": 600, "learn": True})
        started = budget.send(300, 101)
        budget.refuse(started[-1])
        budget.open()

        assert budget.learned() < 10
        budget.now += 10 * MINUTE
        assert budget.rate() == 10
        assert budget.learned() == 0

    def test_an_hour_later_it_is_forgotten(self) -> None:
        """The budget is unlimited once more."""
        budget = settled()
        budget.now += 3_600_001

        assert budget.rate() is None

    @pytest.mark.parametrize("rate", [2, 10, 40])
    def test_a_learned_rate_paces(self, rate: int) -> None:
        """What starts in ten seconds is what it says."""
        budget = settled(rate)
        expected = budget.learned() * 5
        end, calls = budget.now + 5000, 0
        while budget.now < end:
            budget.start()
            calls += 1
            budget.now += budget.wait()

        assert calls == pytest.approx(expected, abs=2 + 0.03 * expected)


@pytest.mark.parametrize("scenario", SCENARIOS[:4], ids=lambda scenario: scenario.name)
def test_an_unknown_limit_is_used_and_respected(scenario: Any) -> None:
    """The simulation's first claims, on a seed of their own: 90 % used, 1 % refused, none lost."""
    [run] = scenario.runs(seeds=[7])

    assert run.share(10) >= 0.9
    assert run.refused() <= 0.01
    assert run.lost() == 0
