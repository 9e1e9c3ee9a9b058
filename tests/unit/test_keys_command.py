"""``chatd keys new``, and the key that the other commands send."""

from __future__ import annotations

import tomllib

import pytest
import requests
from click import ClickException
from click.testing import CliRunner

from chat.access import hash_of
from chat.config import load_config
from cli.main import main
from cli.session import new_session


@pytest.mark.parametrize("admin", [False, True])
def test_a_key_is_printed_once_with_what_lets_it_in(tmp_path, admin):
    """The key alone on standard output; the other lines go into the file as they are."""
    result = CliRunner().invoke(main, ["keys", "new", "evals", *(["--admin"] if admin else [])])
    file = tmp_path / "lakehouse.toml"
    file.write_text(result.stderr)
    (key,) = load_config(file, {}).keys
    made = result.stdout.strip()

    assert result.exit_code == 0
    assert (key.name, key.sha256, key.admin) == ("evals", hash_of(made), admin)
    assert set(tomllib.loads(result.stderr)) == {"chatd"}
    assert made not in result.stderr


@pytest.mark.parametrize("name", ["", "two words", "a/b", "x" * 65, 'a"\nadmin = true\n'])
def test_a_name_that_no_entry_may_have_gets_no_key(name):
    """Nothing is printed that could be pasted."""
    result = CliRunner().invoke(main, ["keys", "new", name])

    assert result.exit_code == 2
    assert "is not 1 to 64 letters" in result.stderr
    assert result.stdout == ""


def sent(key: str | None, base: str = "http://127.0.0.1:3220") -> str | None:
    """The header of a call."""
    session = new_session(base, {} if key is None else {"CHATD_API_KEY": key})
    call = requests.Request("GET", f"{base}/v1/jobs")
    found = session.prepare_request(call).headers.get("Authorization")
    assert not isinstance(found, bytes)
    return found


def test_commands_send_the_key_of_their_environment():
    """As it was printed, however it was pasted."""
    assert sent("chatd-a") == sent(" chatd-a\n") == "Bearer chatd-a"
    assert sent("") is sent(None) is None


def test_what_netrc_has_for_the_host_is_not_sent(tmp_path, monkeypatch):
    """requests would put it in place of the key, and send it where there is none."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine chat.example.com login me password hidden\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))

    assert sent("chatd-a", "http://chat.example.com") == "Bearer chatd-a"
    assert sent(None, "http://chat.example.com") is None


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "ключ", "x" * 256])
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(key):
    """It would be an error of requests' that shows it."""
    with pytest.raises(ClickException, match="CHATD_API_KEY has") as caught:
        sent(key)

    assert key not in caught.value.message
