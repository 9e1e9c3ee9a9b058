"""Answers that come piece by piece: kept, told, and what they forbid."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chat.budget import estimated_tokens
from chat.jobs import JobState, Piece
from chat.partial import Partial
from chat.store import Grant, JobStore
from chat.types import Delta, DeltaKind, Lane
from tests.store_base import StoreBase, a_job

CHANNEL = "reply:1"
ANSWER = [
    Delta(DeltaKind.REASONING, 'Hm – "a\\b"/'),
    Delta(DeltaKind.CONTENT, "Paris"),
    Delta(DeltaKind.CONTENT, "\n“ok” 🗼"),
    Delta(DeltaKind.TOOL_CALL, "", 1, "call_b", "look"),
    Delta(DeltaKind.TOOL_CALL, '{"at": ', 0, "call_a", "look"),
    Delta(DeltaKind.TOOL_CALL, "[]", 1),
    Delta(DeltaKind.TOOL_CALL, '"x"}', 0),
]


def text(*texts: str) -> list[Delta]:
    """Pieces of content."""
    return [Delta(DeltaKind.CONTENT, one) for one in texts]


def numbered(grant: Grant, deltas: list[Delta], first: int = 1) -> list[Piece]:
    """Pieces of a call's answer from this number on."""
    return [
        Piece(grant.job_id, grant.token, grant.attempt, number, delta)
        for number, delta in enumerate(deltas, first)
    ]


class StoreStreamed(StoreBase):
    """``deliver`` and ``events``, and jobs of whose answer somebody has seen the beginning."""

    def subscribed(self, client, *channels):
        pubsub = client.pubsub()
        pubsub.subscribe(*channels)
        for _ in channels:
            assert pubsub.get_message(timeout=5)["type"] == "subscribe"
        return pubsub

    def messages(self, pubsub, count) -> list[tuple[str, list[Any]]]:
        """So many messages, each with its channel, and none behind them."""
        found: list[tuple[str, list[Any]]] = []
        while len(found) < count:
            message = pubsub.get_message(timeout=5)
            if message:
                found.append((message["channel"], json.loads(message["data"])["events"]))
        assert pubsub.get_message(timeout=0.05) is None
        pubsub.close()
        return found

    def begun(self, store: JobStore, *texts: str, **changes) -> Grant:
        """A call whose answer has begun with these pieces."""
        grant = self.start(store, self.admitted(store, **changes).id)
        assert store.deliver(numbered(grant, text(*texts))) == []
        return grant

    # -- kept

    def test_pieces_are_kept_in_their_order(self, store, client):
        """With their ids; whoever has some of them asks for the rest."""
        grant = self.start(store, self.admitted(store).id)
        store.deliver(numbered(grant, ANSWER[:3]))
        store.deliver(numbered(grant, ANSWER[3:], 4))
        ids = [f"1-{number}" for number in range(1, 8)]

        assert store.events(grant.job_id) == list(zip(ids, ANSWER, strict=True))
        assert store.events(grant.job_id, "1-5") == list(zip(ids, ANSWER, strict=True))[5:]
        assert store.events(grant.job_id, "1-7") == store.events("another") == []
        assert 0 < client.ttl(f"stream:{grant.job_id}") <= 300

    def test_what_is_sent_twice_is_kept_once(self, store):
        """A worker that never saw the reply sends the same again, perhaps with more behind it."""
        grant = self.begun(store, "a", "b")
        again = store.deliver(numbered(grant, text("a", "b", "c")))
        store.deliver(numbered(grant, text("b"), 2))

        assert again == []
        assert store.events(grant.job_id) == list(
            zip(["1-1", "1-2", "1-3"], text("a", "b", "c"), strict=True)
        )

    def test_numbers_that_redis_has_forgotten_are_a_gap(self, store):
        """The worker goes on where it was."""
        grant = self.begun(store, "a", "b")
        store.deliver(numbered(grant, text("q"), 17))

        assert [event for event, _ in store.events(grant.job_id)] == ["1-1", "1-2", "1-17"]

    def test_a_long_answer_keeps_its_newest_pieces(self, store, client):
        """About 20,000, and all of them are read."""
        grant = self.begun(store, "x")
        with client.pipeline(transaction=False) as pipeline:
            for number in range(2, 20_301):
                pipeline.xadd(f"stream:{grant.job_id}", {"d": '{"content":"x"}'}, f"1-{number}")
            pipeline.execute()
        store.deliver(numbered(grant, text("last"), 20_301))
        events = store.events(grant.job_id)

        assert 20_000 <= client.xlen(f"stream:{grant.job_id}") == len(events) <= 20_200
        assert events[-1] == ("1-20301", text("last")[0])

    def test_half_a_surrogate_pair_is_a_question_mark(self, store):
        """No UTF-8 can carry it; the pieces of others go along."""
        grant = self.begun(store, "a\ud83d", "“b”")

        assert [delta.text for _, delta in store.events(grant.job_id)] == ["a?", "“b”"]

    def test_pieces_go_with_their_record(self, store, client):
        """Whoever removes the answer removes its pieces."""
        grant = self.begun(store, "a")
        self.finish(store, grant)
        before = client.exists(f"stream:{grant.job_id}")
        store.settle([grant.job_id])

        assert (before, client.exists(f"stream:{grant.job_id}")) == (1, 0)

    # -- told

    def test_watchers_hear_the_pieces_of_all_jobs_together(self, store, client):
        """One message for each channel, however many pieces and jobs there are."""
        both = self.admitted(store, reply_to=CHANNEL)
        store.watch(both.id, "reply:2")
        store.watch(both.id, "reply:2")
        other, nobody = self.admitted(store, reply_to=CHANNEL), self.admitted(store)
        one, two, three = (self.start(store, job.id, job.id) for job in (both, other, nobody))
        pubsub = self.subscribed(client, CHANNEL, "reply:2")
        store.deliver(
            [
                *numbered(one, text("a", "b")),
                *numbered(three, text("n")),
                *numbered(two, text("“c”")),
            ]
        )
        first = [both.id, 1, 1, {"content": "a"}], [both.id, 1, 2, {"content": "b"}]

        assert sorted(self.messages(pubsub, 2)) == [
            (CHANNEL, [*first, [other.id, 1, 1, {"content": "“c”"}]]),
            ("reply:2", [*first]),
        ]
        assert len(store.events(nobody.id)) == 1

    def test_large_pieces_are_announced_not_sent(self, store, client):
        """What would make a message larger than 64 kB is found where it is kept."""
        job = self.admitted(store, reply_to=CHANNEL)
        grant = self.start(store, job.id)
        pubsub = self.subscribed(client, CHANNEL)
        store.deliver(numbered(grant, text("x" * 70_000, "y" * 40_000, "z" * 40_000, "short")))
        ((_, events),) = self.messages(pubsub, 1)

        assert [event[:3] for event in events] == [[job.id, 1, n] for n in range(1, 5)]
        assert [event[3] and len(event[3]["content"]) for event in events] == [
            None,
            40_000,
            None,
            5,
        ]
        assert [len(delta.text) for _, delta in store.events(job.id)] == [70_000, 40_000, 40_000, 5]

    # -- calls that are not wanted

    def test_calls_that_are_no_longer_wanted_are_named(self, store, client):
        """Their jobs are over, in a newer call, or wait for one; others go on."""
        ended, removed = self.called(store, self.admitted(store), self.admitted(store))
        for grant in (ended, removed):
            self.finish(store, grant)
        store.settle([removed.job_id])
        again, newer = self.batch(store, 2)
        lost = self.called(store, again, newer)
        self.reclaim(store)
        self.start(store, newer.id, "newer")
        runs = self.start(store, self.admitted(store).id)
        unwanted = [ended, removed, *lost]
        calls = store.deliver([p for g in [*unwanted, runs] for p in numbered(g, text("a", "b"))])

        assert calls == [(grant.job_id, grant.token) for grant in unwanted]
        assert [len(store.events(grant.job_id)) for grant in (*unwanted, runs)] == [0] * 4 + [2]
        assert client.hget(f"job:{newer.id}", "delivered") is None

    def test_a_call_that_redis_has_forgotten_is_not_stopped(self, store):
        """Its worker tells of it as soon as it notices; nothing is kept until then."""
        job = self.admitted(store)
        calls = [Piece(one, "t", 1, 1, *text("a")) for one in (job.id, a_job().id)]

        assert store.deliver(calls) == []
        assert store.events(job.id) == []
        assert self.start(store, job.id).attempt == 1

    # -- no other attempt

    def test_an_error_behind_a_piece_ends_the_job(self, store):
        """Whatever its worker asks for; before the first piece there is another attempt."""
        first, second = self.batch(store, 2)
        early, late = self.called(store, first, second)
        store.deliver(numbered(late, text("a")))

        assert self.said(store.finish(self.again(early, 5.0)))[0] == "waiting"
        ending = self.again(late, 5.0)
        assert [self.said(store.finish(ending)) for _ in range(2)] == [("done", "failed")] * 2
        assert store.record(second.id).error == ending.payload

    def test_an_older_answer_does_not_cut_off_the_one_that_is_read(self, store):
        """The older call goes to the ledger; the newer one ends the job."""
        (job,) = self.batch(store, 1)
        old = self.start(store, job.id, "old")
        self.reclaim(store)
        new = self.start(store, job.id, "new")
        store.deliver(numbered(new, text("a")))

        assert self.finish(store, old) == ("late", "calling")
        assert self.finish(store, new) == ("done", "succeeded")
        assert [(a.outcome, a.billed) for a in store.record(job.id).attempts] == [
            ("late", "yes"),
            ("succeeded", "yes"),
        ]

    @pytest.mark.parametrize(
        "deltas",
        [
            pytest.param(text("Par", "is"), id="content"),
            pytest.param([Delta(DeltaKind.REASONING, "Hm")], id="reasoning"),
            pytest.param(ANSWER, id="all"),
        ],
    )
    def test_a_lost_call_behind_a_piece_ends_as_unknown(self, store, deltas):
        """Although its lane repeats lost calls; with what had come, as any answer has it."""
        job = self.admitted(store, lane=Lane.BATCH)
        grant = self.start(store, job.id)
        store.deliver(numbered(grant, deltas))
        partial = Partial()
        for delta in deltas:
            partial.add(delta)

        assert self.reclaim(store) == ["failed"]
        error = store.record(job.id).error
        assert error["code"] == "outcome_unknown"
        assert error["billed"] == "maybe"
        assert error["partial"] == {**partial.to_wire(), "output_tokens": len(deltas)}

    def test_a_lost_call_before_its_first_piece_is_repeated(self, store):
        """As ever."""
        job = self.admitted(store, lane=Lane.BATCH)
        self.start(store, job.id)

        assert self.reclaim(store) == ["queued"]

    @pytest.mark.parametrize(("state", "code"), [("cancelled", "job_cancelled"), ("failed", "")])
    def test_what_had_come_is_kept_however_a_lost_call_ends(self, store, client, state, code):
        """Cancelled, or past its deadline."""
        grant = self.begun(store, "Par", lane=Lane.BATCH)
        if state == "cancelled":
            store.cancel(grant.job_id)
        else:
            client.hset(f"job:{grant.job_id}", "deadline", 1)

        assert self.reclaim(store) == [state]
        error = store.record(grant.job_id).error
        assert error["code"] == (code or "deadline_exceeded")
        assert error["partial"]["content"] == "Par"

    @pytest.mark.parametrize(
        ("numbers", "content"),
        [
            pytest.param([1, 2, 4], "ab", id="a-gap"),
            pytest.param([2, 3], None, id="no-beginning"),
            pytest.param([], None, id="nothing"),
        ],
    )
    def test_what_had_come_ends_at_a_gap(self, store, client, numbers, content):
        """Redis had forgotten some pieces, or all of them."""
        grant = self.begun(store, "x", lane=Lane.BATCH)
        client.delete(f"stream:{grant.job_id}")
        for number in numbers:
            store.deliver(numbered(grant, text(" abcd"[number]), number))

        assert self.reclaim(store) == ["failed"]
        assert store.record(grant.job_id).error.get("partial", {}).get("content") == content

    def test_a_call_that_is_entered_again_remembers_its_pieces(self, store, client):
        """Redis forgot that any had gone: the loss of the worker leads to no other attempt."""
        (delivered, silent) = self.called(store, *self.batch(store, 2))
        for grant in (delivered, silent):
            # As it was before the call began.
            store.finish(self.again(grant, signal=""))
            store.release(sweep=False)
            client.hdel(f"job:{grant.job_id}", "a:1", "attempts")
        became = [
            store.reassert(
                grant, worker="ollama-1@here", provider="ollama", delivered=grant is delivered
            )
            for grant in (delivered, silent)
        ]
        lost = {call.job_id: store.reclaim("ollama", call).became for call in store.calls("ollama")}

        assert became == ["taken", "taken"]
        assert lost == {delivered.job_id: "failed", silent.job_id: "queued"}

    # -- what it cost

    @pytest.mark.parametrize("tokens", [2, 5_000])
    def test_the_tokens_of_a_broken_answer_are_counted(self, store, client, tokens):
        """At the least its estimate is taken: nobody says how large the question was."""
        self.limit(client, tpm=100_000)
        grant = self.begun(store, "a", "b")
        before = float(client.hget("budget:ollama:*", "tokens"))
        store.finish(
            self.ending(
                grant,
                state=JobState.FAILED.value,
                payload={"code": "upstream_unavailable", "message": "cut"},
                signal="",
                output_tokens=tokens,
            )
        )
        totals = store.overview(["ollama"])["providers"][0]["totals"]

        left = float(client.hget("budget:ollama:*", "tokens"))
        estimated = estimated_tokens(a_job().request)

        assert before - left == pytest.approx(max(0, tokens - estimated))
        assert (totals["output_tokens"], totals["failed"]) == (tokens, 1)
