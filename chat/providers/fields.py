"""Reading what an upstream answered, field by field, with every wrong type told as such."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NoReturn

from chat.errors import UpstreamProtocolError
from chat.types import JSON

__all__ = ["Fields", "parse_json"]

#: More tokens, or US dollars, than one call can have taken. Sums of them are kept, and the counters
#: of Redis have 64 bits: past those, no call of the provider could be booked any more.
_MOST_TOKENS = 10**9
_MOST_USD = 10.0**6


def parse_json(text: str) -> Any:
    """Decode JSON as RFC 8259 has it; whatever is wrong with ``text`` is a ValueError.

    Python's reader alone would take ``NaN`` and ``Infinity``, which no other reader takes from us,
    and would answer deep nesting with a RecursionError.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        msg = "nested too deeply"
        raise ValueError(msg) from None


def _not_a_number(constant: str) -> NoReturn:
    msg = f"{constant} is not JSON"
    raise ValueError(msg)


#: json.loads would make one for each text.
_DECODER = json.JSONDecoder(parse_constant=_not_a_number)


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object out of an answer of ``provider``; ``path`` is where in the answer it stands.

    A field that is missing and one that is ``null`` are the same. A field of another type than the
    reader expects is an UpstreamProtocolError that names its path. ``secret`` is masked in texts: a
    server that repeats what it was sent, as some do for debugging, would put the key into a result.
    """

    provider: str
    status: int
    values: JSON
    path: str = ""
    secret: str | None = field(default=None, repr=False)

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def text(self, key: str) -> str | None:
        """A string. Half a surrogate pair, which no UTF-8 can carry, becomes a question mark."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.fault(key, "a string")
        if not value.isascii():
            value = value.encode("utf-8", "replace").decode()
        return self._masked(value)

    def object_text(self, key: str) -> str | None:
        """An object as JSON text, or the text that stands in its place.

        A number too large for a double was read as infinity, which JSON does not have.
        """
        value = self.values.get(key)
        if not isinstance(value, dict):
            return self.text(key)
        try:
            return self._masked(json.dumps(value, allow_nan=False))
        except RecursionError:
            raise self.fault(key, "an object of a usual depth") from None
        except ValueError:
            raise self.fault(key, "an object with numbers of a usual size") from None

    def flag(self, key: str) -> bool | None:
        """True or false."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.fault(key, "true or false")
        return value

    def count(self, key: str) -> int | None:
        """A number of tokens; ``14.0`` is one, as some JSON writers have it.

        Anything else is no count: an answer that was paid for is not lost for its statistics.
        """
        value = self.values.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            return None
        return value if 0 <= value <= _MOST_TOKENS else None

    def amount(self, key: str) -> float | None:
        """A sum of money, as a number or as a decimal string; ``None`` for anything else."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        try:
            amount = float(value)
        except (ValueError, OverflowError):
            return None
        return amount if 0 <= amount <= _MOST_USD else None

    def child(self, key: str) -> Fields:
        """An object; an empty one stands for a missing one."""
        value = self.values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.fault(key, "an object")
        return self._part(value, self._path_of(key))

    def children(self, key: str) -> list[Fields]:
        """A list of objects; an empty list stands for a missing one."""
        value = self.values.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.fault(key, "a list")
        path = self._path_of(key)
        for index, item in enumerate(value):
            if not isinstance(item, dict):
                raise self._fault(f"{path}[{index}]", item, "an object")
        return [self._part(item, f"{path}[{index}]") for index, item in enumerate(value)]

    def unmasked(self) -> Fields:
        """The same without a mask, for a text that is a piece of one and is masked as a whole."""
        return Fields(self.provider, self.status, self.values, self.path)

    def fault(self, key: str, expected: str) -> UpstreamProtocolError:
        """The error for a field that is not what it should be."""
        return self._fault(self._path_of(key), self.values.get(key), expected)

    def _part(self, values: JSON, path: str) -> Fields:
        return Fields(self.provider, self.status, values, path, self.secret)

    def _masked(self, text: str) -> str:
        return text.replace(self.secret, "***") if self.secret else text

    def _path_of(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def _fault(self, path: str, value: object, expected: str) -> UpstreamProtocolError:
        found = "missing" if value is None else f"{_JSON_NAMES.get(type(value), 'a number')}"
        return UpstreamProtocolError(
            f"the answer of {self.provider} cannot be used: {path} is {found} instead of "
            f"{expected}; check that the base URL is that of {self.provider}",
            provider=self.provider,
            upstream_status=self.status,
        )


_JSON_NAMES: dict[type, str] = {
    str: "a string",
    bool: "a boolean",
    dict: "an object",
    list: "a list",
}
