"""Which Redis chatd uses, and which it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import fakeredis
import pytest
import redis

from chat.connection import (
    await_redis,
    check_durability,
    connect,
    embedded_url_file,
    redis_errors,
    redis_url,
)
from chat.errors import ConfigError, QueueUnavailable
from chat.settings import ChatdConfig


class Server(fakeredis.FakeRedis):
    """A server that says of itself what the test wants."""

    facts: dict[str, object] = {}  # noqa: RUF012 - replaced per instance

    def info(self, *_args, **_options):
        return self.facts


def server(**facts):
    found = Server(decode_responses=True)
    found.facts = {"redis_version": "7.2.4", **facts}
    return found


def test_the_configured_redis_comes_first(tmp_path):
    """Whatever `chatd up` may have left behind."""
    config = replace(ChatdConfig(), data_dir=tmp_path, redis_url="redis://127.0.0.1:6379/0")

    assert redis_url(config) == "redis://127.0.0.1:6379/0"


def test_without_one_it_is_that_of_chatd_up(tmp_path):
    """Its URL stands in data_dir; without it the message says what to do."""
    config = replace(ChatdConfig(), data_dir=tmp_path)
    with pytest.raises(ConfigError, match="chatd up"):
        redis_url(config)
    file = embedded_url_file(config)
    file.parent.mkdir()
    file.write_text("redis://:pw@127.0.0.1:20001/0\n")

    assert redis_url(config) == "redis://:pw@127.0.0.1:20001/0"


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        pytest.param({"cluster_enabled": 1}, "Cluster", id="cluster"),
        pytest.param({"redis_version": "6.0.16"}, "6.2 or newer", id="old"),
    ],
)
def test_a_redis_that_cannot_work_is_refused(facts, says):
    """At boot and in words, not later by a script error."""
    with pytest.raises(ConfigError, match=says):
        await_redis(server(**facts))


@pytest.mark.parametrize("forbidden", ["info", "ping"])
def test_a_redis_that_may_not_be_asked_is_refused(monkeypatch, forbidden):
    """At once and with what to allow: no patience would help."""
    fault = redis.exceptions.NoPermissionError("this user has no permissions to run the command")
    client = server()

    def refuse(*_args, **_options):
        raise fault

    monkeypatch.setattr(client, forbidden, refuse)
    with pytest.raises(ConfigError, match=r"no permissions.*allow it INFO and PING"):
        await_redis(client)


def test_eviction_is_warned_of(caplog):
    """Somebody else's Redis may be set up as a cache."""
    await_redis(server(maxmemory_policy="noeviction"))
    quiet = caplog.text
    await_redis(server(maxmemory_policy="allkeys-lru"))

    assert quiet == ""
    assert "noeviction" in caplog.text


def keeping(**settings):
    """A server whose settings are these; an exception is what it answers instead."""

    class Keeping(fakeredis.FakeRedis):
        def config_get(self, *names, **_more):
            if "error" in settings:
                raise settings["error"]
            return {name: settings[name] for name in names if name in settings}

    return Keeping(decode_responses=True)


EVERYSEC = {"appendonly": "yes", "appendfsync": "everysec"}
ALWAYS = {"appendonly": "yes", "appendfsync": "always"}
NOTHING = {"appendonly": "no", "appendfsync": "always"}
SKIPS = {"no-appendfsync-on-rewrite": "yes"}


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        pytest.param(EVERYSEC, "appendfsync everysec", id="a-second-late"),
        pytest.param(NOTHING, "no append-only file", id="not-at-all"),
        pytest.param(ALWAYS | SKIPS, "no-appendfsync-on-rewrite yes", id="not-at-all-times"),
    ],
)
def test_a_redis_that_keeps_less_than_promised_is_refused(settings, found):
    """At boot, with what to change."""
    with pytest.raises(ConfigError, match=f"{found}.*always and no-appendfsync-on-rewrite no"):
        check_durability(keeping(**settings), "always")


@pytest.mark.parametrize(
    ("durability", "settings"), [("always", ALWAYS), ("everysec", ALWAYS), ("everysec", EVERYSEC)]
)
def test_a_redis_that_keeps_what_is_promised_is_taken(durability, settings, caplog):
    """Or more than that."""
    check_durability(keeping(**settings), durability)

    assert caplog.text == ""


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        pytest.param(NOTHING, "all jobs are lost", id="nothing-on-disk"),
        pytest.param(EVERYSEC | {"appendfsync": "no"}, "half a minute", id="never-synced"),
        pytest.param(EVERYSEC | SKIPS, "half a minute", id="not-at-all-times"),
        pytest.param({}, "on trust", id="hides-it"),
        pytest.param({"error": redis.exceptions.NoPermissionError("no")}, "on trust", id="forbids"),
        pytest.param({"error": redis.ResponseError("unknown command")}, "on trust", id="renamed"),
    ],
)
def test_what_cannot_be_promised_is_warned_of(settings, says, caplog):
    """Somebody else's Redis, and their decision."""
    check_durability(keeping(**settings), "everysec")

    assert says in caplog.text


def test_a_redis_that_is_away_is_not_taken_on_trust():
    """Nothing is known then."""
    with pytest.raises(QueueUnavailable):
        check_durability(keeping(error=redis.ConnectionError("refused")), "everysec")


@pytest.mark.parametrize(
    "fault",
    [
        redis.ConnectionError("refused"),
        redis.TimeoutError("slow"),
        redis.exceptions.OutOfMemoryError("OOM"),
        redis.exceptions.ReadOnlyError("replica"),
        redis.exceptions.BusyLoadingError("loading"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_every_fault_of_redis_is_one_error(fault):
    """With its kind in the message, and when to come back."""
    with pytest.raises(QueueUnavailable, match=type(fault).__name__) as error, redis_errors():
        raise fault

    assert error.value.retry_after_s
    assert error.value.retryable


def test_a_defect_of_a_script_is_called_one(caplog):
    """Who runs chatd must not look for trouble with Redis; the log says which line it was."""
    text = "user_script:12: attempt to index a nil value script: f00, on @user_script:12."
    with pytest.raises(QueueUnavailable, match="defect") as error, redis_errors():
        raise redis.ResponseError(text)

    assert "user_script:12" in caplog.text
    assert "cannot be used" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "MISCONF Errors writing to the AOF file: No space left on device",
        "NOREPLICAS Not enough good replicas to write.",
    ],
)
def test_a_redis_that_takes_no_writes_is_no_defect(text, caplog):
    """It names the script that it did not run all the same."""
    fault = redis.ResponseError(f"{text} script: f00, on @user_script:12.")
    with pytest.raises(QueueUnavailable, match=text.split()[0]), redis_errors():
        raise fault

    assert caplog.text == ""


def test_callers_wait_for_a_connection_instead_of_being_refused():
    """redis-py's usual pool raises at its limit."""
    pool = connect("redis://127.0.0.1:1/0").connection_pool

    assert isinstance(pool, redis.BlockingConnectionPool)


def test_a_redis_that_has_become_a_replica_is_left():
    """The connection is given up, and the call made again on a new one."""
    connection: Any = connect("redis://127.0.0.1:1/0").connection_pool.make_connection()
    answers = iter([redis.exceptions.ReadOnlyError("replica"), "done"])
    given_up: list[Exception] = []

    def call():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert connection.retry.call_with_retry(call, given_up.append) == "done"
    assert [type(fault).__name__ for fault in given_up] == ["ReadOnlyError"]


KEYS = Path(__file__).parents[1] / "wire" / "tls"


def tls(**files):
    return f"rediss://:secret@host/0?{urlencode(files)}"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        pytest.param(tls(ssl_ca_certs="/nowhere"), "/nowhere.*No such file", id="not-there"),
        pytest.param(tls(ssl_ca_certs=KEYS / "key.pem"), "key.pem.*no certificate", id="a-key"),
        pytest.param(
            tls(ssl_certfile=KEYS / "certificate.pem", ssl_keyfile="/nowhere"),
            "certificate.pem with /nowhere.*No such file",
            id="no-key",
        ),
    ],
)
def test_files_of_tls_are_looked_at_before_anything_is_asked(url, says):
    """One of them is named with what is wrong with it; the password is not."""
    with pytest.raises(ConfigError, match=says) as error:
        connect(url)

    assert "secret" not in str(error.value)


def test_files_of_tls_that_are_in_order_are_taken():
    """Nothing is asked yet."""
    certificate, key = KEYS / "certificate.pem", KEYS / "key.pem"
    client = connect(tls(ssl_ca_certs=certificate, ssl_certfile=certificate, ssl_keyfile=key))

    assert client.connection_pool.connection_kwargs["ssl_ca_certs"] == str(certificate)
