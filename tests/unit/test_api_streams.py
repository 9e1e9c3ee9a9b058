"""Answers that are streamed, over fakes: what is written, when, and what goes wrong on the way."""

from __future__ import annotations

import itertools
from typing import Any

import httpx2
import openai
import pytest

from api.completion_contract import Completion
from api.contract import Answer, ErrorAnswer, Record
from chat import errors
from chat.errors import ChatError, QueueUnavailable
from chat.jobs import JobState
from chat.types import JSON, Lane
from tests.events import Told, call, say, text_of, think
from tests.fakes import Gateway, gateway, response_of
from tests.streams import (
    BODY,
    CHAT,
    COMPLETIONS,
    ask,
    calls,
    ends,
    events_of,
    fails,
    nothing_is_left,
    script,
    tells,
)

USAGE = {**BODY, "stream_options": {"include_usage": True}}


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    made = gateway()
    monkeypatch.setattr("api.streams.time.time_ns", made.clock.time_ns)
    return made


def test_pieces_then_the_answer(gate: Gateway) -> None:
    """In chatd's own form: each piece with its place, then what a call that waits gets."""
    script(
        gate,
        tells(gate, think("so"), say("he")),
        tells(gate, say("llo"), call('{"a":', 0, "c1", "f"), call("1}")),
        ends(
            gate,
            reasoning="so",
            tool_calls=[
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
            ],
        ),
    )
    response = ask(gate)
    *deltas, last = events_of(response)
    job = gate.store.newest().new

    assert job.request.stream
    assert [(one.id, one.event) for one in deltas] == [(f"1-{n}", "delta") for n in range(1, 6)]
    assert [one.json for one in deltas] == [
        {"reasoning": "so"},
        {"content": "he"},
        {"content": "llo"},
        {"tool_call": {"index": 0, "arguments": '{"a":', "id": "c1", "name": "f"}},
        {"tool_call": {"index": 0, "arguments": "1}"}},
    ]
    assert (last.id, last.event) == ("end-0", "answer")
    assert Answer.model_validate_json(last.data).id == job.id
    assert response.headers["X-Chatd-Job-Id"] == job.id
    assert response.headers["X-Accel-Buffering"] == "no"
    assert response.headers["Cache-Control"] == "no-store"
    assert nothing_is_left(gate)


def test_openai_s_chunks(gate: Gateway) -> None:
    """One speaker, the fields of each piece, the reason to end, the usage, and the end."""
    script(
        gate,
        tells(gate, think("so"), say("he")),
        tells(gate, say("llo"), call("", 0, "c1", "f"), call("{}")),
        ends(
            gate,
            reasoning="so",
            finish_reason="tool_calls",
            tool_calls=[
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        ),
    )
    response = ask(gate, COMPLETIONS, USAGE)
    *chunks, done = events_of(response)
    job_id = gate.store.newest().new.id
    told = [one.json for one in chunks]

    assert done == Told(None, "message", "[DONE]")
    assert [one.id for one in chunks] == ["1-1", "1-2", "1-3", "1-4", "1-5", "end-0", "end-1"]
    assert {(one["id"], one["object"], one["model"]) for one in told} == {
        (f"chatcmpl-{job_id.removeprefix('job_')}", "chat.completion.chunk", "qwen3:8b")
    }
    assert [one["choices"][0]["delta"] for one in told[:-1]] == [
        {"role": "assistant", "reasoning_content": "so"},
        {"content": "he"},
        {"content": "llo"},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "f", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
        {},
    ]
    reasons = [one["choices"][0]["finish_reason"] for one in told[:-1]]
    assert reasons == [None, None, None, None, None, "tool_calls"]
    assert {one["usage"] for one in told[:-1]} == {None}
    assert told[-2]["chatd"]["job_id"] == job_id
    assert told[-1]["choices"] == []
    assert told[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}


@pytest.mark.parametrize(
    ("body", "tokens"), [(BODY, 3), (USAGE, None)], ids=["not asked for", "not known"]
)
def test_a_usage_that_is_not_there_has_no_chunk(
    gate: Gateway, body: JSON, tokens: int | None
) -> None:
    """Clients would take the field for one."""
    script(gate, ends(gate, input_tokens=tokens))
    *chunks, _ = events_of(ask(gate, COMPLETIONS, body))

    assert [bool(one.json["choices"]) for one in chunks] == [True, True]
    assert all("usage" in one.json for one in chunks) == (body is USAGE)


def test_an_answer_without_a_text_is_a_stream_all_the_same(gate: Gateway) -> None:
    """Its one chunk has the speaker."""
    script(gate, ends(gate, "", finish_reason="length"))
    chunk, done = events_of(ask(gate, COMPLETIONS))

    assert chunk.json["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert (chunk.json["choices"][0]["finish_reason"], done.data) == ("length", "[DONE]")


@pytest.mark.parametrize(
    ("path", "status"), [(CHAT, 502), (COMPLETIONS, 400)], ids=["chat", "completions"]
)
def test_an_error_before_the_first_event_is_answered_as_ever(
    gate: Gateway, path: str, status: int
) -> None:
    """With its status, its body and no stream."""
    script(gate, fails(gate, errors.UpstreamRejected("no")))
    response = ask(gate, path)
    error = ErrorAnswer.model_validate_json(response.data).error

    assert (response.status_code, response.mimetype) == (status, "application/json")
    assert (error.code, error.job_id) == ("upstream_rejected", gate.store.newest().new.id)
    assert nothing_is_left(gate)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_an_error_after_that_is_an_event(gate: Gateway, path: str) -> None:
    """Behind all that had come, also of what was not told; and there is no other end."""
    partial: JSON = {"content": "hell", "reasoning": None, "tool_calls": [], "output_tokens": 2}
    error = errors.UpstreamUnavailable("cut", partial=partial)
    script(gate, tells(gate, say("he")), fails(gate, error))
    *pieces, last = events_of(ask(gate, path))
    told = ErrorAnswer.model_validate_json(last.data).error

    assert [one.id for one in pieces] == ["1-1", "1-1.1"]
    assert (last.id, last.event) == ("end-0", "error" if path == CHAT else "message")
    assert (told.code, told.partial) == ("upstream_unavailable", None)
    assert told.job_id == gate.store.newest().new.id


@pytest.mark.parametrize(
    "refusal",
    [errors.QueueFull("full", retry_after_s=5), errors.Draining("drained", retry_after_s=5)],
    ids=["full", "drained"],
)
def test_a_refusal_of_the_queue_is_no_stream(gate: Gateway, refusal: ChatError) -> None:
    """Nothing was admitted."""
    gate.store.refusal = refusal
    response = ask(gate)

    assert ErrorAnswer.model_validate_json(response.data).error.code == refusal.code
    assert response.headers["Retry-After"] == "5"
    assert nothing_is_left(gate)


def test_comments_say_where_a_job_stands_while_nothing_comes(gate: Gateway) -> None:
    """The head is held back for five seconds, then there is one every ten."""

    def parked(_: str) -> None:
        gate.store.stands = {"reason": "rate_limited", "position": 2}

    def alone(_: str) -> None:
        gate.store.stands = {"reason": "retry", "position": None}

    times: list[float] = []
    waiting = gate.store.waiting

    def timed(job_id: str) -> JSON | None:
        times.append(gate.clock.now - 1000)
        return waiting(job_id)

    gate.store.waiting = timed  # type: ignore[method-assign]
    script(gate, None, parked, alone, calls(gate), ends(gate))
    told = events_of(ask(gate))

    assert [one.data for one in told if one.event == "comment"] == [
        "queued, position 3",
        "waiting (rate_limited), position 2",
        "waiting (retry)",
        "calling",
    ]
    assert times == [5.0, 15.0, 25.0, 35.0]


def test_silence_between_two_pieces_is_filled_too(gate: Gateway) -> None:
    """Nobody asks Redis what a job does whose pieces come."""
    script(gate, tells(gate, say("he")), None, ends(gate))
    told = events_of(ask(gate))

    assert [one.event for one in told] == ["delta", "comment", "delta", "answer"]
    assert told[1].data == "calling"
    assert "waiting" not in gate.store.asked


def test_openais_client_reads_past_a_comment(gate: Gateway) -> None:
    """It takes an empty line for the end of an event as soon as one had an id."""
    script(gate, tells(gate, say("he")), None, ends(gate))
    raw = ask(gate, COMPLETIONS).data
    served = httpx2.MockTransport(
        lambda _: httpx2.Response(200, content=raw, headers={"Content-Type": "text/event-stream"})
    )
    with openai.OpenAI(
        base_url="http://chatd", api_key="none", http_client=httpx2.Client(transport=served)
    ) as client:
        chunks = list(client.chat.completions.create(model="m", messages=[], stream=True))

    assert b"\n: calling\n" in raw
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "hello"


def test_without_redis_a_stream_goes_on(gate: Gateway) -> None:
    """It says so in a comment, and the answer is complete once Redis is back."""

    def away(_: str) -> None:
        gate.store.trouble = QueueUnavailable("away")
        (waiter,) = gate.replies.expected
        assert waiter.follower is not None
        waiter.follower.look_again()
        waiter.wake()

    def back(job_id: str) -> None:
        gate.store.trouble = None
        gate.store.pieces[job_id].append(("1-2", say("ll")))

    script(gate, tells(gate, say("he")), away, *[None] * 20, back, ends(gate))
    told = events_of(ask(gate))

    assert [one.id for one in told if one.event == "delta"] == ["1-1", "1-2", "1-2.1"]
    assert text_of(told) == "hello"
    assert {one.data for one in told if one.event == "comment"} == {"calling"}


def test_a_comment_without_redis_names_that(gate: Gateway) -> None:
    """Nobody knows where the job stands."""

    def away(_: str) -> None:
        gate.store.trouble = QueueUnavailable("away")

    def back(job_id: str) -> None:
        gate.store.trouble = None
        ends(gate)(job_id)

    script(gate, away, None, back)
    told = events_of(ask(gate))

    assert told[0].data == "waiting (redis_unavailable)"
    assert told[-1].event == "answer"


def test_what_no_piece_told_is_told_at_the_end(gate: Gateway) -> None:
    """The worker could not send all of them."""
    script(
        gate, tells(gate, say("he")), ends(gate, tool_calls=[], reasoning=None, content="hello you")
    )
    told = events_of(ask(gate))

    assert [(one.id, one.event) for one in told] == [
        ("1-1", "delta"),
        ("1-1.1", "delta"),
        ("end-0", "answer"),
    ]
    assert text_of(told) == "hello you"


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_text_that_is_none_of_the_answer_s_is_an_error(gate: Gateway, path: str) -> None:
    """Of two attempts that Redis took for one; nothing is made of both."""
    script(gate, tells(gate, say("he")), ends(gate, "Good day"))
    told = events_of(ask(gate, path))
    job_id = gate.store.newest().new.id

    assert told[-1].json["error"]["code"] == "result_expired"
    assert f"GET /v1/jobs/{job_id}" in told[-1].json["error"]["message"]
    assert told[-1].id is None


def test_a_job_that_is_over_is_told_in_one_piece_each(gate: Gateway) -> None:
    """Its key comes again after the end."""
    gate.store.respond = lambda job: response_of(job, reasoning="so")
    ask(gate, key="k", prefer="respond-async")
    told = events_of(ask(gate, key="k"))

    assert [(one.id, one.event) for one in told] == [
        ("0-0.1", "delta"),
        ("0-0.2", "delta"),
        ("end-0", "answer"),
    ]
    assert [one.json for one in told[:2]] == [{"reasoning": "so"}, {"content": "hello"}]
    assert len(gate.store.jobs) == 1
    assert nothing_is_left(gate)


def test_a_job_that_has_failed_is_answered_as_ever(gate: Gateway) -> None:
    """Nothing was told yet, so that its error has a status."""
    gate.store.respond = lambda _: errors.OutcomeUnknown("lost")
    for _ in range(2):
        response = ask(gate, key="k")
        assert (response.status_code, response.mimetype) == (502, "application/json")


def _begun(gate: Gateway) -> str:
    """A job of which four pieces have been told, of `hello`, to somebody who has gone."""
    ask(gate, key="k", prefer="respond-async")
    job_id = gate.store.newest().new.id
    gate.replies.tell(job_id, think("so"), say("h"), say("e"), say("ll"))
    return job_id


#: How far a client has come in the stream of `_begun`, and which ids it is to get.
_ALL = ["1-1", "1-2", "1-3", "1-4", "1-4.1", "end-0"]


@pytest.mark.parametrize("had", [None, *_ALL])
@pytest.mark.parametrize("over", [False, True], ids=["running", "over"])
@pytest.mark.parametrize("by_key", [True, False], ids=["by key", "by id"])
def test_who_comes_back_gets_what_follows(
    gate: Gateway, had: str | None, *, over: bool, by_key: bool
) -> None:
    """Nothing twice, nothing missing, wherever it broke off and whether or not it is over."""
    job_id = _begun(gate)
    end = ends(gate, reasoning="so")
    if over or had in ("1-4.1", "end-0"):
        end(job_id)
    else:
        script(gate, end)
    if by_key:
        response = ask(gate, key="k", had=had)
    else:
        headers = {} if had is None else {"Last-Event-ID": had}
        response = gate.client.get(f"/v1/jobs/{job_id}/events", headers=headers)
    told = events_of(response)

    if had is None and over:
        assert [one.json for one in told[:2]] == [{"reasoning": "so"}, {"content": "hello"}]
    elif had == "end-0":
        assert told == [Told(None, "comment", "nothing is left")]
    else:
        begin = 0 if had is None else _ALL.index(had) + 1
        assert [one.id for one in told] == _ALL[begin:]
    assert nothing_is_left(gate)


def test_who_broke_off_in_the_pieces_of_a_replay_gets_the_others(gate: Gateway) -> None:
    """They are made of the answer in the same way each time."""
    gate.store.respond = lambda job: response_of(job, reasoning="so")
    whole = events_of(ask(gate, key="k"))
    ids = [one.id for one in whole]
    for had, following in itertools.pairwise(range(len(ids))):
        told = events_of(ask(gate, key="k", had=str(ids[had])))
        assert told == whole[following:]


def test_openai_s_end_comes_again_for_who_missed_it(gate: Gateway) -> None:
    """The usage and the last word; who speaks was said before."""
    gate.store.respond = response_of
    whole = events_of(ask(gate, COMPLETIONS, USAGE, key="k"))
    piece, finish, usage, done = whole

    assert "role" in piece.json["choices"][0]["delta"]
    assert finish.json["choices"][0]["delta"] == {}
    for had, left in (("0-0.1", whole[1:]), ("end-0", whole[2:]), ("end-1", [done])):
        assert events_of(ask(gate, COMPLETIONS, USAGE, key="k", had=had)) == left
    assert usage.json["choices"] == []


def test_pieces_that_are_no_longer_kept_cannot_be_gone_on_with(gate: Gateway) -> None:
    """What the client has is not known: it is sent to the whole answer."""
    job_id = _begun(gate)
    ends(gate, reasoning="so")(job_id)
    gate.store.pieces.clear()
    response = ask(gate, key="k", had="1-2")
    error = ErrorAnswer.model_validate_json(response.data).error

    assert (response.status_code, error.code) == (410, "result_expired")
    assert f"GET /v1/jobs/{job_id}" in error.message


def test_who_comes_back_to_a_job_that_runs_is_told_so_at_once(gate: Gateway) -> None:
    """Nothing would come of waiting for its end."""
    job_id = _begun(gate)
    del gate.store.pieces[job_id][:2]
    response = ask(gate, key="k", had="1-2")

    assert (response.status_code, response.json["error"]["code"]) == (410, "result_expired")
    assert (gate.replies.waits, gate.store.newest().state) == ([], JobState.QUEUED)
    assert nothing_is_left(gate)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("given", ["5", "1-", "end-", "1-2.", "x", "1-2-3", "end-10"])
def test_an_event_id_that_is_none_is_refused(gate: Gateway, path: str, given: str) -> None:
    """With the rule, before anything is admitted."""
    response = ask(gate, path, key="k", had=given)
    error = ErrorAnswer.model_validate_json(response.data).error

    assert (response.status_code, error.param) == (400, "Last-Event-ID")
    assert given in error.message
    assert gate.store.asked == []


def test_an_empty_event_id_is_none(gate: Gateway) -> None:
    """What a browser has before the first event."""
    gate.store.respond = response_of

    assert events_of(ask(gate, had=""))[-1].event == "answer"


def test_an_event_id_without_a_key_is_refused(gate: Gateway) -> None:
    """It would be paid for twice, and the second text would stand behind half of the first."""
    response = ask(gate, had="1-2")
    error = ErrorAnswer.model_validate_json(response.data).error

    assert (response.status_code, error.param) == (400, "Last-Event-ID")
    assert "Idempotency-Key" in error.message
    assert gate.store.asked == []


def test_an_event_id_of_a_job_that_is_gone_is_refused(gate: Gateway) -> None:
    """Its key would begin another one: that is cancelled at once."""
    response = ask(gate, key="k", had="1-2")

    assert (response.status_code, response.json["error"]["code"]) == (410, "result_expired")
    assert gate.store.newest().state is JobState.CANCELLED
    assert nothing_is_left(gate)


@pytest.mark.parametrize("had", ["1-1.1", "end-0"])
def test_the_id_of_an_end_that_has_not_come_is_refused(gate: Gateway, had: str) -> None:
    """Of another job, most likely."""
    job_id = _begun(gate)
    for response in (
        ask(gate, key="k", had=had),
        gate.client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": had}),
    ):
        error = ErrorAnswer.model_validate_json(response.data).error
        assert (response.status_code, error.param) == (400, "Last-Event-ID")
    assert nothing_is_left(gate)


def test_without_a_stream_the_event_id_is_nobody_s(gate: Gateway) -> None:
    """Like any header of another call."""
    gate.store.respond = response_of
    response = ask(gate, body={**BODY, "stream": False}, had="x")

    assert (response.status_code, response.mimetype) == (200, "application/json")


def test_who_does_not_want_to_wait_gets_the_job(gate: Gateway) -> None:
    """Its events can be had by its id."""
    response = ask(gate, prefer="respond-async")
    job_id = Record.model_validate_json(response.data).id
    script(gate, tells(gate, say("he")), ends(gate))
    told = events_of(gate.client.get(f"/v1/jobs/{job_id}/events"))

    assert (response.status_code, response.headers["Preference-Applied"]) == (202, "respond-async")
    assert (text_of(told), told[-1].event) == ("hello", "answer")


@pytest.mark.parametrize("preference", ["wait=1", "respond-async, wait=1"])
def test_a_stream_is_not_cut_off_by_a_preference(gate: Gateway, preference: str) -> None:
    """Nobody waits in silence."""
    script(gate, None, ends(gate))
    response = ask(gate, prefer=preference)

    assert "Preference-Applied" not in response.headers
    assert events_of(response)[-1].event == "answer"


def test_fields_that_nobody_was_sent_are_named(gate: Gateway) -> None:
    """As without a stream; what asks for padding is one of them."""
    gate.store.respond = response_of
    options = {"include_usage": True, "include_obfuscation": True}
    response = ask(gate, COMPLETIONS, {**BODY, "user": "u1", "stream_options": options})

    assert response.headers["X-Chatd-Ignored"] == "user, stream_options.include_obfuscation"


class TestByItsId:
    """``GET /v1/jobs/{job_id}/events``."""

    @pytest.fixture
    def job_id(self, gate: Gateway) -> str:
        found: str = gate.client.post("/v1/jobs", json=BODY).json["id"]  # type: ignore[index]
        return found

    def follow(self, gate: Gateway, job_id: str, query: str = "", **headers: str) -> Any:
        return gate.client.get(f"/v1/jobs/{job_id}/events{query}", headers=headers)

    def test_a_job_of_the_batch_lane_can_be_followed(self, gate: Gateway, job_id: str) -> None:
        """Leaving its events changes nothing, and the channel is told no more."""
        script(gate, tells(gate, say("he")), ends(gate))
        told = events_of(self.follow(gate, job_id))

        assert gate.store.newest().new.lane is Lane.BATCH
        assert (text_of(told), told[-1].json["id"]) == ("hello", job_id)
        assert nothing_is_left(gate)

    def test_in_openai_s_format(self, gate: Gateway, job_id: str) -> None:
        """With the usage; what it comes to is the completion."""
        script(gate, tells(gate, say("he")), ends(gate))
        *chunks, done = events_of(self.follow(gate, job_id, "?format=openai"))

        assert [one.id for one in chunks] == ["1-1", "1-1.1", "end-0", "end-1"]
        assert chunks[-1].json["usage"]["total_tokens"] == 4
        assert done.data == "[DONE]"
        gate.store.respond = response_of
        completion = Completion.model_validate_json(ask(gate, COMPLETIONS, _whole()).data)
        assert set(chunks[-2].json) - {"usage"} == set(completion.model_dump()) - {"usage"}

    def test_a_job_without_a_stream_comes_in_one_piece(self, gate: Gateway) -> None:
        """When it is over."""
        asked = gate.client.post("/v1/jobs", json=_whole())
        assert asked.json is not None
        script(gate, None, ends(gate))
        told = events_of(self.follow(gate, asked.json["id"]))

        assert [one.event for one in told] == ["comment", "delta", "answer"]

    def test_who_hangs_up_leaves_it_as_it_is(self, gate: Gateway, job_id: str) -> None:
        """Others may want it."""
        script(gate, tells(gate, say("he")))
        self.follow(gate, job_id).close()

        assert gate.store.newest().state is JobState.QUEUED
        assert gate.store.newest().watchers == []
        assert nothing_is_left(gate)

    def test_its_error_is_answered_as_ever(self, gate: Gateway, job_id: str) -> None:
        """While nothing was told; in the form of chatd, whatever the format."""
        script(gate, fails(gate, errors.UpstreamTimeout("slow")))
        response = self.follow(gate, job_id, "?format=openai")

        assert (response.status_code, response.json["error"]["code"]) == (504, "upstream_timeout")

    def test_a_format_that_is_none_is_refused(self, gate: Gateway, job_id: str) -> None:
        """With those that there are."""
        response = self.follow(gate, job_id, "?format=xml")
        error = ErrorAnswer.model_validate_json(response.data).error

        assert (response.status_code, error.param) == (400, "format")
        assert "chatd, openai" in error.message

    def test_a_job_that_is_not_there_is_404(self, gate: Gateway) -> None:
        """Like its record."""
        for job_id in ("job_x", "job_00000000000000000000000000"):
            assert self.follow(gate, job_id).status_code in (404, 410)

    def test_its_head_alone_does_not_wait(self, gate: Gateway, job_id: str) -> None:
        """Nor does it keep anything."""
        response = gate.client.head(f"/v1/jobs/{job_id}/events")
        response.close()

        assert (response.status_code, response.mimetype) == (200, "text/event-stream")
        assert (gate.replies.waits, response.data) == ([], b"")
        assert nothing_is_left(gate)

    def test_an_answer_that_is_no_longer_kept_is_410(self, gate: Gateway, job_id: str) -> None:
        """The record outlives the answer by a moment."""
        gate.store.newest().state = JobState.SUCCEEDED
        response = self.follow(gate, job_id)

        assert (response.status_code, response.json["error"]["code"]) == (410, "result_expired")

    def test_a_job_that_nobody_ends_is_given_up(self, gate: Gateway, job_id: str) -> None:
        """At its deadline."""
        calls(gate)(job_id)
        told = events_of(self.follow(gate, job_id))

        assert told[-1].json["error"]["code"] == "deadline_exceeded"
        assert (told[-1].id, gate.clock.now) == (None, 1061)


def _whole() -> JSON:
    return {**BODY, "stream": False}
