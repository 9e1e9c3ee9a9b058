"""OpenAI's own client, used as its documentation has it, against chatd's processes."""

from __future__ import annotations

import base64
import json
import time
from datetime import datetime, timedelta
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from bench.limits import Closed
from bench.upstream import Upstream
from tests.stack import Stack
from tests.waiting import eventually

KEY = "sk-or-never-shown"
USER = {"role": "user", "content": "How warm is it in Rome?"}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n and more").decode()
#: A budget of its own, so that its cool-down holds up nobody else.
TAIL = """
[[chatd.providers.openrouter.limits]]
match = "limited/*"
requests_per_minute = 1000
[models]
local_fast = "echo"
"""
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The temperature of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


class City(BaseModel):
    """What a parsed answer is to be."""

    name: str
    people: int


class Scripted(Upstream):
    """An upstream that keeps what it was asked; ``say`` and ``fail`` decide what it answers."""

    def begin(self) -> None:
        """Forget what was, and answer with an echo again."""
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.limits = {}
        self.delay_s = 0.0
        self.calls.clear()
        self.release()
        self.say(None)

    def say(self, answer: Any, status: int = 200) -> None:
        """Answer every call with this; ``None`` is the echo."""

        def reply(path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
            self.asked.append((path, body))
            return None if answer is None else (status, answer)

        self.reply = reply

    @property
    def body(self) -> dict[str, Any]:
        """What the only call asked for."""
        ((_, body),) = self.asked
        return body


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    upstream = Scripted().start()
    stack = Stack(
        tmp_path_factory.mktemp("client"),
        {"ollama": upstream.url, "openrouter": upstream.url},
        concurrency=1,
        environ={"OPENROUTER_API_KEY": KEY},
        settings="max_queued = 3\nmodels_refresh_s = 2",
        tail=TAIL,
    )
    try:
        yield stack.start(), upstream
    finally:
        upstream.release()
        stack.stop()
        upstream.stop()


@pytest.fixture
def stack(running):
    return running[0]


@pytest.fixture(autouse=True)
def upstream(running):
    running[1].begin()
    return running[1]


@pytest.fixture
def client(stack):
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=3) as client:
        yield client


def ollama_says(**message: Any) -> dict[str, Any]:
    """An answer of /api/chat."""
    counts = {"prompt_eval_count": 7, "eval_count": 3}
    return {"message": {"role": "assistant", **message}, "done": True, **counts}


def openrouter_says(**message: Any) -> dict[str, Any]:
    """An answer of /chat/completions that counts nothing."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return {"choices": [choice]}


def moment(text: str) -> datetime:
    """A time of a record."""
    return datetime.fromisoformat(text)


def call_of(**arguments: Any) -> dict[str, Any]:
    """A call of the tool as Ollama has it."""
    return {"id": "call_7", "function": {"name": "weather", "arguments": arguments}}


class TestChat:
    """What the caller asks for, and what the upstream is asked."""

    def test_a_tool_is_called_and_its_answer_sent_back(self, client, upstream):
        """With the client's own message object in between, as every example has it."""
        upstream.say(ollama_says(content="", thinking="A city.", tool_calls=[call_of(city="Rome")]))
        messages: list[Any] = [USER]
        first = client.chat.completions.create(
            model="echo", messages=messages, tools=[WEATHER], tool_choice="auto"
        )
        message = first.choices[0].message
        (call,) = message.tool_calls
        asked = upstream.body
        messages += [message, {"role": "tool", "tool_call_id": call.id, "content": "31 degrees"}]
        upstream.begin()
        upstream.say(ollama_says(content="It is hot."))
        second = client.chat.completions.create(model="echo", messages=messages, tools=[WEATHER])

        assert (first.choices[0].finish_reason, message.content) == ("tool_calls", None)
        assert (call.id, call.type, call.function.name) == ("call_7", "function", "weather")
        assert json.loads(call.function.arguments) == {"city": "Rome"}
        assert asked["tools"] == [WEATHER]
        assert upstream.body["messages"][1:] == [
            {
                "role": "assistant",
                "content": "",
                "thinking": "A city.",
                "tool_calls": [
                    {
                        "id": "call_7",
                        "function": {
                            "index": 0,
                            "name": "weather",
                            "arguments": {"city": "Rome"},
                        },
                    }
                ],
            },
            {
                "role": "tool",
                "content": "31 degrees",
                "tool_call_id": "call_7",
                "tool_name": "weather",
            },
        ]
        assert second.choices[0].message.content == "It is hot."

    def test_a_json_object(self, client, upstream):
        """Ollama's format is json then."""
        upstream.say(ollama_says(content='{"a": 1}'))
        answer = client.chat.completions.create(
            model="echo", messages=[USER], response_format={"type": "json_object"}
        )

        assert upstream.body["format"] == "json"
        assert json.loads(answer.choices[0].message.content) == {"a": 1}

    # The client's own types warn of what it has parsed itself.
    @pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
    def test_an_answer_is_parsed_into_a_model(self, client, upstream):
        """Ollama gets the model's schema, and the parsed message can be sent back as it is."""
        upstream.say(ollama_says(content='{"name": "Rome", "people": 3}'))
        answer = client.chat.completions.parse(
            model="echo", messages=[USER], response_format=City
        ).choices[0]
        schema = upstream.body["format"]
        upstream.begin()
        again = client.chat.completions.with_raw_response.create(
            model="echo", messages=[USER, answer.message, USER]
        )

        assert answer.message.parsed == City(name="Rome", people=3)
        assert set(schema["required"]) == {"name", "people"}
        assert upstream.body["messages"][1] == {
            "role": "assistant",
            "content": '{"name": "Rome", "people": 3}',
        }
        assert again.headers["X-Chatd-Ignored"] == "messages.parsed"

    def test_arguments_are_parsed_into_a_model(self, client, upstream):
        """And the message with them can be sent back as it is."""
        tools = [openai.pydantic_function_tool(City, name="weather")]
        call = call_of(name="Rome", people=3)
        upstream.say(ollama_says(content="", tool_calls=[call]))
        message = (
            client.chat.completions.parse(model="echo", messages=[USER], tools=tools)
            .choices[0]
            .message
        )
        upstream.begin()
        result = {"role": "tool", "tool_call_id": "call_7", "content": "ok"}
        again = client.chat.completions.with_raw_response.create(
            model="echo", messages=[USER, message, result]
        )
        (sent,) = upstream.body["messages"][1]["tool_calls"]

        assert message.tool_calls[0].function.parsed_arguments == City(name="Rome", people=3)
        assert sent["function"] == {
            "index": 0,
            "name": "weather",
            "arguments": {"name": "Rome", "people": 3},
        }
        assert again.headers["X-Chatd-Ignored"] == "messages.tool_calls.function.parsed_arguments"

    def test_a_schema_keeps_its_name_where_the_provider_has_one(self, client, upstream):
        """An answer without counts has no usage, and the client takes that."""
        upstream.say(openrouter_says(content="{}"))
        schema = {"name": "city", "strict": True, "schema": {"type": "object"}}
        answer = client.chat.completions.create(
            model="openrouter/v/m",
            messages=[USER],
            response_format={"type": "json_schema", "json_schema": schema},
        )

        assert upstream.body["response_format"] == {"type": "json_schema", "json_schema": schema}
        assert answer.usage is None
        assert answer.model == "openrouter/v/m"

    def test_an_image_reaches_ollama(self, client, upstream):
        """As base64 beside its text."""
        url = f"data:image/png;base64,{PNG}"
        client.chat.completions.create(
            model="echo",
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image_url", "image_url": {"url": url}},
                    ],
                }
            ],
        )

        assert upstream.body["messages"] == [
            {"role": "user", "content": "What is this?", "images": [PNG]}
        ]

    def test_every_setting_arrives(self, client, upstream):
        """Each under Ollama's name for it."""
        client.chat.completions.create(
            model="local_fast",
            messages=[{"role": "developer", "content": "Be brief."}, USER],
            max_completion_tokens=9,
            temperature=0.5,
            top_p=0.9,
            seed=4,
            stop="END",
            reasoning_effort="xhigh",
        )

        assert upstream.body == {
            "model": "echo",
            "stream": False,
            "think": "high",
            "messages": [{"role": "system", "content": "Be brief."}, USER],
            "options": {
                "num_predict": 9,
                "temperature": 0.5,
                "top_p": 0.9,
                "seed": 4,
                "stop": ["END"],
            },
        }

    def test_our_own_fields_and_headers(self, client, stack):
        """extra_body has the deadline; the raw answer names the job and what was not passed on."""
        raw = client.chat.completions.with_raw_response.create(
            model="echo",
            messages=[{**USER, "name": "Ada"}],
            user="u1",
            metadata={"run": "r1"},
            extra_body={"timeout_s": 77},
        )
        record = stack.record(raw.headers["X-Chatd-Job-Id"])

        assert raw.headers["X-Chatd-Ignored"] == "user, messages.name"
        assert raw.parse().id.removeprefix("chatcmpl-") == record["id"].removeprefix("job_")
        assert record["metadata"] == {"run": "r1"}
        assert moment(record["deadline_at"]) - moment(record["created_at"]) == timedelta(seconds=77)

    def test_whatever_unicode_comes_back_as_it_was(self, client):
        """Control characters, both halves of a pair, right to left, joined by nothing at all."""
        text = "\x00\x1b[31m \U0001f9d1\u200d\U0001f680 \u202eabc\u0301 \ufdd0 \u2028"
        answer = client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": text}]
        )

        assert answer.choices[0].message.content == f"echo: {text}"


class TestModels:
    """GET /v1/models."""

    def test_listed_and_retrieved(self, client):
        """By the client, slashes and colons included."""
        eventually(lambda: len(list(client.models.list())) > 1, what="the worker's first look")
        names = [model.id for model in client.models.list()]

        assert names == ["local_fast", "echo:latest"]
        assert client.models.retrieve("ollama/echo:latest").owned_by == "ollama"
        assert client.models.retrieve("local_fast").created == 0

    def test_an_unknown_one_is_not_found(self, client):
        """And neither is one of a provider that is not here."""
        with pytest.raises(openai.NotFoundError) as unlisted:
            client.models.retrieve("openrouter/v/m:free")
        with pytest.raises(openai.NotFoundError) as missing:
            client.models.retrieve("kimi/k3")

        assert unlisted.value.code == "model_not_found"
        assert missing.value.code == "provider_not_registered"


REFUSED = [
    pytest.param(
        {"extra_body": {"tempreature": 1}}, openai.BadRequestError, "invalid_request", id="unknown"
    ),
    pytest.param(
        {"stream_options": {"include_usage": True}},
        openai.BadRequestError,
        "invalid_request",
        id="options of no stream",
    ),
    pytest.param({"n": 2}, openai.BadRequestError, "invalid_request", id="two answers"),
    pytest.param({"model": "ollama/"}, openai.BadRequestError, "invalid_request", id="no model"),
    pytest.param(
        {"model": "kimi/k3"}, openai.NotFoundError, "provider_not_registered", id="no key"
    ),
    pytest.param(
        {"messages": [{"role": "user", "content": "x" * 11 * 2**20}]},
        openai.APIStatusError,
        "too_large",
        id="too large",
    ),
]

FAILED = [
    pytest.param(400, openai.BadRequestError, "upstream_rejected", id="rejected"),
    pytest.param(401, openai.PermissionDeniedError, "upstream_auth", id="auth"),
    pytest.param(404, openai.NotFoundError, "upstream_not_found", id="not found"),
    pytest.param(422, openai.UnprocessableEntityError, "upstream_rejected", id="unprocessable"),
    pytest.param(402, openai.RateLimitError, "quota_exhausted", id="no credits"),
]


class TestErrors:
    """Each is the client's own exception, and asked for once although it may ask four times."""

    @pytest.mark.parametrize(("fields", "exception", "code"), REFUSED)
    def test_a_bad_request_reaches_no_upstream(self, client, upstream, fields, exception, code):
        """Its code and its field are where the client has them."""
        with pytest.raises(exception) as error:
            client.chat.completions.create(**{"model": "echo", "messages": [USER], **fields})

        assert error.value.code == code
        assert error.value.type == "invalid_request_error"
        assert upstream.calls.total() == 0

    @pytest.mark.parametrize(("status", "exception", "code"), FAILED)
    def test_a_refusal_is_not_asked_again(self, client, upstream, status, exception, code):
        """Nor does the key that was refused, or that the upstream echoed, come out."""
        upstream.say({"error": {"code": status, "message": f"no, {KEY}"}}, status)
        with pytest.raises(exception) as error:
            client.chat.completions.create(model="openrouter/v/m", messages=[USER])

        assert error.value.code == code
        assert error.value.type in {"upstream_error", "rate_limit_error"}
        assert error.value.response.headers["X-Should-Retry"] == "false"
        assert KEY not in error.value.response.text
        assert upstream.calls.total() == 1

    def test_a_limit_that_was_met_in_mid_answer_is_not_paid_again(self, client, stack, upstream):
        """A 429 inside a 200 with a bill: chatd waits and asks anew, the client does not."""
        choice = {
            "finish_reason": "error",
            "error": {"code": 429, "message": "slow down"},
            "message": {"role": "assistant", "content": "Ro"},
        }
        upstream.say({"choices": [choice], "usage": {"completion_tokens": 2, "cost": 0.1}})
        before = stack.store.counters().get("accepted", 0)
        with pytest.raises(openai.RateLimitError) as error:
            client.chat.completions.create(
                model="openrouter/v/limited", messages=[USER], extra_body={"timeout_s": 2}
            )

        assert error.value.response.headers["X-Should-Retry"] == "false"
        assert error.value.response.json()["error"]["billed"] == "maybe"
        assert stack.store.counters()["accepted"] == before + 1

    def test_an_answer_that_is_none_is_not_paid_again(self, client, upstream):
        """It is 502, which the client would repeat; the bill is not known."""
        upstream.say({"choices": []})
        with pytest.raises(openai.InternalServerError) as error:
            client.chat.completions.create(model="openrouter/v/m", messages=[USER])

        assert (error.value.status_code, error.value.code) == (502, "upstream_protocol")
        assert upstream.calls.total() == 1

    def test_a_client_that_gave_up_too_early_joins_its_own_job(self, client, upstream):
        """By the key that it sends each time: its patience ends before the call, which is one."""
        upstream.delay_s = 2.0
        raw = client.with_options(
            timeout=1.0, max_retries=9
        ).chat.completions.with_raw_response.create(
            model="echo", messages=[USER], extra_headers={"Idempotency-Key": "rome-1"}
        )

        assert raw.retries_taken >= 1
        assert raw.parse().choices[0].message.content == f"echo: {USER['content']}"
        assert upstream.calls.total() == 1

    def test_a_limit_says_when_to_come_back(self, client, upstream):
        """The client does not wait for so long, and nor does the job."""
        now = time.monotonic()
        upstream.limits = {"limited/*": Closed(now, now + 7200)}
        with pytest.raises(openai.RateLimitError) as error:
            client.chat.completions.create(model="openrouter/limited/m", messages=[USER])

        assert error.value.code == "rate_limited"
        assert 7100 < int(error.value.response.headers["Retry-After"]) <= 7200
        assert upstream.calls.total() == 1

    def test_a_full_queue_says_when_to_come_back(self, client, stack, upstream):
        """429 with Retry-After; nothing of it went upstream."""
        upstream.hold()
        jobs = [stack.submit("held")]
        eventually(lambda: upstream.calls["held"] == 1, what="the call that takes the only permit")
        jobs += [stack.submit(f"queued {n}") for n in range(3)]
        with pytest.raises(openai.RateLimitError) as error:
            client.with_options(max_retries=0).chat.completions.create(
                model="echo", messages=[USER]
            )
        upstream.release()
        for job in jobs:
            stack.ended(job)

        assert error.value.code == "queue_full"
        assert int(error.value.response.headers["Retry-After"]) >= 1
        assert "X-Should-Retry" not in error.value.response.headers
        assert upstream.calls[USER["content"]] == 0
