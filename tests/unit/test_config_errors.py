"""The configuration's errors: each names file, table, key, value, rule and way out; no secret."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chat.config import ChatdConfig, load_config
from chat.errors import ConfigError

Refuse = Callable[[str], str]


@pytest.fixture
def refuse(tmp_path: Path) -> Refuse:
    """Load a configuration that has to be refused, and return the message."""

    def refuse(text: str) -> str:
        file = tmp_path / "chatd.toml"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load_config(file, {})
        return str(caught.value)

    return refuse


class TestUnknownKeys:
    """A misspelt key is an error that names it and the nearest known one."""

    @pytest.mark.parametrize(
        ("text", "place", "advice"),
        [
            pytest.param(
                "[chatdd]", 'top level: there is no key "chatdd"', "mean chatd?", id="table"
            ),
            pytest.param(
                "[chatd]\ntimeot_s = 3",
                '[chatd]: there is no key "timeot_s"',
                "did you mean timeout_s?",
                id="chatd",
            ),
            pytest.param(
                "[chatd]\nwebhooks = 3",
                '[chatd]: there is no key "webhooks"',
                "the keys are ",
                id="a key of another version",
            ),
            pytest.param(
                "[gateway]\nchatd_uri = 'x'",
                '[gateway]: there is no key "chatd_uri"',
                "chatd_url?",
                id="gateway",
            ),
            pytest.param(
                "[chatd.providers.openruoter]",
                '[chatd.providers]: there is no key "openruoter"',
                "did you mean openrouter?",
                id="provider",
            ),
            pytest.param(
                "[chatd.providers.kimi]\nconcurency = 3",
                '[chatd.providers.kimi]: there is no key "concurency"',
                "did you mean concurrency?",
                id="key of a provider",
            ),
            pytest.param(
                "[chatd.providers.kimi]\ngo_base_url = 'https://x'",
                '[chatd.providers.kimi]: there is no key "go_base_url"',
                "did you mean base_url?",
                id="key of another provider",
            ),
            pytest.param(
                "[chatd.providers.ollama]\nbase_url = 'http://x'",
                '[chatd.providers.ollama]: there is no key "base_url"',
                "write ollama_url in [chatd]",
                id="address of ollama",
            ),
            pytest.param(
                "[chatd.providers.ollama]\nkey_env = 'X'",
                '[chatd.providers.ollama]: there is no key "key_env"',
                "local Ollama needs no key",
                id="key of ollama",
            ),
            pytest.param(
                "[[chatd.providers.kimi.limits]]\nmatch = '*'\nrequest_per_day = 3",
                '[chatd.providers.kimi.limits]: there is no key "request_per_day"',
                "did you mean requests_per_day?",
                id="limit",
            ),
        ],
    )
    def test_it_is_named_with_the_nearest(
        self, refuse: Refuse, tmp_path: Path, text: str, place: str, advice: str
    ) -> None:
        """File, table and key stand in the message."""
        message = refuse(text)

        assert f"{tmp_path / 'chatd.toml'}: {place}" in message
        assert advice in message

    def test_an_api_key_in_the_file_is_not_repeated(self, refuse: Refuse) -> None:
        """Whoever writes a key here is told where it belongs, and the key is not printed."""
        message = refuse("[chatd.providers.kimi]\napi_key = 'sk-kimi-abc'")

        assert "put KIMI_API_KEY=… into /etc/lakehouse/kimi.env" in message
        assert "sk-kimi-abc" not in message


#: A refused line: its table, what is written, and what the message says about it.
REFUSED = [
    ("[chatd]", "bind = 3220", "bind = 3220 is not a string"),
    ("[chatd]", "bind = '127.0.0.1'", "does not end in a colon and a port"),
    ("[chatd]", "bind = '127.0.0.1:0'", "a port from 1 to 65535"),
    ("[chatd]", "bind = '127.0.0.1:65536'", "a port from 1 to 65535"),
    ("[chatd]", "bind = '::1:3220'", "an IPv6 address without brackets"),
    ("[chatd]", "bind = ':3220'", "has no host before the port"),
    ("[gateway]", "bind = 'here'", "does not end in a colon and a port"),
    ("[gateway]", "chatd_url = ''", "does not begin with http:// or https://"),
    ("[chatd]", "ollama_url = 'localhost:11434'", 'write it as ollama_url = "http://localhost'),
    ("[chatd]", "ollama_url = 'http://'", "has no usable host"),
    ("[chatd]", "ollama_url = 'http://a b'", "has no usable host"),
    ("[chatd]", "ollama_url = 'http://a:99999'", "is not a URL"),
    ("[chatd]", "ollama_url = 'http://a:0'", "has no usable host"),
    ("[chatd]", "ollama_url = 'http://a/?x=1'", "has a query or a fragment"),
    ("[chatd]", "ollama_url = 'http://a/#x'", "has a query or a fragment"),
    ("[chatd.providers.kimi]", "base_url = ''", "does not begin with http:// or https://"),
    ("[chatd.providers.opencode]", "go_base_url = 'ftp://x'", "does not begin with http://"),
    ("[chatd]", "timeout_s = '180'", 'timeout_s = "180" is not a number of seconds'),
    ("[chatd]", "timeout_s = true", "timeout_s = true is not a number of seconds"),
    ("[chatd]", "timeout_s = -1", "timeout_s = -1 is not a number of seconds, 0 to 31536000"),
    ("[chatd]", "timeout_s = nan", "is not a number of seconds"),
    ("[chatd]", "max_timeout_s = inf", "is not a number of seconds"),
    ("[chatd]", "job_timeout_s = 0", "job_timeout_s = 0 is not a number of seconds, above 0"),
    ("[chatd]", "worker_grace_s = 0", "is not a number of seconds, 10 to 31536000"),
    ("[chatd]", "retention_s = 40000000", "is not a whole number from 1 to 31536000"),
    ("[chatd]", "sync_retention_s = 0.5", "is not a whole number from 1 to 31536000"),
    ("[chatd]", "timeout_s = 100000", "(100000 s) is more than max_timeout_s = 86400"),
    ("[chatd]", "max_timeout_s = 60", "is more than max_timeout_s = 60"),
    ("[chatd]", "max_queued = 0", "is not a whole number from 1 to"),
    ("[chatd]", "max_queued = true", "is not a whole number from 1 to"),
    ("[chatd]", "max_queued = 10.0", "is not a whole number from 1 to"),
    ("[chatd]", "max_lost_calls = 0", "is not a whole number from 1 to"),
    ("[chatd]", "api_processes = '2'", "write one without quotes"),
    ("[chatd]", "max_queued_bytes = '256MB'", "is not a size in bytes"),
    ("[chatd]", "max_queued_bytes = 0", "is not a size in bytes"),
    ("[chatd]", "max_queued_bytes = true", "is not a size in bytes"),
    ("[chatd]", "body_limit = '1.5MiB'", "write a whole number, or one with B, KiB, MiB or GiB"),
    ("[chatd]", "body_limit = '1GiB'", "is more than max_queued_bytes = 268435456"),
    ("[chatd]", "redis_url = 'http://x'", "redis_url does not begin with redis://"),
    ("[chatd]", "redis_url = 'redis://'", "redis_url has no usable host"),
    ("[chatd]", "redis_url = 'redis://h:x'", "redis_url is not a URL"),
    ("[chatd]", "redis_url = 'unix://'", "redis_url has no path to a socket"),
    ("[chatd]", "redis_url = 'redis://h?db=one'", "has a database (db) that is not a number"),
    ("[chatd]", "redis_url = 'redis://h?tls=1'", "other than db, username and password"),
    ("[chatd]", "redis_url = 'redis://h?ssl_ca_certs=/ca'", "which begin with ssl_"),
    (
        "[chatd]",
        "redis_url = 'rediss://h?tls=1'",
        "other than db, username, password, ssl_ca_certs",
    ),
    ("[chatd]", "redis_url = 'rediss://h?ssl_cert_reqs=none'", "anybody on the way could pose as"),
    ("[chatd]", "redis_url = 'rediss://h?ssl_check_hostname=no'", "ssl_ca_certs=FILE, and a host"),
    ("[chatd]", "redis_url = 'rediss://h?ssl_ca_certs='", "without the name of a file"),
    ("[chatd]", "redis_url = 'rediss://h?ssl_certfile=/c'", "only one of ssl_certfile and"),
    ("[chatd]", "data_dir = 3", "data_dir = 3 is not a string"),
    ("[chatd]", "log_level = 'loud'", 'write "debug" or "info"'),
    ("[chatd]", "ollama_cloud_api = 'v1'", 'write "auto" or "generate" or "chat"'),
    ("[chatd]", "on_lost_call_batch = 'drop'", 'write "fail" or "retry"'),
    ("[chatd]", "allow_local_cloud = 'yes'", 'allow_local_cloud = "yes" is neither true nor false'),
    ("[chatd]", "allow_local_cloud = 1", "is neither true nor false"),
    ("[chatd]", "providers = []", "providers = […] is not a table"),
    ("[chatd]", "data_dir = 1979-05-27", 'data_dir = "1979-05-27" is not a string'),
    ("[chatd.providers.kimi]", "concurrency = 0", "is not a whole number from 1 to 1000"),
    ("[chatd.providers.kimi]", "concurrency = 1001", "is not a whole number from 1 to 1000"),
    ("[chatd.providers.kimi]", "workers = 0", "is not a whole number from 1 to 16"),
    ("[chatd.providers.kimi]", "workers = 17", "is not a whole number from 1 to 16"),
    ("[chatd]", "drain_s = -1", "drain_s = -1 is not a number of seconds, 0 to 31536000"),
    ("[chatd.providers.kimi]", "enabled = 'true'", "write true or false without quotes"),
    ("[chatd.providers.kimi]", "limits = 3", "is not an array of tables"),
    ("[[chatd.providers.kimi.limits]]", "requests_per_day = 3", "match is missing or empty"),
    ("[chatd]", "batch_share = 1.5", "batch_share = 1.5 is not a share from 0 to 1"),
    ("[chatd]", "batch_min_share = true", "is not a share from 0 to 1"),
    (
        "[[chatd.providers.kimi.limits]]",
        "match = '*'\nrequests_per_minute = 0",
        "requests_per_minute = 0 is not a whole number",
    ),
    ("[models]", "fast = 3", "fast = 3 is not a string"),
    ("[models]", "weak_models = 'x'", "is not a list of strings"),
    ("[models]", "weak_models = [1]", "is not a list of strings"),
    ("[models]", "weak_models = ['']", "weak_models = […] has an unusable entry"),
    ("[models]", "fast = ''", 'fast = "" is not a model id'),
    ("[models]", "fast = 'kimi/'", 'fast = "kimi/" is not a model id'),
    ("[models]", "fast = 'x:120b-cloud'", "ask Ollama Cloud for"),
    ("[models]", "a = 'b'\nb = 'qwen3:8b'", 'a = "b" stands for another tier'),
    ("[models]", "a = 'a'", "stands for another tier"),
    ("[models]", "'kimi/k3' = 'x'", "is not a tier name"),
    ("[models]", "'x:cloud' = 'x'", "is not a tier name"),
    ("[models]", "' x' = 'x'", "is not a tier name"),
    ("[models]", "'' = 'x'", "is not a tier name"),
    (
        "[chatd]",
        "ollama_url = ''\nproviders.ollama.enabled = true",
        'ollama_url = "" is empty although [chatd.providers.ollama] has enabled = true',
    ),
]


class TestRefusedValues:
    """A value that breaks a rule is refused with its file, table, key, rule and way out."""

    @pytest.mark.parametrize(
        ("table", "line", "words"), REFUSED, ids=[f"{case[0]} {case[1]}" for case in REFUSED]
    )
    def test_the_message_says_what_and_why(
        self, refuse: Refuse, tmp_path: Path, table: str, line: str, words: str
    ) -> None:
        """Each message begins with file and table, and ends in a way out."""
        message = refuse(f"{table}\n{line}")

        assert message.startswith(f"{tmp_path / 'chatd.toml'}: {table.strip('[]').join('[]')}")
        assert words in message
        assert "; " in message

    @pytest.mark.parametrize(
        ("line", "secret"),
        [
            pytest.param(
                "[chatd.providers.kimi]\nkey_env = 'sk-kimi-abc'", "sk-kimi-abc", id="key"
            ),
            pytest.param(
                "[chatd.providers.kimi]\nkey_env = 'skkimiabc'", "skkimiabc", id="key like a name"
            ),
            pytest.param(
                "[chatd.providers.kimi]\nkey_name = 'sk-kimi-abc'", "sk-kimi-abc", id="key as name"
            ),
            pytest.param(
                "[chatd.providers.kimi]\nbase_url = 'https://u:hunter2@x'", "hunter2", id="base_url"
            ),
            pytest.param("[chatd]\nollama_url = 'u:hunter2@x'", "hunter2", id="ollama_url"),
            pytest.param("[chatd]\nredis_url = 'tcp://:hunter2@x'", "hunter2", id="redis_url"),
            pytest.param("[chatd]\nredis_url = 'redis://x?hunter2=1'", "hunter2", id="parameter"),
            pytest.param("[chatd]\nredis_url = ['redis://:hunter2@x']", "hunter2", id="list"),
            pytest.param("[chatd.providers]\nkimi = [{api_key = 'sk-x'}]", "sk-x", id="table"),
        ],
    )
    def test_a_value_that_may_be_secret_is_not_repeated(
        self, refuse: Refuse, line: str, secret: str
    ) -> None:
        """Passwords in URLs and keys in the wrong place stay out of the message."""
        assert secret not in refuse(line)

    def test_a_long_value_is_cut(self, refuse: Refuse) -> None:
        """A message stays readable whatever was pasted into the file."""
        assert len(refuse(f"[chatd]\nlog_level = '{'x' * 10_000}'")) < 400


class TestWhoMayReachIt:
    """Without keys only its own machine may call it."""

    @pytest.mark.parametrize(
        "bind", ["127.0.0.1:3220", "127.8.8.8:1", "localhost:3220", "[::1]:3220", "LOCALHOST:80"]
    )
    def test_loopback_is_accepted(self, bind: str) -> None:
        """Addresses that only this machine reaches."""
        assert ChatdConfig(bind=bind).bind == bind

    @pytest.mark.parametrize(
        "bind", ["0.0.0.0:3220", "192.168.1.7:3220", "[::]:3220", "chat.example.com:3220", "*:3220"]
    )
    def test_anything_else_is_refused(self, refuse: Refuse, bind: str) -> None:
        """The message explains why, and what to do instead."""
        message = refuse(f'[chatd]\nbind = "{bind}"')

        assert f'[chatd] bind = "{bind}" can be reached from other machines' in message
        assert "there are no [[chatd.keys]]" in message
        assert "chatd keys new" in message

    def test_no_way_round(self) -> None:
        """A configuration that is built in code is held to the same rule."""
        with pytest.raises(ConfigError, match="chatd keys new"):
            ChatdConfig(bind="0.0.0.0:3220")
