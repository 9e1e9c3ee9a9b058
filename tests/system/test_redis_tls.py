"""A Redis that is reached over TLS and no other way, and that asks its callers who they are."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest
import redis
import requests
from celery.result import AsyncResult
from kombu.exceptions import OperationalError

from tests.certificates import Authority
from tests.servers import Child, RedisProcess, python
from tests.stack import Stack
from tests.waiting import eventually
from workers.app import make_celery


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Who signs the certificate of Redis, and those that Redis trusts."""
    missing = [name for name in ("redis-server", "openssl") if shutil.which(name) is None]
    if missing:
        # Where tests have to be complete, a missing command is a fault of the place.
        assert "CHATD_CI" not in os.environ, f"CI needs {' and '.join(missing)}"
        pytest.skip(f"there is no {' and no '.join(missing)} on PATH")
    return Authority(tmp_path_factory.mktemp("certificates"), "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """An authority that Redis knows nothing of."""
    return Authority(tmp_path_factory.mktemp("stranger"), "theirs")


class Address:
    """The URL of the server, and what becomes of it when a part is another."""

    def __init__(self, server: RedisProcess, authority: Authority) -> None:
        self.server = server
        own = authority.signed("chatd")
        self._files = {
            "ssl_ca_certs": authority.file,
            "ssl_certfile": own.file,
            "ssl_keyfile": own.key,
        }

    def url(self, host: str = "localhost", **files: Path | None) -> str:
        named = {name: file for name, file in {**self._files, **files}.items() if file}
        return f"rediss://:open%20sesame@{host}:{self.server.port}/3?{urlencode(named)}"


@pytest.fixture
def address(authority, tmp_path):
    """A server of its own, empty, and its address."""
    server = RedisProcess(tmp_path / "redis")
    address = Address(server, authority)
    shown = authority.signed("redis", "DNS:localhost")
    options = {
        "port": "0",
        "tls-port": str(server.port),
        "tls-cert-file": str(shown.file),
        "tls-key-file": str(shown.key),
        "tls-ca-cert-file": str(authority.file),
        "tls-auth-clients": "yes",
        "requirepass": "open sesame",
    }
    server.child.command += [
        word for name, value in options.items() for word in (f"--{name}", value)
    ]
    server.url = address.url()
    server.client = redis.Redis.from_url(server.url, decode_responses=True, protocol=2)
    server.start()
    yield address
    server.stop()


def test_a_whole_job_goes_over_tls(address, upstream, tmp_path):
    """Front end, worker, keeper, command and a plain Celery client, also after Redis was away."""
    stack = Stack(tmp_path, {"ollama": upstream.url}, redis=address.server).start()
    try:
        with ThreadPoolExecutor(8) as pool:
            answers = [r.json()["content"] for r in pool.map(stack.chat, map(str, range(20)))]
        record = stack.ended(stack.submit("later"))
        found = AsyncResult(record["id"], app=make_celery(address.url())).get(timeout=30)
        audit = Child(python("-m", "cli", "audit"), tmp_path / "audit.log", stack.environ).start()
        clean = audit.wait()
        address.server.kill()
        address.server.start()
        eventually(stack.ready, what="the front end is ready again")
        after = stack.chat("again")
    finally:
        stack.stop()

    assert answers == [f"echo: {number}" for number in range(20)]
    assert record["state"] == "succeeded"
    assert found["response"]["content"] == "echo: later"
    assert clean == 0, audit.output()
    assert after.json()["content"] == "echo: again"


@pytest.fixture
def said(tmp_path):
    """What a command of chatd says before it ends with an error."""

    def run(url, *command):
        config = tmp_path / "lakehouse.toml"
        data = tmp_path / "data"
        config.write_text(f'[chatd]\nredis_url = "{url}"\ndata_dir = "{data}"\n', "utf-8")
        arguments = python("-m", "cli", "--config", str(config), *command)
        child = Child(arguments, tmp_path / "command.log").start()

        assert child.wait() != 0
        assert "sesame" not in child.output()
        assert "Traceback" not in child.output()
        return child.output()

    return run


@pytest.mark.parametrize(
    "command",
    [("check",), ("up",), ("worker", "ollama"), ("keeper",), ("audit",), ("drain", "ollama")],
    ids=lambda command: command[0],
)
def test_every_command_says_whom_it_does_not_trust(command, address, stranger, said):
    """And ends, since no patience would help; without the password of Redis."""
    output = said(address.url(ssl_ca_certs=stranger.file), *command)

    assert "self-signed certificate" in output
    assert "ssl_ca_certs has to name the CA" in output


def test_a_host_that_is_not_in_the_certificate_is_not_trusted(address, said):
    """Whoever signed it."""
    output = said(address.url("127.0.0.1"), "keeper")

    assert "not valid for '127.0.0.1'" in output


@pytest.mark.parametrize("theirs", [False, True], ids=["none", "a-stranger's"])
def test_redis_asks_for_a_certificate_that_it_trusts(theirs, address, stranger, said):
    """TLS of both sides: the password alone opens nothing."""
    own = stranger.signed("chatd") if theirs else None
    output = said(address.url(ssl_certfile=own and own.file, ssl_keyfile=own and own.key), "keeper")

    assert ("UNKNOWN_CA" if theirs else "CERTIFICATE_REQUIRED") in output
    assert "one that it trusts" in output


def _asked(stack):
    try:
        return [stack.chat("anything")]
    except requests.ConnectionError:
        return []


def test_the_front_end_says_so_to_its_callers(address, upstream, stranger, tmp_path):
    """It goes on running, as whenever Redis cannot be used."""
    address.server.url = address.url(ssl_ca_certs=stranger.file)
    stack = Stack(tmp_path, {"ollama": upstream.url}, redis=address.server)
    stack.api.start()
    try:
        (refused,) = eventually(lambda: _asked(stack), what="the front end answers")
    finally:
        stack.api.stop()

    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "redis_unavailable"
    assert "certificate verify failed" in refused.json()["error"]["message"]
    assert "sesame" not in refused.text + stack.api.output()


@pytest.mark.parametrize("wrong", ["ca", "host", "nothing-said"])
def test_celery_does_not_trust_anybody_either(wrong, address, stranger):
    """kombu checks nothing of its own accord."""
    url = {
        "ca": address.url(ssl_ca_certs=stranger.file),
        "host": address.url("127.0.0.1"),
        "nothing-said": address.url(ssl_ca_certs=None, ssl_certfile=None, ssl_keyfile=None),
    }[wrong]
    with (
        make_celery(url).connection_for_read() as connection,
        pytest.raises(OperationalError, match="certificate verify failed"),
    ):
        connection.ensure_connection(max_retries=1)
