"""Keys of callers: how one is made, known again, and read from the configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chat.access import ANYBODY, Keyring, hash_of, new_key
from chat.config import load_config
from chat.errors import ConfigError
from chat.settings import ChatdConfig, KeyConfig


def entry(name: str, key: str, more: str = "") -> str:
    """The lines of a key's entry."""
    return f'[[chatd.keys]]\nname = "{name}"\nsha256 = "{hash_of(key)}"\n{more}\n'


def read(folder: Path, text: str) -> ChatdConfig:
    """A configuration of this text."""
    path = folder / "lakehouse.toml"
    path.write_text(text)
    return load_config(path, {})


def test_keys_are_long_and_no_two_are_the_same():
    """Nothing that could be guessed, in characters that any header takes."""
    made = {new_key() for _ in range(100)}

    assert len(made) == 100
    assert all(re.fullmatch(r"chatd-[A-Za-z0-9_-]{43}", key) for key in made)


def test_a_caller_is_known_by_the_key_alone(tmp_path):
    """With what its entry says of it; a wrong key is nobody's, however near it comes."""
    keys = [new_key() for _ in range(3)]
    more = "requests_per_minute = 60\nconcurrency = 4"
    text = entry("evals", keys[0], more) + entry("ops", keys[1], "admin = true")
    ring = Keyring(read(tmp_path, text).keys)
    evals, ops = ring.caller(keys[0]), ring.caller(keys[1])

    assert evals
    assert ops
    assert (evals.name, evals.admin, evals.sees) == ("evals", False, "evals")
    assert (evals.requests_per_minute, evals.concurrency, evals.limited) == (60, 4, True)
    assert (ops.name, ops.admin, ops.sees, ops.limited) == ("ops", True, None, False)
    for wrong in (keys[2], keys[0][:-1], keys[0] + "A", keys[0].upper(), "", hash_of(keys[0])):
        assert ring.caller(wrong) is None
    assert ring.caller("half \ud83d of a pair") is None


def test_the_key_before_is_accepted_while_it_is_there(tmp_path):
    """As the same caller: its jobs stay its own."""
    old, new = new_key(), new_key()
    text = entry("evals", new, f'previous_sha256 = "{hash_of(old)}"')
    ring = Keyring(read(tmp_path, text).keys)

    assert ring.caller(old) == ring.caller(new)
    assert ring.caller(old) is not None


def test_without_keys_anybody_sees_everything():
    """Everybody is on this machine then."""
    assert not Keyring(())
    assert ANYBODY.sees is None
    assert not ANYBODY.limited


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[[chatd.keys]]\nname = "a"', "sha256 of a is not a SHA-256"),
        (f'[[chatd.keys]]\nsha256 = "{"0" * 64}"', "name is not 1 to 64 letters"),
        ('[[chatd.keys]]\nname = "a"\nsha256 = "chatd-secret"', "sha256 of a is not a SHA-256"),
        (
            f'[[chatd.keys]]\nname = "a"\nsha256 = "{"A" * 64}"',
            "of 64 digits in lower-case hexadecimal",
        ),
        ('[[chatd.keys]]\nname = "a"\nkey = "chatd-secret"', "keys do not belong in this file"),
        (entry("a b", "k"), 'name = "a b" is not 1 to 64 letters'),
        (entry("a", "k", 'previous_sha256 = "short"'), "previous_sha256 of a is not"),
        (entry("a", "k", "concurrency = 0"), "concurrency = 0 is not a whole number"),
        (entry("a", "k", "requests_per_minute = 1.5"), "requests_per_minute = 1.5 is not"),
        (entry("a", "k", 'admin = "yes"'), 'admin = "yes" is neither true nor false'),
        (entry("a", "k") + entry("a", "l"), "is the name or has the key of an entry before it"),
        (entry("a", "k") + entry("b", "k"), "is the name or has the key of an entry before it"),
    ],
)
def test_an_entry_that_cannot_be_right_is_refused(tmp_path, text, fault):
    """By name, rule and way out; a key that was written into the file is not repeated."""
    with pytest.raises(ConfigError, match=re.escape(fault)) as caught:
        read(tmp_path, text)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "chat.example.com", "https://chat.example.com/", "https://Chat.example.com", ""],
)
def test_an_origin_is_what_a_browser_sends(tmp_path, origin):
    """Anything else would never be the same as the header."""
    with pytest.raises(ConfigError, match="not the origin of a page"):
        read(tmp_path, f'[chatd]\nallowed_origins = ["{origin}"]')


def test_other_machines_may_reach_it_once_there_is_a_key():
    """Whoever comes then has to have it."""
    key = KeyConfig(name="a", sha256=hash_of(new_key()))

    assert ChatdConfig(bind="0.0.0.0:3220", keys=(key,)).url == "http://127.0.0.1:3220"
    assert ChatdConfig(bind="[::]:3220", keys=(key,)).url == "http://[::1]:3220"
    assert ChatdConfig(bind="10.0.0.7:3220", keys=(key,)).url == "http://10.0.0.7:3220"
