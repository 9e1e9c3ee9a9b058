"""Which processes `chatd up` starts for a configuration, and which changes need more than that."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chat.errors import ConfigError
from chat.handover import LISTEN_FD
from chat.settings import ChatdConfig
from cli.up import check_fixed, parts_of


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that is bound to nothing."""
    with socket.socket() as listener:
        yield listener


def with_workers(**counts: int) -> ChatdConfig:
    usual = ChatdConfig()
    providers = {
        name: replace(provider, workers=counts.get(name, 1))
        for name, provider in usual.providers.items()
    }
    return replace(usual, providers=providers, timeout_s=100, drain_s=20)


def test_keeper_workers_and_front_end_come_in_this_order(listener: socket.socket) -> None:
    """As many workers of each provider as it has; those of one provider have a number."""
    parts = parts_of(with_workers(kimi=3), ["ollama", "kimi"], listener)

    assert [part.name for part in parts] == [
        "keeper",
        "worker ollama",
        "worker kimi",
        "worker kimi 2",
        "worker kimi 3",
        "api",
    ]
    assert [part.command[-2:] for part in parts[1:5]] == [
        ["worker", "ollama"],
        *[["worker", "kimi"]] * 3,
    ]
    assert {part.kind for part in parts[1:5]} == {"worker"}


def test_each_part_has_the_time_it_needs(listener: socket.socket) -> None:
    """A worker that of the longest call, the front end that of its patience."""
    keeper, worker, api = parts_of(with_workers(), ["ollama"], listener)

    assert (keeper.grace_s, worker.grace_s, api.grace_s) == (135, 135, 30)


def test_the_front_end_alone_gets_the_socket(listener: socket.socket) -> None:
    """With its number."""
    *others, api = parts_of(with_workers(), ["ollama"], listener)

    assert api.descriptors == (listener.fileno(),)
    assert api.environ == {LISTEN_FD: str(listener.fileno())}
    assert all(not part.descriptors and not part.environ for part in others)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bind", "127.0.0.1:4000"),
        ("data_dir", Path("elsewhere")),
        ("redis_url", "redis://:secret@127.0.0.1:6379/0"),
        ("durability", "always"),
    ],
)
def test_what_everybody_meets_at_cannot_be_changed_by_a_restart(key: str, value: Any) -> None:
    """The old ones are still there, and Redis goes on; a password stays out of the message."""
    config = ChatdConfig()
    with pytest.raises(ConfigError, match=rf"\[chatd\] {key} was changed, .* start it again") as no:
        check_fixed(config, replace(config, **{key: value}))

    assert "secret" not in str(no.value)


def test_everything_else_can() -> None:
    """Limits, times, providers, tiers."""
    config = ChatdConfig()

    check_fixed(config, replace(with_workers(kimi=2), log_level="debug", models={"fast": "x"}))
