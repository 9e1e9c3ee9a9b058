"""``chatd gateway``: what becomes of the configuration, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from click.testing import CliRunner

from chat.config import ChatdConfig, GatewayConfig, load_config
from chat.errors import ConfigError
from cli.gateway import nginx_config
from cli.main import main

BIND, URL = "127.0.0.1:3110", "http://127.0.0.1:3220"


def config(bind=BIND, chatd_url=URL, **fields):
    return ChatdConfig(gateway=GatewayConfig(bind=bind, chatd_url=chatd_url), **fields)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs the command on a configuration with this [gateway]."""
    file = tmp_path / "lakehouse.toml"
    # The command leaves the option there for the processes that it starts.
    monkeypatch.setenv("LAKEHOUSE_CONFIG", str(file))

    def command(lines, *arguments):
        file.write_text(f"[gateway]\n{lines}\n", "utf-8")
        return CliRunner().invoke(main, ["--config", str(file), "gateway", *arguments])

    return command


@pytest.mark.parametrize(
    ("bind", "chatd_url", "listen", "upstream"),
    [
        pytest.param(BIND, URL, "127.0.0.1:3110", "127.0.0.1:3220", id="default"),
        pytest.param("[::]:80", "http://[::1]:3220", "[::]:80", "[::1]:3220", id="ipv6"),
        pytest.param("box-1.lan:80", "http://api.lan", "box-1.lan:80", "api.lan:80", id="names"),
    ],
)
def test_addresses_come_from_the_configuration(bind, chatd_url, listen, upstream):
    """Both of them, in nginx' form."""
    text = nginx_config(config(bind, chatd_url))

    assert re.findall(r"^    listen (\S+) ", text, re.MULTILINE) == [listen]
    assert re.findall(r"^    server (\S+) ", text, re.MULTILINE) == [upstream]


def test_limits_are_those_of_chatd_and_a_little_more():
    """It is chatd that says no, in words; nginx only bounds what gets there."""
    limits = {"body_limit": 2 * 2**20, "file_limit": 3 * 2**20}
    text = nginx_config(config(**limits, max_timeout_s=7200.5, job_timeout_s=60))
    files = text[text.index("location = /v1/files {") :]

    assert re.findall("client_max_body_size ([0-9]+);", text) == ["3145728", "4194304"]
    assert "client_max_body_size 4194304;" in files
    assert "proxy_read_timeout 7261s;" in text
    assert re.findall("@[a-z_]+@", text) == []


INJECTIONS = [
    "127.0.0.1 default_server",
    "127.0.0.1;",
    "x;}server{",
    "a\nb",
    "$host",
    '"x"',
    "x#",
    "*",
    "-x",
    "a..b",
    "[fe80::1%lo;]",
    "é",
]


@pytest.mark.parametrize("host", [pytest.param(host, id=repr(host)) for host in INJECTIONS])
def test_what_nginx_could_read_as_something_else_is_refused(host):
    """Neither address reaches the file unless it is one."""
    with pytest.raises(ConfigError, match=r"\[gateway\] (bind|chatd_url) = "):
        nginx_config(replace(config(), gateway=GatewayConfig(bind=f"{host}:3110")))
    with pytest.raises(ConfigError, match=r"\[gateway\] chatd_url = "):
        nginx_config(config(chatd_url=f"http://{host}:3220"))


@pytest.mark.parametrize(
    "chatd_url",
    ["https://127.0.0.1:3220", "http://127.0.0.1:3220/v1", "http://127.0.0.1:3220/"],
)
def test_chatd_is_reached_by_http_without_a_path(chatd_url):
    """A path would be cut off or doubled, and chatd itself speaks no TLS."""
    with pytest.raises(ConfigError, match="how chatd is reached"):
        nginx_config(config(chatd_url=chatd_url))


@pytest.mark.parametrize(
    ("bind", "chatd_url"),
    [
        pytest.param("127.0.0.1:80", "http://127.0.0.1", id="usual port"),
        pytest.param("127.0.0.1:3220", "http://localhost:3220", id="name"),
        pytest.param("LOCALHOST:3220", "http://127.0.0.1:3220", id="capitals"),
        pytest.param("0.0.0.0:3220", "http://127.0.0.1:3220", id="every address"),
        pytest.param("[::]:3220", "http://[::1]:3220", id="ipv6"),
        pytest.param("box:3220", "http://box:3220", id="same name"),
    ],
)
def test_a_gateway_to_itself_is_refused(bind, chatd_url):
    """Each call would run in circles until nginx has no connection left."""
    with pytest.raises(ConfigError, match="is chatd's own address"):
        nginx_config(config(bind, chatd_url))


def test_two_addresses_may_have_one_port():
    """Where neither covers the other."""
    assert "listen 127.0.0.2:3220 " in nginx_config(config("127.0.0.2:3220"))


def test_the_configuration_file_is_named_where_it_breaks_a_rule(command):
    """With key, value and the way out, on one line."""
    result = command('bind = "a;b:3110"')

    assert result.exit_code == 1
    assert 'lakehouse.toml: [gateway] bind = "a;b:3110" has no address' in result.output
    assert result.output.count("\n") == 1


def test_a_port_that_others_can_reach_is_worth_a_note(command):
    """On standard error, so that the configuration can be piped; with TLS it says less."""
    local = command(f'bind = "{BIND}"')
    plain = command('bind = "0.0.0.0:3110"')
    tls = ["--certificate", "/etc/tls/box.pem", "--certificate-key", "/etc/tls/box.key"]
    secure = command('bind = "0.0.0.0:3110"', *tls)

    assert (local.exit_code, local.stderr) == (0, "")
    assert "chatd asks nobody for a key" in plain.stderr
    assert plain.stderr.endswith("keys and prompts go over plain HTTP: --certificate\n")
    assert secure.stderr.endswith("chatd asks nobody for a key: `chatd keys new NAME`\n")
    assert "listen 0.0.0.0:3110 so_keepalive" in plain.stdout
    assert "listen 0.0.0.0:3110 ssl so_keepalive" in secure.stdout
    assert "ssl_certificate_key /etc/tls/box.key;" in secure.stdout
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in secure.stdout


@pytest.mark.parametrize("path", ["box.pem", "/etc/a b.pem", "/etc/a;b", "/etc/$x", "/etc/a\nb"])
def test_a_certificate_is_a_plain_path(command, path):
    """nginx would look for a relative one elsewhere, and stop at a blank."""
    arguments = ["--certificate", path, "--certificate-key", "/etc/tls/box.key"]
    result = command("", *arguments)

    assert result.exit_code == 1
    assert "is not a path from the root" in result.output


def test_a_certificate_needs_its_key(command):
    """And the other way round."""
    assert command("", "--certificate", "/etc/tls/box.pem").exit_code == 2
    assert command("", "--certificate-key", "/etc/tls/box.key").exit_code == 2


def test_it_can_be_written_to_a_file(command, tmp_path):
    """Whole, or a line says why not."""
    target = tmp_path / "chatd.conf"
    written = command("", "-o", str(target))
    failed = command("", "-o", str(tmp_path / "missing" / "chatd.conf"))

    assert (written.exit_code, written.output) == (0, "")
    assert target.read_text("utf-8") == nginx_config(load_config(tmp_path / "lakehouse.toml"))
    assert failed.exit_code == 1
    assert "cannot be written (No such file or directory)" in failed.output
