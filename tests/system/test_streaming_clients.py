"""Streams as programs read them: OpenAI's own client, and a plain reader of SSE."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import closing

import openai
import pytest
import requests
from pydantic import BaseModel

from bench.streams.follower import Follower
from bench.streams.reading import FORMS
from bench.streams.script import Script
from bench.streams.upstream import StreamUpstream
from cli.redis_server import free_port
from tests.nginx import Nginx
from tests.stack import Stack
from tests.waiting import eventually

#: The models that lead to an upstream of NDJSON and to one of SSE.
MODELS = pytest.mark.parametrize("model", ["echo", "openrouter/v/echo"], ids=["NDJSON", "SSE"])
ROME = {"name": "weather", "arguments": {"city": "Rome"}}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
CITY = '{"name": "Rome", "people": 3}'


class City(BaseModel):
    """What a parsed answer is to be."""

    name: str
    people: int


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    upstream = StreamUpstream(tmp_path_factory.mktemp("upstream"), free_port()).start()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def stack(tmp_path_factory, upstream):
    stack = Stack(
        tmp_path_factory.mktemp("streams"),
        {"ollama": upstream.url, "openrouter": upstream.url},
        environ={"OPENROUTER_API_KEY": "sk-or-never-shown"},
    )
    yield stack.start()
    stack.stop()


@pytest.fixture(scope="module")
def nginx(stack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nginx") / "prefix"
    with Nginx(folder, stack.url, stack.config, patient=True) as server:
        yield server


@pytest.fixture
def client(stack):
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def http():
    with requests.Session() as session:
        session.trust_env = False
        yield session


def script(**fields):
    """One that no other test has; it has no pauses."""
    return Script(**{"name": secrets.token_hex(8), "every_ms": 1, **fields})


def asking(script, model="echo", **fields):
    """The arguments of a call."""
    messages = [{"role": "user", "content": script.question}]
    return {"model": model, "messages": messages, "stream": True, **fields}


def text_of(chunks):
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def events(reply):
    """What a reader of SSE in a few lines makes of a response: id, name and data of each event."""
    found: dict[str, str] = {}
    for line in reply.iter_lines(chunk_size=None):
        if not line:
            if "data" in found:
                yield found.get("id"), found.get("event"), json.loads(found["data"])
            found = {}
            continue
        field, _, value = line.decode().partition(": ")
        found[field] = value


class TestOpenAI:
    """The official client."""

    @MODELS
    def test_the_text_comes_in_chunks(self, client, model):
        """The role stands in the first one, the reason to stop in the last one."""
        said = script(pieces=50)
        chunks = list(client.chat.completions.create(**asking(said, model)))

        assert text_of(chunks) == said.whole()
        assert len([c for c in chunks if c.choices[0].delta.content]) > 1
        assert [c.choices[0].delta.role for c in chunks if c.choices[0].delta.role] == ["assistant"]
        assert chunks[0].choices[0].delta.role == "assistant"
        assert [c.choices[0].finish_reason for c in chunks][-1] == "stop"
        assert {c.choices[0].finish_reason for c in chunks[:-1]} == {None}
        assert {(c.model, c.object) for c in chunks} == {(model, "chat.completion.chunk")}
        assert len({c.id for c in chunks}) == 1
        assert {c.usage for c in chunks} == {None}

    @MODELS
    def test_usage_comes_last_to_who_wants_it(self, client, model):
        """In a chunk without choices, as OpenAI has it."""
        options = {"stream_options": {"include_usage": True}}
        *chunks, last = client.chat.completions.create(**asking(script(pieces=9), model, **options))

        assert last.choices == []
        assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (7, 9)
        assert last.usage.total_tokens == 16
        assert {c.usage for c in chunks} == {None}

    @MODELS
    def test_a_piece_comes_although_the_answer_goes_on_for_ever(
        self, client, stack, upstream, model
    ):
        """Who has seen enough closes the stream: the upstream's connection ends, and the job."""
        said = script(pieces=9, fails="silence", fails_after=3)
        raw = client.chat.completions.with_raw_response.create(**asking(said, model))
        stream = raw.parse()
        text = ""
        with closing(stream):
            for chunk in stream:
                text += chunk.choices[0].delta.content or ""
                if text == "".join(said.said()[:3]):
                    break
        (call,) = upstream.calls_of(said.name)
        record = stack.ended(raw.headers["X-Chatd-Job-Id"])
        eventually(
            lambda: upstream.calls_of(said.name)[0].became == "dropped",
            what="the upstream's connection ends",
        )

        assert call.streamed
        assert record["state"] == "cancelled"
        assert record["error"]["partial"]["content"] == text

    @MODELS
    def test_a_tool_is_called(self, client, model):
        """Its id and name come once, its arguments in pieces."""
        chunks = list(
            client.chat.completions.create(**asking(script(tool=ROME), model, tools=TOOLS))
        )
        pieces = [call for c in chunks for call in c.choices[0].delta.tool_calls or ()]

        assert [(p.id, p.function.name) for p in pieces if p.id] == [("call_7", "weather")]
        assert {p.index for p in pieces} == {0}
        assert json.loads("".join(p.function.arguments for p in pieces)) == {"city": "Rome"}
        assert chunks[-1].choices[0].finish_reason == "tool_calls"

    @MODELS
    def test_a_json_object(self, client, model):
        """Piece by piece as any other text."""
        wanted = {"response_format": {"type": "json_object"}}
        chunks = client.chat.completions.create(**asking(script(text=CITY), model, **wanted))

        assert json.loads(text_of(chunks)) == {"name": "Rome", "people": 3}

    def test_reasoning_comes_before_the_text(self, client):
        """In the field that the providers have for it."""
        said = script(thinking="Let me see.")
        chunks = list(client.chat.completions.create(**asking(said, reasoning_effort="low")))
        thought = [
            (c.choices[0].delta.model_extra or {}).get("reasoning_content") or "" for c in chunks
        ]

        assert "".join(thought) == "Let me see."
        assert text_of(chunks) == said.whole()

    @MODELS
    def test_an_error_before_the_first_piece_is_the_usual_exception(self, client, model):
        """With its status, as if nobody had asked for a stream."""
        with pytest.raises(openai.NotFoundError) as error:
            client.chat.completions.create(**asking(script(status=404), model))

        assert error.value.code == "upstream_not_found"

    @pytest.mark.parametrize("fails", ["error", "reset", "end"])
    @MODELS
    def test_an_error_in_mid_stream_is_raised_there(self, client, stack, upstream, model, fails):
        """Behind the pieces that had come; the record has them too, and there was one call."""
        said = script(pieces=9, fails=fails, fails_after=4)
        raw = client.chat.completions.with_raw_response.create(**asking(said, model))
        chunks = []
        with pytest.raises(openai.APIError) as error:
            chunks.extend(raw.parse())
        text = text_of(chunks)
        record = stack.ended(raw.headers["X-Chatd-Job-Id"])

        assert text == "".join(said.said()[:4])
        assert record["state"] == "failed"
        assert record["error"]["code"] == error.value.code
        assert record["error"]["partial"]["content"] == text
        assert len(upstream.calls_of(said.name)) == 1

    def test_options_of_a_stream_without_a_stream_are_refused(self, client):
        """As OpenAI does."""
        with pytest.raises(openai.BadRequestError) as error:
            client.chat.completions.create(
                **asking(script(), stream_options={"include_usage": True}) | {"stream": False}
            )

        assert error.value.code == "invalid_request"
        assert error.value.param == "stream_options"

    @MODELS
    def test_the_client_puts_the_answer_together(self, client, model):
        """With its helper, which checks each chunk against what it knows, and parses the end."""
        said = script(text=CITY)
        messages = [{"role": "user", "content": said.question}]
        with client.chat.completions.stream(
            model=model, messages=messages, response_format=City
        ) as stream:
            kinds = {event.type for event in stream}
            answer = stream.get_final_completion()

        assert {"chunk", "content.delta", "content.done"} <= kinds
        assert answer.choices[0].message.parsed == City(name="Rome", people=3)
        assert answer.choices[0].finish_reason == "stop"

    @MODELS
    def test_the_client_puts_a_tool_call_together(self, client, model):
        """With the same helper; the message that it makes can be sent back as it is."""
        messages = [{"role": "user", "content": script(tool=ROME).question}]
        with client.chat.completions.stream(model=model, messages=messages, tools=TOOLS) as stream:
            kinds = {event.type for event in stream}
            message = stream.get_final_completion().choices[0].message
        (call,) = message.tool_calls
        after = script()
        result = {"role": "tool", "tool_call_id": call.id, "content": after.question}
        again = client.chat.completions.create(
            model=model, messages=[*messages, message, result], tools=TOOLS, stream=True
        )

        assert "tool_calls.function.arguments.done" in kinds
        assert (call.id, call.function.name) == ("call_7", "weather")
        assert json.loads(call.function.arguments) == {"city": "Rome"}
        assert text_of(again) == after.whole()

    def test_the_asynchronous_client(self, stack):
        """Ten streams on one loop, none with a piece of another."""
        saids = [script(pieces=30) for _ in range(10)]

        async def one(client, said):
            stream = await client.chat.completions.create(**asking(said))
            return "".join([c.choices[0].delta.content or "" async for c in stream])

        async def all_of_them():
            async with openai.AsyncOpenAI(
                base_url=f"{stack.url}/v1", api_key="none", max_retries=0
            ) as client:
                return await asyncio.gather(*(one(client, said) for said in saids))

        assert asyncio.run(all_of_them()) == [said.whole() for said in saids]


class TestThroughNginx:
    """The gateway of ``chatd gateway``, and a plain ``proxy_pass`` beside it."""

    @pytest.mark.parametrize("way", ["url", "control"], ids=["gateway", "plain"])
    @pytest.mark.parametrize("form", ["chat", "completion"])
    def test_pieces_pass_at_once_and_a_hang_up_too(self, nginx, stack, upstream, way, form):
        """However small they are: the rest of this answer never comes."""
        said = script(pieces=9, fails="silence", fails_after=3)
        with Follower.asking(getattr(nginx, way), FORMS[form], said.question) as follower:
            follower.until(lambda reading: reading.text == "".join(said.said()[:3]))
            follower.close()
        record = stack.ended(follower.job_id)
        eventually(
            lambda: upstream.calls_of(said.name)[0].became == "dropped",
            what="the upstream's connection ends",
        )

        assert not follower.over
        assert record["state"] == "cancelled"

    @pytest.mark.parametrize("way", ["url", "control"], ids=["gateway", "plain"])
    @pytest.mark.parametrize("form", ["chat", "completion"])
    def test_a_stream_passes_whole(self, nginx, way, form):
        """With its end."""
        said = script(pieces=200)
        with Follower.asking(getattr(nginx, way), FORMS[form], said.question) as follower:
            follower.rest()

        assert follower.reading.verdict(said.whole()) == "right"


class TestPlainReader:
    """chatd's own format, read line by line."""

    @MODELS
    def test_pieces_and_then_the_whole_answer(self, stack, http, model):
        """The last event is what the same call without a stream is answered."""
        said = script(pieces=30)
        with http.post(f"{stack.url}/v1/chat", json=asking(said, model), stream=True) as reply:
            found = list(events(reply))
        *deltas, (_, name, answer) = found
        record = stack.record(reply.headers["X-Chatd-Job-Id"])

        assert reply.headers["Content-Type"].startswith("text/event-stream")
        assert reply.headers["X-Accel-Buffering"] == "no"
        assert {name for _, name, _ in deltas} == {"delta"}
        assert "".join(data["content"] for _, _, data in deltas) == said.whole()
        assert (name, answer["content"]) == ("answer", said.whole())
        assert (answer["input_tokens"], answer["output_tokens"]) == (7, 30)
        assert record["state"] == "succeeded"
        assert record["response"]["content"] == said.whole()

    @pytest.mark.parametrize("way", ["the same call", "the job's events"])
    def test_a_reader_that_left_goes_on_where_it_was(self, stack, http, upstream, way):
        """By the id of the last event that it had; nothing comes twice, and nothing is missing."""
        said = script(pieces=60, every_ms=10)
        key = {"Idempotency-Key": said.name}
        call = {"url": f"{stack.url}/v1/chat", "json": asking(said), "stream": True}
        had = []
        with http.post(**call, headers=key) as reply:
            for event in events(reply):
                had.append(event)
                if len(had) == 5:
                    break
        job_id = reply.headers["X-Chatd-Job-Id"]
        last = {"Last-Event-ID": had[-1][0]}
        if way == "the same call":
            again = http.post(**call, headers=key | last)
        else:
            url = f"{stack.url}/v1/jobs/{job_id}/events"
            again = http.get(url, headers=last, stream=True)
        with again:
            had += events(again)
        ids = [event_id for event_id, _, _ in had]

        assert "".join(data["content"] for _, name, data in had if name == "delta") == said.whole()
        assert len(ids) == len(set(ids))
        assert had[-1][1] == "answer"
        assert len(upstream.calls_of(said.name)) == 1
