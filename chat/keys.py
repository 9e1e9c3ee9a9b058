"""API keys: a holder that does not show what it holds, and the search for a provider's key."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NoReturn, Self

from chat.settings import ProviderConfig

__all__ = ["KeyLookup", "Secret", "resolve_key"]

_MASK = "Secret('***')"
_KEPT = "a Secret is not pickled: a key must not leave its process"


class Secret:
    """Holds an API key so that it reaches an Authorization header and nothing else.

    Printing, formatting and logging give a mask; ``json.dumps`` and ``pickle`` refuse it, so it
    crosses no queue. It has no hash, since a hash of a key is a fact about the key.
    """

    __slots__ = ("_value",)
    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key itself, for the header that carries it."""
        return self._value

    def __repr__(self) -> str:
        return _MASK

    def __str__(self) -> str:
        return _MASK

    def __format__(self, spec: str) -> str:
        return _MASK

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(_KEPT)

    def __getstate__(self) -> NoReturn:
        raise TypeError(_KEPT)


@dataclass(frozen=True, slots=True)
class KeyLookup:
    """A provider's key if there is one, and for the boot log where it is from or why it is not.

    ``reason`` names variables and files, never any part of a key.
    """

    secret: Secret | None
    reason: str


def resolve_key(provider: ProviderConfig, environ: Mapping[str, str]) -> KeyLookup:
    """Find the key of ``provider``: its environment variable, then its key file, then none.

    A variable that is set but unusable ends the search, so that a broken key is reported instead
    of being replaced in silence by an older one from the file.
    """
    if not provider.key_env:
        return KeyLookup(None, f"{provider.name} needs no key")
    value = environ.get(provider.key_env, "").strip()
    if value:
        return _usable(value, f"{provider.key_env} in the environment")
    unset = f"{provider.key_env} is not set in the environment"
    if not provider.key_file:
        return KeyLookup(None, f"{unset} and no key_file is configured")
    in_file = _key_in_file(Path(provider.key_file), provider.key_name)
    if in_file.secret is None:
        return KeyLookup(None, f"{unset} and {in_file.reason}")
    return in_file


def _key_in_file(path: Path, name: str) -> KeyLookup:
    """The value of the first line ``NAME=value``; later lines do not count, even if it is empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return KeyLookup(None, f"{path} does not exist")
    except OSError as error:
        return KeyLookup(None, f"{path} cannot be read ({error.strerror})")
    except UnicodeDecodeError:
        return KeyLookup(None, f"{path} is not UTF-8 text")

    return _key_in_text(text, path, name)


def _key_in_text(text: str, path: Path, name: str) -> KeyLookup:
    # Not splitlines(): it also splits at control characters, which are a fault in a key.
    lines = [line.strip(" \t\r") for line in text.split("\n")]
    settings = [line for line in lines if line and not line.startswith("#")]
    for line in settings:
        value = line.removeprefix(f"{name}=")
        if value == line or value.startswith((" ", "\t")):
            continue
        value = _unquoted(value).strip()
        if not value:
            return KeyLookup(None, f"{name} in {path} is empty")
        return _usable(value, f"{name} in {path}")
    if any(_nearly(line, name) for line in settings):
        return KeyLookup(
            None,
            f"{path} has {name}, but not as {name}=value: leave out export and spaces round =",
        )
    return KeyLookup(None, f"{path} has no line {name}=value")


def _unquoted(value: str) -> str:
    """``value`` without one pair of equal quotes around it."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value


def _nearly(line: str, name: str) -> bool:
    """Whether ``line`` sets ``name`` the way a shell or an INI file would."""
    return line.removeprefix("export ").partition("=")[0].strip() == name


def _usable(value: str, place: str) -> KeyLookup:
    """Refuse a key that no HTTP header can carry (RFC 9110, section 5.5)."""
    if any(not (" " <= char <= "~" or "\xa0" <= char <= "\xff") for char in value):
        return KeyLookup(
            None, f"{place} has characters that an HTTP header cannot carry; copy the key again"
        )
    return KeyLookup(Secret(value), place)
