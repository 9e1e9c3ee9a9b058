"""The registry: which providers there are and why, and what it adds to each call."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from chat.config import ChatdConfig, ProviderConfig
from chat.errors import (
    ChatError,
    InvalidRequest,
    JobCancelled,
    ProviderNotRegistered,
    UpstreamRateLimited,
    error_classes,
)
from chat.registry import Names, Registry, Route, log_registration, registered
from chat.types import (
    Cancelled,
    ChatRequest,
    ChatResponse,
    Deadline,
    Deltas,
    FinishReason,
    Message,
    Role,
)

KEYS = {
    "ollama_cloud": "OLLAMA_CLOUD_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "opencode": "OPENCODE_API_KEY",
    "kimi": "KIMI_API_KEY",
}
ROUTE = Route("kimi", "k3")
REQUEST = ChatRequest(model="strong", messages=(Message(Role.USER, "hello"),))
DEADLINE = Deadline(at=1e12)


@pytest.fixture
def config(tmp_path: Path) -> ChatdConfig:
    """The defaults, with key files that are not there."""
    config = ChatdConfig(models={"strong": "kimi/k3"})
    return replace(
        config,
        providers={
            name: replace(provider, key_file=str(tmp_path / f"{name}.env"))
            for name, provider in config.providers.items()
        },
    )


def changed(config: ChatdConfig, name: str, **changes: object) -> ChatdConfig:
    """``config`` with one provider changed."""
    provider: ProviderConfig = replace(config.providers[name], **changes)  # type: ignore[arg-type]
    return replace(config, providers={**config.providers, name: provider})


class TestRegistration:
    """A provider is registered when it has what it needs."""

    def test_without_keys_only_ollama_is(self, config: ChatdConfig) -> None:
        """Local Ollama needs nothing but its URL; the order is fixed."""
        names = registered(config, {})

        assert names.names == ("ollama",)
        assert tuple(names.missing) == tuple(KEYS)

    @pytest.mark.parametrize(("provider", "variable"), KEYS.items(), ids=KEYS)
    def test_a_key_registers_its_provider(
        self, config: ChatdConfig, provider: str, variable: str
    ) -> None:
        """One key, one provider."""
        names = registered(config, {variable: "k"})

        assert names.names == ("ollama", provider)
        assert names.registered[provider] == f"{variable} in the environment"

    def test_a_key_file_registers_its_provider(self, config: ChatdConfig) -> None:
        """The file counts when the variable is not set."""
        Path(config.providers["kimi"].key_file).write_text("KIMI_API_KEY=k\n")

        assert registered(config, {}).names == ("ollama", "kimi")

    def test_an_empty_url_leaves_ollama_out(self, config: ChatdConfig) -> None:
        """The default stays Ollama nevertheless, so that bare names go nowhere else."""
        names = registered(replace(config, ollama_url=""), {"KIMI_API_KEY": "k"})

        assert names.names == ("kimi",)
        assert names.default == "ollama"
        assert names.missing["ollama"].reason == "ollama_url is empty"

    @pytest.mark.parametrize("provider", ["ollama", "kimi"])
    def test_enabled_false_leaves_out(self, config: ChatdConfig, provider: str) -> None:
        """Whatever the provider has."""
        names = registered(changed(config, provider, enabled=False), {"KIMI_API_KEY": "k"})

        assert provider not in names.names
        assert f"enabled = false in [chatd.providers.{provider}]" in str(names.missing[provider])

    def test_enabled_true_takes_in_without_a_key(self, config: ChatdConfig) -> None:
        """A proxy behind ``base_url`` may add the key; the reason says that there is none."""
        names = registered(changed(config, "kimi", enabled=True), {})

        assert names.names == ("ollama", "kimi")
        assert "without a key: KIMI_API_KEY is not set" in names.registered["kimi"]

    def test_enabled_true_still_uses_the_key(self, config: ChatdConfig) -> None:
        """The switch is no order to leave the key out."""
        names = registered(changed(config, "kimi", enabled=True), {"KIMI_API_KEY": "k"})

        assert names.registered["kimi"] == "KIMI_API_KEY in the environment"

    def test_no_key_is_kept(self, config: ChatdConfig) -> None:
        """What the front end gets has names and reasons."""
        assert "sk-secret" not in repr(
            registered(config, dict.fromkeys(KEYS.values(), "sk-secret"))
        )


class TestNames:
    """From a model name to a route, or to a message that says what to do."""

    def test_a_registered_provider_is_routed_to(self, config: ChatdConfig) -> None:
        """Tiers and ids alike."""
        names = registered(config, {"KIMI_API_KEY": "k"})

        assert names.route("strong") == names.route("kimi/k3") == Route("kimi", "k3")
        assert names.route("qwen3:8b") == Route("ollama", "qwen3:8b")

    @pytest.mark.parametrize(
        ("model", "provider", "variable"),
        [
            ("x:cloud", "ollama_cloud", "OLLAMA_CLOUD_KEY"),
            ("openrouter/a/b", "openrouter", "OPENROUTER_API_KEY"),
            ("opencode-go/a", "opencode", "OPENCODE_API_KEY"),
            ("strong", "kimi", "KIMI_API_KEY"),
        ],
        ids=["suffix", "prefix", "go", "tier"],
    )
    def test_a_missing_one_says_how_to_get_it(
        self, config: ChatdConfig, model: str, provider: str, variable: str
    ) -> None:
        """The message names the variable and the file, and nothing falls through to Ollama."""
        with pytest.raises(ProviderNotRegistered) as caught:
            registered(config, {}).route(model)

        assert caught.value.message == (
            f'model "{model}": provider {provider} is not registered; set {variable} or put'
            f" {variable}=... into {config.providers[provider].key_file}"
        )
        assert (caught.value.provider, caught.value.param) == (provider, "model")

    @pytest.mark.parametrize(
        ("changes", "remedy"),
        [
            pytest.param({"key_file": ""}, "; set KIMI_API_KEY", id="no file"),
            pytest.param({"key_name": "K"}, " or put K=... into ", id="own name in the file"),
            pytest.param({"enabled": False}, "; take enabled = false out of", id="switched off"),
        ],
    )
    def test_the_way_out_fits_the_configuration(
        self, config: ChatdConfig, changes: dict[str, object], remedy: str
    ) -> None:
        """It names what this configuration looks at."""
        with pytest.raises(ProviderNotRegistered) as caught:
            registered(changed(config, "kimi", **changes), {}).route("kimi/k3")

        assert remedy in caught.value.message

    def test_ollama_may_be_missing(self, config: ChatdConfig) -> None:
        """A bare name then says what to set."""
        with pytest.raises(ProviderNotRegistered, match='write ollama_url = "http://localhost'):
            registered(replace(config, ollama_url=""), {}).route("qwen3:8b")

    def test_a_name_that_leads_nowhere_is_the_callers_fault(self, config: ChatdConfig) -> None:
        """That is told apart from a missing provider."""
        with pytest.raises(InvalidRequest):
            registered(config, {}).route("kimi/")

    def test_local_cloud_follows_the_configuration(self, config: ChatdConfig) -> None:
        """``allow_local_cloud`` of the configuration is the one that counts."""
        allowed = replace(config, allow_local_cloud=True)

        assert registered(allowed, {}).route("x:1-cloud") == Route("ollama", "x:1-cloud")
        with pytest.raises(InvalidRequest):
            registered(config, {}).route("x:1-cloud")


class TestBootLog:
    """One line at boot says who is there, and why the others are not."""

    def log(self, names: Names, caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
        """What is logged for ``names``."""
        with caplog.at_level(logging.INFO):
            log_registration(names, logging.getLogger("chatd"))
        return [(record.levelno, record.getMessage()) for record in caplog.records]

    def test_it_gives_a_reason_for_each(
        self, config: ChatdConfig, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Every provider is in the one line, with its reason."""
        names = registered(config, {"KIMI_API_KEY": "sk-secret"})
        ((level, line),) = self.log(names, caplog)
        there, _, missing = line.partition("Not registered: ")

        assert level == logging.INFO
        assert "ollama (ollama_url is set)" in there
        assert "kimi (KIMI_API_KEY in the environment)" in there
        for name in ("ollama_cloud", "openrouter", "opencode"):
            assert f"{name} ({names.missing[name].reason})" in missing
        assert "sk-secret" not in line

    def test_it_says_none_for_nobody(
        self, config: ChatdConfig, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A gateway without any provider is plain to see."""
        ((_, line),) = self.log(registered(replace(config, ollama_url=""), {}), caplog)

        assert line.startswith("providers registered: none. Not registered: ollama (")


_ANSWER = ChatResponse("hi", FinishReason.STOP, input_tokens=1, provider="forged", latency_ms=7)


class FakeProvider:
    """Answers, or raises what it was given; keeps what it was asked."""

    name = "kimi"

    def __init__(self, outcome: Exception | None = None, answer: ChatResponse = _ANSWER) -> None:
        self.outcome, self.answer = outcome, answer
        self.asked: list[tuple[ChatRequest, Deadline, Cancelled]] = []

    def chat(
        self,
        request: ChatRequest,
        *,
        deadline: Deadline,
        cancelled: Cancelled,
        deltas: Deltas | None = None,
    ) -> ChatResponse:
        """One call, answered at once."""
        assert deltas is None
        self.asked.append((request, deadline, cancelled))
        if self.outcome is not None:
            raise self.outcome
        return self.answer


def ticking(step_s: float) -> Callable[[], float]:
    """A clock that goes on by ``step_s`` each time it is read."""
    return itertools.count(100.0, step_s).__next__


class TestChat:
    """One call, and whose it was."""

    def test_the_provider_is_asked_for_its_own_id(self) -> None:
        """Everything else of the request stays, as do deadline and switch."""
        provider, cancelled = FakeProvider(), Cancelled()
        Registry({"kimi": provider}).chat(ROUTE, REQUEST, deadline=DEADLINE, cancelled=cancelled)
        ((request, deadline, switch),) = provider.asked

        assert request == replace(REQUEST, model="k3")
        assert deadline is DEADLINE
        assert switch is cancelled

    def test_the_answer_says_whose_it_is(self) -> None:
        """Provider, upstream id and time of the call are filled in, whatever the provider set."""
        registry = Registry({"kimi": FakeProvider()}, clock=ticking(1.2344))
        response = registry.chat(ROUTE, REQUEST, deadline=DEADLINE, cancelled=Cancelled())

        assert response == ChatResponse(
            "hi",
            FinishReason.STOP,
            input_tokens=1,
            provider="kimi",
            upstream_model="k3",
            latency_ms=1234,
        )

    def test_nothing_else_is_changed_on_the_way(self) -> None:
        """Every field of the request and of the answer arrives where it was."""
        asked = ChatRequest("strong", *(field.name for field in fields(ChatRequest)[1:]))  # type: ignore[arg-type]
        said = ChatResponse(*(field.name for field in fields(ChatResponse)))  # type: ignore[arg-type]
        provider = FakeProvider(answer=said)
        registry = Registry({"kimi": provider}, clock=ticking(2))
        answer = registry.chat(ROUTE, asked, deadline=DEADLINE, cancelled=Cancelled())

        assert provider.asked[0][0] == replace(asked, model="k3")
        assert answer == replace(said, provider="kimi", upstream_model="k3", latency_ms=2000)

    @pytest.mark.parametrize("error_class", error_classes(), ids=lambda cls: cls.__name__)
    def test_every_error_says_whose_it_is(self, error_class: type[ChatError]) -> None:
        """The very error of the provider goes on, with the same three facts."""
        error = error_class("no", retry_after_s=3)
        registry = Registry({"kimi": FakeProvider(error)}, clock=ticking(0.5))
        with pytest.raises(error_class) as caught:
            registry.chat(ROUTE, REQUEST, deadline=DEADLINE, cancelled=Cancelled())

        assert caught.value is error
        assert (error.provider, error.upstream_model, error.latency_ms) == ("kimi", "k3", 500)
        assert error.retry_after_s == 3

    def test_the_facts_cross_the_queue(self) -> None:
        """They are in the error's wire form."""
        registry = Registry({"kimi": FakeProvider(UpstreamRateLimited("no"))}, clock=ticking(2))
        with pytest.raises(UpstreamRateLimited) as caught:
            registry.chat(ROUTE, REQUEST, deadline=DEADLINE, cancelled=Cancelled())

        assert caught.value.to_wire() == {
            "code": "rate_limited",
            "message": "no",
            "provider": "kimi",
            "upstream_model": "k3",
            "latency_ms": 2000,
        }

    @pytest.mark.parametrize("fault", [KeyError("x"), ValueError("y")], ids=["key", "value"])
    def test_a_fault_of_the_code_passes_unchanged(self, fault: Exception) -> None:
        """It keeps its type and traceback, and a note says which call it was."""
        with pytest.raises(type(fault)) as caught:
            Registry({"kimi": FakeProvider(fault)}).chat(
                ROUTE, REQUEST, deadline=DEADLINE, cancelled=Cancelled()
            )

        assert caught.value is fault
        assert caught.value.__notes__ == ['provider kimi, upstream model "k3"']

    def test_a_cancelled_call_is_a_chat_error_like_any_other(self) -> None:
        """JobCancelled gets its facts as well, for the ledger."""
        error = JobCancelled("stopped")
        with pytest.raises(JobCancelled):
            Registry({"kimi": FakeProvider(error)}, clock=ticking(1)).chat(
                ROUTE, REQUEST, deadline=DEADLINE, cancelled=Cancelled()
            )

        assert error.latency_ms == 1000

    @pytest.mark.parametrize(
        ("missing", "remedy"),
        [
            pytest.param({"kimi": "set KIMI_API_KEY"}, "set KIMI_API_KEY", id="no key"),
            pytest.param({}, "start a worker for it", id="another worker's"),
        ],
    )
    def test_a_provider_that_is_not_here_is_named(
        self, missing: dict[str, str], remedy: str
    ) -> None:
        """A worker can meet jobs of a provider that has lost its key since."""
        registry = Registry({"ollama": FakeProvider()}, missing)
        with pytest.raises(ProviderNotRegistered) as caught:
            registry.chat(ROUTE, REQUEST, deadline=DEADLINE, cancelled=Cancelled())

        assert caught.value.message == (
            f'model "strong": provider kimi is not registered; {remedy}'
        )
        assert registry.names == ("ollama",)
        assert registry.default == "ollama"
