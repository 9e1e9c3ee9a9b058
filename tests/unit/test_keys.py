"""Keys: where one is found, and that it is shown nowhere."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import pprint
import reprlib
import traceback
from dataclasses import asdict, astuple, replace
from pathlib import Path
from string import Template

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.config import ChatdConfig, ProviderConfig
from chat.keys import KeyLookup, Secret, resolve_key

ETC = Path(__file__).parents[2] / "deploy" / "etc"
KEY = "sk-or-v1-0123456789abcdef"
NAME = "OPENROUTER_API_KEY"


@pytest.fixture
def provider(tmp_path: Path) -> ProviderConfig:
    """OpenRouter, with a key file that does not exist yet."""
    return replace(ChatdConfig().providers["openrouter"], key_file=str(tmp_path / "openrouter.env"))


def revealed(lookup: KeyLookup) -> str | None:
    """The key that was found, if one was."""
    return None if lookup.secret is None else lookup.secret.reveal()


class TestSecret:
    """It gives the key to whoever asks by name, and a mask to everyone else."""

    def test_it_reveals_its_key(self) -> None:
        """What went in comes out."""
        assert Secret(KEY).reveal() == KEY

    @pytest.mark.parametrize(
        "shown",
        [
            pytest.param(repr(Secret(KEY)), id="repr"),
            pytest.param(str(Secret(KEY)), id="str"),
            pytest.param(f"{Secret(KEY)}", id="f-string"),
            pytest.param(f"{Secret(KEY)!r:>40}", id="f-string of repr"),
            pytest.param(f"{Secret(KEY):>40}", id="format with a width"),
            pytest.param("%s %r" % (Secret(KEY), Secret(KEY)), id="percent"),  # noqa: UP031
            pytest.param(repr({"key": [Secret(KEY)]}), id="inside containers"),
            pytest.param(repr(KeyLookup(Secret(KEY), "why")), id="inside a dataclass"),
            pytest.param(json.dumps({"key": Secret(KEY)}, default=str), id="JSON of its str"),
            pytest.param("%(key)s" % {"key": Secret(KEY)}, id="percent of a dictionary"),  # noqa: UP031
            pytest.param("{0} {0!s} {0!r} {0!a}".format(Secret(KEY)), id="str.format"),
            pytest.param(Template("$key").substitute(key=Secret(KEY)), id="template"),
            pytest.param(ascii(Secret(KEY)), id="ascii"),
            pytest.param(reprlib.repr([Secret(KEY)]), id="reprlib"),
            pytest.param(pprint.pformat({"key": Secret(KEY)}), id="pprint"),
            pytest.param(repr(asdict(KeyLookup(Secret(KEY), "why"))), id="asdict"),
            pytest.param(repr(astuple(KeyLookup(Secret(KEY), "why"))), id="astuple"),
            pytest.param(str(ValueError("no such key", Secret(KEY))), id="inside an exception"),
            pytest.param(repr(copy.deepcopy([Secret(KEY)])), id="inside a copy"),
        ],
    )
    def test_it_shows_a_mask(self, shown: str) -> None:
        """However it is turned into text."""
        assert KEY not in shown
        assert "***" in shown

    def test_a_log_line_shows_a_mask(self, caplog: pytest.LogCaptureFixture) -> None:
        """Logging formats late, and the mask holds there too."""
        with caplog.at_level(logging.INFO):
            logging.getLogger("test").info("the key is %s", Secret(KEY))

        assert caplog.messages == ["the key is Secret('***')"]

    def test_a_traceback_with_its_locals_shows_a_mask(self) -> None:
        """As debuggers and error reporters make one."""

        def fails(key: Secret, holder: KeyLookup) -> None:
            raise LookupError(f"{key} in {holder}")

        with pytest.raises(LookupError) as caught:
            fails(Secret(KEY), KeyLookup(Secret(KEY), "why"))
        told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        text = "".join(told.format())

        assert "key = Secret('***')" in text
        assert KEY not in text

    def test_it_has_no_inside_that_could_be_listed(self) -> None:
        """Neither a dictionary of its attributes nor a state for a copy of it."""
        with pytest.raises(TypeError, match="__dict__"):
            vars(Secret(KEY))
        with pytest.raises(TypeError, match="must not leave its process"):
            Secret(KEY).__getstate__()
        with pytest.raises(TypeError):
            Secret(KEY).__reduce__()
        with pytest.raises(TypeError):
            bytes(Secret(KEY))  # type: ignore[call-overload]

    def test_it_crosses_no_queue(self) -> None:
        """Neither JSON nor any pickle protocol takes it."""
        with pytest.raises(TypeError, match="not JSON serializable"):
            json.dumps(Secret(KEY))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="must not leave its process"):
                pickle.dumps(Secret(KEY), protocol)

    def test_it_can_be_copied(self) -> None:
        """Copies of configuration values may hold it."""
        secret = Secret(KEY)

        assert copy.copy(secret) is secret
        assert copy.deepcopy({"key": secret})["key"] is secret

    def test_it_equals_only_a_secret_with_the_same_key(self) -> None:
        """A plain string is never equal, so that comparing cannot be used to guess."""
        assert Secret(KEY) == Secret(KEY)
        assert Secret("schlüssel") == Secret("schlüssel")
        assert Secret(KEY) != Secret(KEY + "x")
        assert Secret(KEY) != KEY

    def test_it_has_no_hash(self) -> None:
        """It is neither a dictionary's key nor a member of a set."""
        with pytest.raises(TypeError, match="unhashable"):
            hash(Secret(KEY))


class TestTheEnvironmentComesFirst:
    """The variable counts, if it is not empty."""

    @pytest.mark.parametrize(
        "value", [KEY, f"  {KEY}\n", f"\t{KEY} "], ids=["plain", "newline", "tab"]
    )
    def test_it_is_trimmed(self, provider: ProviderConfig, value: str) -> None:
        """Space around the key is not part of it."""
        lookup = resolve_key(provider, {NAME: value})

        assert revealed(lookup) == KEY
        assert lookup.reason == "OPENROUTER_API_KEY in the environment"

    def test_it_wins_over_the_file(self, provider: ProviderConfig) -> None:
        """The file is not looked at."""
        Path(provider.key_file).write_text(f"{NAME}=from-the-file\n")

        assert revealed(resolve_key(provider, {NAME: KEY})) == KEY

    @pytest.mark.parametrize("environ", [{}, {NAME: ""}, {NAME: "  \n"}], ids=["un", "0", "blank"])
    def test_an_empty_one_leaves_it_to_the_file(
        self, provider: ProviderConfig, environ: dict[str, str]
    ) -> None:
        """Unset, empty and blank are the same."""
        Path(provider.key_file).write_text(f"{NAME}=from-the-file\n")
        lookup = resolve_key(provider, environ)

        assert revealed(lookup) == "from-the-file"
        assert lookup.reason == f"{NAME} in {provider.key_file}"

    def test_its_name_is_configured(self, provider: ProviderConfig) -> None:
        """``key_env`` names the variable."""
        renamed = replace(provider, key_env="MY_KEY")

        assert revealed(resolve_key(renamed, {"MY_KEY": KEY, NAME: "other"})) == KEY

    def test_a_broken_one_is_not_replaced(self, provider: ProviderConfig) -> None:
        """A key that cannot be sent is reported; the file's would be another key than asked for."""
        Path(provider.key_file).write_text(f"{NAME}=from-the-file\n")
        lookup = resolve_key(provider, {NAME: "sk-\x00broken"})

        assert lookup.secret is None
        assert "HTTP header cannot carry" in lookup.reason


class TestTheFileComesNext:
    """Its first line ``KEY_NAME=value`` counts."""

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param(f"{NAME}={KEY}", id="one line"),
            pytest.param(f"{NAME}={KEY}\r\n", id="CRLF"),
            pytest.param(f"\ufeff{NAME}={KEY}\n", id="byte order mark"),
            pytest.param(f"\n  \n# {NAME}=old\n  # note\n{NAME}={KEY}\n", id="blanks and comments"),
            pytest.param(f'{NAME}="{KEY}"\n', id="double quotes"),
            pytest.param(f"{NAME}='{KEY}'\n", id="single quotes"),
            pytest.param(f"{NAME}={KEY}  \n", id="space after it"),
            pytest.param(f"  {NAME}={KEY}\n", id="space before it"),
            pytest.param(f"{NAME}={KEY}\n{NAME}=second\n", id="the first of two"),
            pytest.param(f"OTHER=x\n{NAME}_OLD=y\n{NAME}={KEY}\n", id="among others"),
            pytest.param(f"export {NAME}=x\n{NAME} = x\n{NAME}= x\n{NAME}={KEY}\n", id="not shell"),
        ],
    )
    def test_its_line_is_found(self, provider: ProviderConfig, text: str) -> None:
        """Blank lines and comments are skipped; one pair of equal quotes comes off."""
        Path(provider.key_file).write_text(text, encoding="utf-8", newline="")

        assert revealed(resolve_key(provider, {})) == KEY

    @pytest.mark.parametrize(
        ("value", "found"),
        [
            pytest.param("a=b", "a=b", id="equals sign"),
            pytest.param("a b", "a b", id="space inside"),
            pytest.param("a#b", "a#b", id="number sign"),
            pytest.param("\"a'", "\"a'", id="quotes that differ"),
            pytest.param('"a', '"a', id="one quote"),
            pytest.param("''a''", "'a'", id="two pairs of quotes"),
            pytest.param('" a "', "a", id="space inside the quotes"),
            pytest.param("é", "é", id="latin-1"),
        ],
    )
    def test_its_value_is_kept(self, provider: ProviderConfig, value: str, found: str) -> None:
        """Nothing but the quotes and the space around it comes off."""
        Path(provider.key_file).write_text(f"{NAME}={value}\n", encoding="utf-8")

        assert revealed(resolve_key(provider, {})) == found

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            pytest.param("", "has no line OPENROUTER_API_KEY=value", id="empty file"),
            pytest.param(f"OTHER={KEY}", "has no line OPENROUTER_API_KEY=value", id="other name"),
            pytest.param(f"{NAME}\n", "leave out export and spaces", id="no equals sign"),
            pytest.param(f"export {NAME}={KEY}", "leave out export and spaces", id="export"),
            pytest.param(f"{NAME} = {KEY}", "leave out export and spaces", id="spaces"),
            pytest.param(f"{NAME}= {KEY}", "leave out export and spaces", id="space after"),
            pytest.param(f"{NAME}=\n{NAME}={KEY}", "is empty", id="empty first line"),
            pytest.param(f'{NAME}=""\n{NAME}={KEY}', "is empty", id="empty quotes"),
            pytest.param(f"{NAME}={KEY}\x00", "HTTP header cannot carry", id="NUL"),
            pytest.param(f"{NAME}={KEY}\x0b{KEY}", "HTTP header cannot carry", id="control"),
            pytest.param(f"{NAME}={KEY}\x85{KEY}", "HTTP header cannot carry", id="C1 control"),
            pytest.param(f"{NAME}={KEY}…", "HTTP header cannot carry", id="beyond latin-1"),
        ],
    )
    def test_without_a_usable_line_there_is_none(
        self, provider: ProviderConfig, text: str, reason: str
    ) -> None:
        """The reason names variable and file and repeats no key."""
        Path(provider.key_file).write_text(text, encoding="utf-8", newline="")
        lookup = resolve_key(provider, {})

        assert lookup.secret is None
        assert lookup.reason.startswith(f"{NAME} is not set in the environment and ")
        assert provider.key_file in lookup.reason
        assert reason in lookup.reason
        assert KEY not in lookup.reason

    def test_a_missing_file_is_none(self, provider: ProviderConfig) -> None:
        """That is the usual case of a provider nobody uses."""
        lookup = resolve_key(provider, {})

        assert lookup == KeyLookup(
            None, f"{NAME} is not set in the environment and {provider.key_file} does not exist"
        )

    def test_an_unreadable_file_is_none(self, provider: ProviderConfig) -> None:
        """A directory in its place, or bytes that are not text, end in a reason, not a crash."""
        directory = replace(provider, key_file=str(Path(provider.key_file).parent))
        Path(provider.key_file).write_bytes(b"\xff\xfe")

        assert resolve_key(directory, {}).secret is None
        assert "cannot be read (Is a directory)" in resolve_key(directory, {}).reason
        assert resolve_key(provider, {}).secret is None
        assert "is not UTF-8 text" in resolve_key(provider, {}).reason

    def test_the_name_in_it_is_configured(self, provider: ProviderConfig) -> None:
        """``key_name`` names the line."""
        Path(provider.key_file).write_text(f"{NAME}=other\nMY_KEY={KEY}\n")

        assert revealed(resolve_key(replace(provider, key_name="MY_KEY"), {})) == KEY

    def test_there_need_be_none(self, provider: ProviderConfig) -> None:
        """An empty ``key_file`` leaves the environment alone."""
        lookup = resolve_key(replace(provider, key_file=""), {})

        assert (
            lookup.reason == f"{NAME} is not set in the environment and no key_file is configured"
        )


def test_ollama_needs_none() -> None:
    """Local Ollama has no key to look for."""
    lookup = resolve_key(ChatdConfig().providers["ollama"], {"OLLAMA_API_KEY": KEY})

    assert lookup == KeyLookup(None, "ollama needs no key")


@settings(deadline=None)
@given(st.text())
def test_a_found_key_fits_into_a_header(value: str) -> None:
    """Whatever stands in the environment: what a header can carry is found, and nothing else."""
    kimi = replace(ChatdConfig().providers["kimi"], key_file="")
    trimmed = value.strip()
    fits = all(" " <= char <= "~" or "\xa0" <= char <= "\xff" for char in trimmed)

    assert revealed(resolve_key(kimi, {"KIMI_API_KEY": value})) == (
        trimmed if trimmed and fits else None
    )


class TestTheExamples:
    """deploy/etc has a key file to copy for each provider that needs a key."""

    NAMES = ("ollama_cloud", "openrouter", "opencode", "kimi")

    def test_there_is_one_for_each(self) -> None:
        """And none for anything else."""
        assert {file.stem for file in ETC.glob("*.env")} == set(self.NAMES)

    @pytest.mark.parametrize("name", NAMES)
    def test_as_it_is_it_holds_no_key(self, name: str) -> None:
        """A copy nobody edited registers nothing."""
        provider = replace(ChatdConfig().providers[name], key_file=str(ETC / f"{name}.env"))

        assert resolve_key(provider, {}).secret is None

    @pytest.mark.parametrize("name", NAMES)
    def test_filled_in_it_holds_one(self, name: str, tmp_path: Path) -> None:
        """Doing what its text says registers the provider."""
        provider = ChatdConfig().providers[name]
        text = (ETC / f"{name}.env").read_text(encoding="utf-8")
        line = f"#{provider.key_name}="
        file = tmp_path / "filled.env"
        file.write_text(text.replace(line, f"{line[1:]}{KEY}"), encoding="utf-8")

        assert text.count(line) == 1
        assert provider.key_file in text
        assert revealed(resolve_key(replace(provider, key_file=str(file)), {})) == KEY
