"""Who may call next: permits, the lanes' shares, rates, tokens and days."""

from __future__ import annotations

import pytest

from chat.store import Grant
from chat.types import ChatRequest, Lane, Message, Role
from tests.store_base import DAY_MS, StoreBase, now_ms, same

#: A deadline past the next midnight.
TWO_DAYS = 2 * DAY_MS


class StoreBudget(StoreBase):
    """What ``start`` decides while nothing is closed."""

    # -- permits and lanes

    def test_batch_parks_when_no_permit_is_free(self, store, client):
        """It never waits in a worker's thread: its place is in the parking of its budget."""
        self.permits(client, 1)
        first, second = self.batch(store, 2)
        self.called(store, first)

        assert self.held(store, second) == ("parked", "permits")
        assert self.waits_for(store, second) == "permits"
        assert store.counters()["parks"] == store.counters()["waiting"] == 1

    def test_interactive_waits_for_a_permit_in_its_slot(self, store, client):
        """However often it asks, and even when it may wait no more for its budget."""
        self.permits(client, 1)
        first, second = self.admitted(store), self.admitted(store)
        self.called(store, first)

        assert self.held(store, second) == ("wait", "permits")
        assert self.held(store, second, may_wait=False) == ("wait", "permits")
        assert store.record(second.id).state == "queued"

    @pytest.mark.parametrize(
        ("people", "permits", "share"),
        [
            pytest.param("calling", 10, 7, id="someone-is-being-answered"),
            pytest.param("queued", 10, 7, id="someone-waits"),
            pytest.param("just left", 10, 7, id="someone-was-there-just-now"),
            pytest.param("nobody", 10, 9, id="nobody-is-there"),
            pytest.param("just left", 3, 2, id="two-of-three"),
            pytest.param("nobody", 1, 1, id="the-only-permit"),
            pytest.param("just left", 1, 0, id="the-only-permit-is-peoples"),
        ],
    )
    def test_batch_gets_its_share_of_the_permits(self, store, client, people, permits, share):
        """Seven tenths while people are there or were in the last 2 s; else all but one."""
        self.permits(client, permits)
        jobs = self.batch(store, 10)
        if people == "just left":
            client.hset("lanes:ollama", "active", now_ms(client))
        elif people != "nobody":
            someone = self.admitted(store)
            if people == "calling":
                self.called(store, someone)
                # Long ago: it counts as there since it is in a call, and not since it began one.
                client.hset("lanes:ollama", "active", 1)
        rooms = [store.room("ollama")]
        rooms += [grant.room for grant in self.called(store, *jobs[:share])]

        assert rooms == list(range(share, -1, -1))
        assert share == 10 or self.held(store, jobs[share]) == ("parked", "permits")

    def test_people_who_wait_have_the_free_permits_before_batch(self, store, client):
        """Of ten permits eight are wanted by people: two are left, whatever the share."""
        self.permits(client, 10)
        jobs = self.batch(store, 3)
        for _ in range(8):
            self.admitted(store)

        assert store.room("ollama") == 2
        self.called(store, *jobs[:2])
        assert self.held(store, jobs[2]) == ("parked", "permits")

    def test_permits_taken_away_are_not_given_again(self, store, client):
        """Fewer permits than calls: nothing starts until enough of them have ended."""
        grants = self.called(store, *[self.admitted(store) for _ in range(4)])
        self.permits(client, 2)
        late = self.admitted(store)
        heard: list[str] = []
        for grant in grants:
            heard.append(self.held(store, late)[1] if len(heard) < 3 else "go")
            self.finish(store, grant)

        assert heard == ["permits", "permits", "permits", "go"]
        assert self.start(store, late.id).attempt == 1

    # -- the turn of batch

    def turn_comes(self, store, client, *, turn=3, waited_s=120.0, permits=1):
        """One old batch job, and as many interactive calls as go before its turn."""
        self.settings(client, permits=permits, turn=turn, max_wait=60_000)
        (job,) = self.batch(store, 1)
        self.age(client, job, waited_s)
        for _ in range(turn - 1):
            someone = self.admitted(store)
            self.finish(store, self.start(store, someone.id, someone.id))
        return job

    def test_each_nth_grant_is_an_old_batch_jobs(self, store, client):
        """Interactive is told to wait, batch starts, and the count begins anew."""
        old = self.turn_comes(store, client)
        someone = self.admitted(store)

        assert self.held(store, someone) == ("wait", "turn")
        (grant,) = self.called(store, old)
        assert self.held(store, someone) == ("wait", "permits")
        self.finish(store, grant)
        assert self.start(store, someone.id, "t1").attempt == 1
        assert client.hget("lanes:ollama", "since") == "1"

    @pytest.mark.parametrize(
        "setting",
        [
            pytest.param({"waited_s": 30.0}, id="it-has-not-waited-long-enough"),
            pytest.param({"permits": 2}, id="a-second-permit-is-free"),
        ],
    )
    def test_people_do_not_wait_without_need(self, store, client, setting):
        """A young batch job has no turn, and two free permits are enough for both."""
        self.turn_comes(store, client, **setting)
        someone = self.admitted(store)

        assert self.start(store, someone.id).attempt == 1

    def test_of_two_free_permits_only_the_last_is_kept_for_the_turn(self, store, client):
        """Two people want them: the first has one, and the second waits for batch."""
        self.turn_comes(store, client, permits=2)
        first, second = self.admitted(store), self.admitted(store)
        self.called(store, first)

        assert self.held(store, second) == ("wait", "turn")

    def test_no_turn_comes_when_the_least_share_is_nothing(self, store, client):
        """batch_min_share = 0 is for those who want people first whatever happens."""
        self.turn_comes(store, client)
        self.settings(client, turn=0)
        someone = self.admitted(store)

        assert self.start(store, someone.id).attempt == 1

    def test_a_turn_that_no_worker_fetches_is_over_after_a_second(self, store, client):
        """People go on, and the next turn comes as many grants later as usual."""
        self.turn_comes(store, client)
        someone, other, third = (self.admitted(store) for _ in range(3))
        assert self.held(store, someone) == ("wait", "turn")
        client.hset("lanes:ollama", "turn", now_ms(client) - 1500)

        for person in (someone, other):
            self.finish(store, self.start(store, person.id, person.id))
        assert self.held(store, third) == ("wait", "turn")

    # -- rates, tokens, days

    def test_no_minute_has_more_calls_than_are_allowed(self, store, client):
        """A virtual minute: what is stored moves back by as much as each wait takes."""
        self.limit(client, rpm=120)
        self.permits(client, 1000)
        began, passed, started = now_ms(client), 0.0, []
        while passed < 90_000:
            job = self.admitted(store, timeout_ms=600_000)
            while not isinstance(held := store.start(job.id, worker="w", token=job.id), Grant):
                assert (held.kind, held.why) == ("wait", "rate")
                wait_ms = held.wait_s * 1000
                passed += wait_ms
                last = float(client.hget("budget:ollama:*", "last"))
                client.hset("budget:ollama:*", "last", last - wait_ms)
            started.append(passed + now_ms(client) - began)

        minutes = [sum(at <= other < at + 60_000 for other in started) for at in started]
        assert 110 <= max(minutes) <= 120

    def test_a_slow_rate_parks_everybody(self, store, client):
        """At one call a minute nobody waits in a worker's thread, or in the list, for the next."""
        first, second = self.admitted(store), self.admitted(store)
        self.limit(client, rpm=1)
        late = [self.admitted(store, lane=lane) for lane in Lane]
        self.called(store, first)

        assert self.held(store, second) == ("parked", "rate")
        assert [self.waits_for(store, job) for job in late] == ["rate", "rate"]

    def test_people_wait_in_their_slot_for_a_rate_that_is_quick(self, store, client):
        """Up to a second, and for no longer than their thread is theirs."""
        self.limit(client, rpm=65)
        someone, (batch,) = self.admitted(store), self.batch(store, 1)
        heard = []
        for options in ({}, {"may_wait": False}):
            # As if the last call had come half a second early.
            client.hset("budget:ollama:*", "last", now_ms(client) + 500)
            heard.append(self.held(store, someone, **options))

        assert heard == [("wait", "rate"), ("parked", "rate")]
        assert self.waits_for(store, batch) == "rate"

    def test_tokens_are_estimated_first_and_counted_after(self, store, client):
        """A quarter of the minute's tokens may go at once; the answer says what was really used."""
        self.limit(client, tpm=40_000)
        long = ChatRequest("qwen3:8b", (Message(Role.USER, "x"),), max_tokens=9_000)
        first, second = (self.admitted(store, request=long) for _ in range(2))
        (grant,) = self.called(store, first)
        before = self.held(store, second)
        store.finish(self.ending(grant, input_tokens=10, output_tokens=20))
        released, _ = store.release(sweep=False)
        (grant,) = self.called(store, second)
        store.finish(self.ending(grant, input_tokens=10_000, output_tokens=20_000))
        third = self.admitted(store)

        assert (before, released) == (("parked", "tokens"), 1)
        assert float(client.hget("budget:ollama:*", "tokens")) < -19_000
        assert self.waits_for(store, third) == "tokens"

    def test_a_refused_call_has_used_no_tokens(self, store, client):
        """What was booked for it is there for the next one."""
        self.limit(client, tpm=40_000)
        job = self.admitted(store)
        (grant,) = self.called(store, job)
        booked = float(client.hget("budget:ollama:*", "tokens"))
        store.finish(self.refusal(grant))

        assert booked < float(client.hget("budget:ollama:*", "tokens")) == 10_000

    def test_some_of_the_day_is_kept_for_people(self, store, client):
        """Of ten requests a day batch may use nine; the tenth is there for interactive jobs."""
        self.limit(client, rpd=10)
        self.permits(client, 100)
        jobs = [self.admitted(store, timeout_ms=TWO_DAYS) for _ in range(3)]
        self.called(store, *jobs[:1])
        client.hset("budget:ollama:*", "used", 9)
        (batch,) = self.batch(store, 1, timeout_ms=TWO_DAYS)

        assert self.waits_for(store, batch) == "day_quota"
        self.called(store, jobs[1])
        assert self.held(store, jobs[2]) == ("parked", "day_quota")

    def test_batch_gets_at_least_one_request_of_the_day(self, store, client):
        """Nine tenths of one are none, and then a batch would wait for ever."""
        self.limit(client, rpd=1)
        first, second = self.batch(store, 2, timeout_ms=TWO_DAYS)
        self.finish(store, self.start(store, first.id))

        store.release(sweep=False)
        assert self.waits_for(store, second) == "day_quota"

    def test_the_day_begins_anew_at_midnight(self, store, client):
        """What was used yesterday (UTC) does not count."""
        self.limit(client, rpd=1)
        first = self.admitted(store, timeout_ms=TWO_DAYS)
        (grant,) = self.called(store, first)
        self.finish(store, grant)
        second = self.admitted(store, timeout_ms=TWO_DAYS)
        until = store.record(second.id).waiting["until"]
        day = int(client.hget("budget:ollama:*", "day"))
        client.hset("budget:ollama:*", "day", day - 1)

        assert store.release(sweep=False)[0] == 1
        assert self.start(store, second.id).attempt == 1
        assert client.hmget("budget:ollama:*", "day", "used") == [str(day), "1"]
        assert until.endswith("T00:00:00.000Z")

    # -- the same call again

    def test_a_repeated_start_charges_nothing_twice(self, store, client):
        """Not the rate, not the tokens, not the day, not the permit."""
        self.limit(client, rpm=60, tpm=40_000, rpd=10, learn=True)
        job = self.admitted(store)
        (grant,) = self.called(store, job)
        before = self.everything(client)
        (again,) = self.called(store, job)

        assert self.everything(client) == before
        assert same(again, grant)
        assert client.hget("budget:ollama:*", "used") == "1"

    def test_a_start_that_was_answered_with_waiting_charges_nothing(self, store, client):
        """Only a call uses the rate and the day."""
        self.limit(client, rpm=60, rpd=10, learn=True)
        self.permits(client, 0)
        job = self.admitted(store)

        assert self.held(store, job) == self.held(store, job) == ("wait", "permits")
        assert client.hmget("budget:ollama:*", "last", "sent", "used", "people") == [None] * 4
