"""A TOML table that hands out checked values and then names the keys that nobody asked for."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from chat.errors import ConfigError

__all__ = ["Table"]

_LONGEST_S = 365 * 86400
_MOST_DOLLARS = 1_000_000
_LONGEST_QUOTE = 80
_SIZE = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB)")
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class Table:
    """One table of a configuration file while it is read.

    Each method takes a key and its default, and raises ``ConfigError`` for a value of another type
    or out of range. The message names file, table, key, value, rule and way out. ``finish`` comes
    last: what was not asked for by then is unknown.
    """

    def __init__(self, values: Mapping[str, Any], *, file: str, name: str = "") -> None:
        self._values = values
        self._file = file
        self._name = name
        self._known: list[str] = []

    def text(self, key: str, default: str) -> str:
        """A string."""
        value = self._take(key, default)
        if not isinstance(value, str):
            raise self.error(key, "is not a string", f'write it in quotes, as {key} = "…"')
        return value

    def choice(self, key: str, default: str, choices: Collection[str]) -> str:
        """One of ``choices``."""
        value = self._take(key, default)
        if value not in choices:
            allowed = " or ".join(json.dumps(choice) for choice in choices)
            raise self.error(key, "is not one of the values it can have", f"write {allowed}")
        return str(value)

    def flag(self, key: str, default: bool | None) -> bool | None:  # noqa: FBT001 - a default, not a switch
        """``true`` or ``false``; ``default`` may be None to tell that neither was written."""
        value = self._take(key, default)
        if value is not None and not isinstance(value, bool):
            raise self.error(key, "is neither true nor false", "write true or false without quotes")
        return value

    def whole(self, key: str, default: int, *, at_most: int) -> int:
        """A whole number from 1 to ``at_most``."""
        value = self._take(key, default)
        if type(value) is not int or not 1 <= value <= at_most:
            raise self.error(
                key,
                f"is not a whole number from 1 to {at_most}",
                f"write one without quotes, such as {key} = {default}",
            )
        return value

    def whole_or_none(self, key: str) -> int | None:
        """A whole number of at least 1, or None if the key is absent."""
        self._take(key, None)
        return self.whole(key, 1, at_most=2**31 - 1) if key in self._values else None

    def seconds(
        self, key: str, default: float, *, zero: bool = False, at_least: float = 0.0
    ) -> float:
        """A time in seconds, above 0 and at most a year; 0 too where ``zero`` says so."""
        value = self._take(key, default)
        if (
            not isinstance(value, (int, float))
            or isinstance(value, bool)
            or not at_least <= value <= _LONGEST_S
            or (value == 0 and not zero)
        ):
            lowest = f"{at_least:g}" if zero or at_least else "above 0"
            raise self.error(
                key,
                f"is not a number of seconds, {lowest} to {_LONGEST_S}",
                f"write one without quotes or unit, such as {key} = {default:g}",
            )
        return float(value)

    def share(self, key: str, default: float) -> float:
        """A part of a whole, from 0 to 1."""
        value = self._take(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
            raise self.error(
                key,
                "is not a share from 0 to 1",
                f"write a number without quotes, such as {key} = {default:g}",
            )
        return float(value)

    def dollars_or_none(self, key: str) -> float | None:
        """An amount of US dollars, from 0 to a million, or None if the key is absent."""
        value = self._take(key, None)
        if value is None:
            return None
        if (
            not isinstance(value, (int, float))
            or isinstance(value, bool)
            or not 0 <= value <= _MOST_DOLLARS
        ):
            raise self.error(
                key,
                f"is not an amount of US dollars, 0 to {_MOST_DOLLARS}",
                f"write a number without quotes, such as {key} = 0.5",
            )
        return float(value)

    def size(self, key: str, default: int) -> int:
        """A size in bytes, written as a whole number or with a unit: ``"256MiB"``."""
        value = self._take(key, default)
        if type(value) is int:
            size = value
        else:
            match = _SIZE.fullmatch(value) if isinstance(value, str) else None
            size = int(match[1]) * _UNITS[match[2]] if match else 0
        if not 1 <= size < 2**53:
            raise self.error(
                key,
                "is not a size in bytes",
                f'write a whole number, or one with B, KiB, MiB or GiB: {key} = "16MiB"',
            )
        return size

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings, empty if the key is absent."""
        value = self._take(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(key, "is not a list of strings", f'write {key} = ["…", "…"]')
        return tuple(value)

    def rest(self) -> dict[str, str]:
        """Every key not asked for so far, whatever its name; each has to be a string."""
        return {key: self.text(key, "") for key in self._values if key not in self._known}

    def table(self, key: str) -> Table:
        """The table below ``key``, empty if it is absent."""
        name = f"{self._name}.{key}" if self._name else key
        value = self._take(key, {})
        if not isinstance(value, dict):
            raise self.error(key, "is not a table", f"write its keys below a line [{name}]")
        return Table(value, file=self._file, name=name)

    def tables(self, key: str) -> tuple[Table, ...]:
        """The array of tables below ``key``, empty if it is absent."""
        name = f"{self._name}.{key}"
        value = self._take(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.error(key, "is not an array of tables", f"begin each with a line [[{name}]]")
        return tuple(Table(item, file=self._file, name=name) for item in value)

    def finish(self, hints: Mapping[str, str] | None = None) -> None:
        """Refuse keys that were not asked for; ``hints`` has a better advice for some of them."""
        for key in self._values:
            if key in self._known:
                continue
            near = difflib.get_close_matches(key, self._known, n=1)
            if hints is not None and key in hints:
                advice = hints[key]
            elif near:
                advice = f"did you mean {near[0]}?"
            else:
                advice = f"the keys are {', '.join(self._known)}"
            raise ConfigError(f"{self._place()}: there is no key {json.dumps(key)} here; {advice}")

    def error(self, key: str, rule: str, way_out: str, *, hide: bool = False) -> ConfigError:
        """The error for the value of ``key``; ``hide`` keeps a value that may be secret out."""
        shown = f"{key} = {_shown(self._values[key])}" if key in self._values else key
        return ConfigError(f"{self._place()}: {key if hide else shown} {rule}; {way_out}")

    def _take(self, key: str, default: object) -> object:
        if key not in self._known:
            self._known.append(key)
        return self._values.get(key, default)

    def _place(self) -> str:
        return f"{self._file}: [{self._name}]" if self._name else f"{self._file}: top level"


def _shown(value: object) -> str:
    """``value`` nearly as the file has it, cut when it is long; what it contains is not shown."""
    if isinstance(value, (list, dict)):
        return "[…]" if isinstance(value, list) else "{…}"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…"
