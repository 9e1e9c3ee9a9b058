"""Asking each provider for its models: path, key, what is read, and everything that can go wrong.

The answers in ``lists`` have made-up values in the exact shape of each provider's wire.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakeredis
import pytest

from chat.builder import build_model_source
from chat.catalogue import LONGEST_NAME, MOST_MODELS, Catalogue, ListedModel
from chat.errors import (
    ChatError,
    JobCancelled,
    UpstreamAuth,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from chat.providers.catalogue import Found, ModelSource
from chat.providers.upstream import Upstream
from chat.routing import PROVIDERS
from chat.settings import ChatdConfig
from chat.types import Cancelled, Deadline
from tests.upstream import Answer, End, ScriptedUpstream
from tests.waiting import eventually
from workers.catalogue import Refresher

KEYS = {
    "OLLAMA_CLOUD_KEY": "ok_test_0000",
    "OPENROUTER_API_KEY": "sk-or-v1-test",
    "OPENCODE_API_KEY": "sk-test-opencode",
    "KIMI_API_KEY": "sk-kimi-test",
}

#: The paths of the base URLs, as the real ones have them, and the calls that list models.
CALLS = {
    "ollama": {"/api/tags": "ollama"},
    "ollama_cloud": {"/api/tags": "ollama_cloud"},
    "openrouter": {"/api/v1/models": "openrouter"},
    "opencode": {"/zen/v1/models": "opencode", "/zen/go/v1/models": "opencode-go"},
    "kimi": {"/coding/v1/models": "kimi"},
}
KEY_OF = {
    "ollama": None,
    **{name: KEYS[ChatdConfig().providers[name].key_env] for name in PROVIDERS[1:]},
}

_MODIFIED = 1_793_520_000  # 2026-11-01T08:00:00Z
_CLOUD = 1_790_812_800  # 2026-10-01T00:00:00Z

MODELS = {
    "ollama": [
        ListedModel("qwen3:8b", _MODIFIED),
        ListedModel("llama3.2:latest", _MODIFIED),
        ListedModel("hf.co/user/model-GGUF:Q4_K_M", _MODIFIED),
        ListedModel("gpt-oss:120b-cloud", _MODIFIED),
    ],
    "ollama_cloud": [
        ListedModel(name, _CLOUD)
        for name in (
            "kimi-k2.6",
            "gpt-oss:20b",
            "gpt-oss:120b",
            "glm-5.2",
            "deepseek-v4-flash",
            "qwen3.5:397b",
            "mistral-large-3:675b",
        )
    ],
    "openrouter": [
        ListedModel(name, 1_780_000_000)
        for name in (
            "moonshotai/kimi-k2.6",
            "moonshotai/kimi-k2.6:free",
            "openai/gpt-4o-mini",
            "anthropic/claude-sonnet-4.5",
        )
    ],
    "opencode": [
        ListedModel(name, 1_790_000_000)
        for name in (
            "kimi-k2.6",
            "kimi-k3",
            "glm-5.2",
            "minimax-m3",
            "deepseek-v4-flash",
            "big-pickle",
            "gpt-5.5",
            "claude-sonnet-5",
            "gemini-3.6-flash",
            "opencode-go/kimi-k2.6",
            "opencode-go/glm-5.1",
            "opencode-go/deepseek-v4-flash",
            "opencode-go/minimax-m2.7",
        )
    ],
    "kimi": [
        ListedModel(name, 1_780_000_000)
        for name in ("kimi-for-coding", "kimi-for-coding-highspeed", "k3")
    ],
}

_LISTS = Path(__file__).parent / "lists"


def example(name: str) -> Answer:
    """An example answer of ``lists``."""
    return Answer.payload(json.loads((_LISTS / f"{name}.json").read_text("utf-8")))


def listing(upstream: ScriptedUpstream, name: str) -> None:
    """Let the upstream answer each call of a provider with its example."""
    answers = {path: example(file) for path, file in CALLS[name].items()}
    upstream.always(lambda request: answers[request.path])


def source_at(upstream: ScriptedUpstream, name: str) -> ModelSource:
    """What a worker of a provider would ask, with its base URLs at a scripted upstream."""
    config = ChatdConfig(ollama_url=upstream.url)
    base_url, *more = (upstream.url + path.removesuffix("/models") for path in CALLS[name])
    provider = replace(
        config.providers[name],
        base_url=base_url.removesuffix("/api/tags"),
        go_base_url=more[0] if more else None,
        key_file="",
    )
    changed = replace(config, providers={**config.providers, name: provider})
    return build_model_source(changed, name, KEYS)


def fetch(source: ModelSource, within_s: float = 60.0) -> Found:
    """One fetch."""
    return source.fetch(Deadline.after(within_s))


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_list_is_asked_for_with_one_get(upstream: ScriptedUpstream, name: str) -> None:
    """With the key if there is one, our own name, and no body."""
    listing(upstream, name)
    fetch(source_at(upstream, name))

    assert [(sent.method, sent.path) for sent in upstream.requests] == [
        ("GET", path) for path in CALLS[name]
    ]
    for sent in upstream.requests:
        key = KEY_OF[name]
        assert sent.headers.get("authorization") == (None if key is None else f"Bearer {key}")
        assert sent.headers["user-agent"].startswith("chatd/")
        assert sent.headers["accept-encoding"] == "identity"
        assert sent.body == b""
        assert "content-type" not in sent.headers


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_models_are_those_of_the_example(upstream: ScriptedUpstream, name: str) -> None:
    """In the provider's order, as routes have their ids, with the time of each."""
    listing(upstream, name)

    assert fetch(source_at(upstream, name)) == Found(tuple(MODELS[name]), 0)


@pytest.mark.parametrize("name", PROVIDERS)
def test_no_connection_is_kept(upstream: ScriptedUpstream, name: str) -> None:
    """The next look is minutes away."""
    listing(upstream, name)
    source = source_at(upstream, name)
    fetch(source)
    for sent in upstream.requests:
        upstream.wait_for_hang_up(sent)

    assert fetch(source).models == tuple(MODELS[name])


@pytest.mark.parametrize(
    "body",
    [{"models": []}, {"models": None}, {"models": [], "more": 1}],
    ids=["[]", "null", "more"],
)
def test_a_provider_may_have_no_models(upstream: ScriptedUpstream, body: object) -> None:
    """A new Ollama has none; Go writes an empty list as null."""
    upstream.always(Answer.json(body))

    assert fetch(source_at(upstream, "ollama")) == Found((), 0)


@pytest.mark.parametrize(
    ("entry", "created"),
    [
        pytest.param({"created": 1_780_000_000}, 1_780_000_000, id="seconds"),
        pytest.param({}, 0, id="absent"),
        pytest.param({"created": None}, 0, id="null"),
        pytest.param({"created": "2026-11-01"}, 0, id="text"),
        pytest.param({"created": True}, 0, id="a flag"),
        pytest.param({"created": -1}, 0, id="before 1970"),
        pytest.param({"created": 10**18}, 0, id="too late"),
    ],
)
def test_a_time_that_is_none_is_zero(
    upstream: ScriptedUpstream, entry: dict[str, Any], created: int
) -> None:
    """It is not what a list is asked for."""
    upstream.always(Answer.json({"data": [{"id": "k3", **entry}]}))

    assert fetch(source_at(upstream, "kimi")).models == (ListedModel("k3", created),)


@pytest.mark.parametrize(
    ("modified_at", "created"),
    [
        pytest.param(
            "2026-11-01T08:00:00.123456789+01:00", _MODIFIED - 3600, id="Go's nanoseconds"
        ),
        pytest.param("0001-01-01T00:00:00Z", 0, id="Go's zero"),
        pytest.param("9999-12-31T23:59:59-23:59", 253_402_300_799, id="after the last year"),
        pytest.param("2026-11-01T08:00:00", 0, id="no zone"),
        pytest.param("yesterday", 0, id="no time"),
        pytest.param(1_780_000_000, 0, id="a number"),
    ],
)
def test_ollamas_time_is_when_the_model_was_modified(
    upstream: ScriptedUpstream, modified_at: object, created: int
) -> None:
    """As Ollama's own list in OpenAI's shape has it."""
    upstream.always(Answer.json({"models": [{"name": "m:1", "modified_at": modified_at}]}))

    assert fetch(source_at(upstream, "ollama")).models == (ListedModel("m:1", created),)


def test_entries_that_nobody_could_ask_for_are_left_out_and_counted(
    upstream: ScriptedUpstream,
) -> None:
    """One bad entry does not cost the others; one that comes twice is one."""
    longest = "m" * LONGEST_NAME
    ids = ["k3", "", " k3", "a\nb", "a\u202eb", longest, longest + "m", 3, None, "k3"]
    entries = [{"id": value} for value in ids]
    upstream.always(Answer.json({"data": [*entries, {"name": "no id"}]}))

    assert fetch(source_at(upstream, "kimi")) == Found((ListedModel("k3"), ListedModel(longest)), 8)


def test_our_own_key_is_no_model(upstream: ScriptedUpstream) -> None:
    """It would be in Redis and in everybody's list."""
    upstream.always(
        lambda request: Answer.json(
            {"data": [{"id": "k3"}, {"id": request.headers["authorization"].split()[1]}]}
        )
    )

    assert fetch(source_at(upstream, "kimi")) == Found((ListedModel("k3"),), 1)


def test_a_list_has_its_bounds(upstream: ScriptedUpstream) -> None:
    """The first ones are kept."""
    entries = [{"id": f"m{number}"} for number in range(MOST_MODELS + 7)]
    upstream.always(Answer.json({"data": [*entries, {"id": "m0"}]}))
    found = fetch(source_at(upstream, "kimi"))

    assert len(found.models) == MOST_MODELS
    assert found.models[-1] == ListedModel(f"m{MOST_MODELS - 1}")
    assert found.left_out == 7


FAULTS: list[tuple[str, Callable[[str], Answer], type[ChatError]]] = [
    ("key refused", lambda said: Answer.json({"error": said}, 401), UpstreamAuth),
    ("too many", lambda said: Answer.json({"error": said}, 429), UpstreamRateLimited),
    ("failed", lambda said: Answer.of(said.encode(), 500), UpstreamUnavailable),
    ("page", lambda said: Answer.of(f"<title>{said}</title>".encode()), UpstreamProtocolError),
    ("empty", lambda _: Answer.of(b""), UpstreamProtocolError),
    ("no list", lambda said: Answer.json({"said": said}), UpstreamProtocolError),
    (
        "another type",
        lambda said: Answer.json({"data": said, "models": said}),
        UpstreamProtocolError,
    ),
    (
        "no objects",
        lambda said: Answer.json({"data": [said], "models": [said]}),
        UpstreamProtocolError,
    ),
    (
        "error in 200",
        lambda said: Answer.json({"error": {"code": 401, "message": said}}),
        UpstreamAuth,
    ),
    (
        "redirect",
        lambda said: Answer.of(said.encode(), 302, {"location": "http://127.0.0.1:1/"}),
        UpstreamProtocolError,
    ),
    ("cut", lambda said: Answer.cut(said.encode(), 3), UpstreamUnavailable),
    ("reset", lambda said: Answer.cut(said.encode(), 3, by=End.RESET), UpstreamUnavailable),
    ("without end", lambda _: Answer.endless(b"x" * 65536), UpstreamProtocolError),
]


@pytest.mark.parametrize("name", ["ollama", "ollama_cloud", "openrouter", "opencode"])
@pytest.mark.parametrize(
    ("answer", "error"), [pytest.param(*case[1:], id=case[0]) for case in FAULTS]
)
def test_an_answer_that_is_no_list_is_an_error_without_the_key(
    upstream: ScriptedUpstream,
    name: str,
    answer: Callable[[str], Answer],
    error: type[ChatError],
) -> None:
    """Asked for once, followed nowhere, read no further than a list may be long."""
    upstream.always(lambda request: answer(f"you sent {request.headers.get('authorization')}"))
    with pytest.raises(error) as caught:
        fetch(source_at(upstream, name))

    assert len(upstream.requests) == 1
    key = KEY_OF[name]
    assert key is None or key not in f"{caught.value.message} {caught.value!r}"


def test_one_list_of_two_is_none(upstream: ScriptedUpstream) -> None:
    """OpenCode's models of Go would look as if they were gone."""
    upstream.then(example("opencode"), Answer.json({"error": "no"}, 503))

    with pytest.raises(UpstreamUnavailable):
        fetch(source_at(upstream, "opencode"))


def test_a_silent_provider_is_left_at_the_limit(upstream: ScriptedUpstream) -> None:
    """And sees the connection closed."""
    upstream.always(Answer.raw(upstream.closing))
    with pytest.raises(UpstreamTimeout):
        fetch(source_at(upstream, "kimi"), within_s=0.3)

    upstream.wait_for_hang_up(upstream.requests[0])


def test_a_get_can_be_stopped_like_any_call(
    upstream: ScriptedUpstream, make_upstream: Callable[..., Upstream]
) -> None:
    """From another thread, while nothing comes."""
    upstream.always(Answer.raw(upstream.closing))
    cancelled = Cancelled()

    def stop() -> None:
        upstream.wait_for(1)
        cancelled.set("the worker stops")

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(JobCancelled, match="the worker stops"):
        make_upstream(upstream.url).get("/x", deadline=Deadline.after(60), cancelled=cancelled)
    stopper.join()


class TestInAWorker:
    """The thread that keeps the list, against a real upstream."""

    @pytest.fixture
    def client(self) -> fakeredis.FakeRedis:
        """A Redis of its own, empty."""
        return fakeredis.FakeRedis(decode_responses=True)

    @pytest.fixture
    def log(self, caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
        """What the worker logs."""
        with caplog.at_level(logging.DEBUG):
            yield caplog

    def test_the_list_comes_goes_stale_and_is_mended(
        self,
        upstream: ScriptedUpstream,
        client: fakeredis.FakeRedis,
        log: pytest.LogCaptureFixture,
    ) -> None:
        """One warning however often it fails, without the key; nothing but the list in Redis."""
        refused = Answer.json({"error": f"no such key {KEYS['KIMI_API_KEY']}"}, 401)
        mended = threading.Event()
        upstream.then(example("kimi"), refused, refused, refused)
        upstream.always(Answer.json({"data": [{"id": "k4"}]}, after=mended))
        catalogue, stopping = Catalogue(client), threading.Event()
        source = source_at(upstream, "kimi")
        Refresher("kimi", source, catalogue, every_s=0.05).start(stopping)
        [thread] = [found for found in threading.enumerate() if found.name == "models"]

        def names() -> list[str]:
            found = catalogue.lists(["kimi"])["kimi"]
            return [] if found is None else [model.id for model in found.models]

        stale = []
        upstream.wait_for(5)
        stale.append(names())
        mended.set()
        eventually(lambda: names() == ["k4"], what="the new list")
        stopping.set()
        thread.join(30)

        assert stale == [["kimi-for-coding", "kimi-for-coding-highspeed", "k3"]]
        assert client.keys("*") == ["models:kimi"]
        warnings = [record for record in log.records if record.levelno >= logging.WARNING]
        assert len(warnings) == 1
        assert "no such key ***" in warnings[0].getMessage()
        assert KEYS["KIMI_API_KEY"] not in log.text
