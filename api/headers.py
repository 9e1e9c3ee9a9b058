"""What callers say in headers: how long they wait, which call is which."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Self

from werkzeug.datastructures import Headers
from werkzeug.http import parse_list_header

from chat.errors import InvalidRequest
from chat.follower import START, Place
from chat.formats.strict_json import shown

__all__ = [
    "EVENT_ID",
    "NOTHING",
    "RESPOND_ASYNC",
    "Position",
    "Preference",
    "idempotency_key",
    "last_event",
    "request_id",
]

#: The preference of a caller who does not wait.
RESPOND_ASYNC = "respond-async"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]{1,255}")
_DELTA_SECONDS = re.compile(r"[0-9]{1,9}")
#: The id of an event: a piece's, that of one made of the whole answer behind it, that of an end.
EVENT_ID = r"^(([0-9]{1,9})-([0-9]{1,9})(\.([0-9]{1,4}))?|end-([0-9]))?$"
_EVENT_ID = re.compile(EVENT_ID)


@dataclass(frozen=True, slots=True)
class Preference:
    """How long a caller wants to wait (RFC 7240, sections 4.1 and 4.3).

    ``wait_s`` is ``None`` for a caller who waits until the job ends; 0 for an answer at once.
    ``applied`` is what ``Preference-Applied`` says.
    """

    wait_s: int | None = None
    applied: str | None = None

    @classmethod
    def from_headers(cls, headers: Headers) -> Self:
        """Read every ``Prefer`` header; what is malformed or unknown is ignored, as the RFC asks.

        ``respond-async`` together with ``wait=N`` means: wait N seconds, then answer 202.
        """
        if "Prefer" not in headers:
            return cls()
        found: dict[str, str] = {}
        for preference in parse_list_header(", ".join(headers.getlist("Prefer"))):
            name, _, value = preference.partition(";")[0].partition("=")
            # "If any preference is specified more than once, only the first instance counts."
            found.setdefault(name.strip().lower(), value.strip().strip('"'))
        if _DELTA_SECONDS.fullmatch(found.get("wait", "")):
            return cls(int(found["wait"]), f"wait={int(found['wait'])}")
        if found.get(RESPOND_ASYNC) == "":
            return cls(0, RESPOND_ASYNC)
        return cls()


@dataclass(frozen=True, slots=True)
class Position:
    """How far a client has come in a stream.

    It has had all up to ``piece``, then ``rest`` pieces that were made of the whole answer, then
    ``ends`` of the events at the end.
    """

    piece: Place = START
    rest: int = 0
    ends: int = 0


#: Before the first event.
NOTHING = Position()


def last_event(headers: Headers) -> Position:
    """What ``Last-Event-ID`` says that the caller has had. Raises ``InvalidRequest``."""
    given = headers.get("Last-Event-ID", "")
    if not given:
        return NOTHING
    found = _EVENT_ID.fullmatch(given)
    if found is None:
        raise InvalidRequest(
            f"Last-Event-ID is {shown(given)}, but must be the id of the last event that came, "
            "such as 1-57, 1-57.1 or end-0; send that, or none to begin at the beginning",
            param="Last-Event-ID",
        )
    _, attempt, number, _, rest, end = found.groups()
    if end is not None:
        return Position(ends=int(end) + 1)
    return Position(Place(int(attempt), int(number)), int(rest or 0))


def idempotency_key(headers: Headers) -> str | None:
    """The caller's ``Idempotency-Key``, if there is one. Raises ``InvalidRequest``."""
    key = headers.get("Idempotency-Key")
    if key is None:
        return None
    if _VISIBLE_ASCII.fullmatch(key) is None:
        # The key itself stays out of the message: it may be a secret of the caller's.
        raise InvalidRequest(
            f"the Idempotency-Key of {len(key)} characters is not 1 to 255 visible ASCII "
            "characters; send such a key, for example a UUID",
            param="Idempotency-Key",
        )
    return key


def request_id(headers: Headers) -> str:
    """The caller's ``X-Request-Id`` if it can stand in a log line, else a new one."""
    given = headers.get("X-Request-Id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return f"req_{os.urandom(16).hex()}"
