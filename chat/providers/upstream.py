"""The way to a provider: one HTTP call, and every fault of it as an error of ``chat.errors``.

requests, urllib3 and sockets end here: whoever calls sees an answer or a ChatError.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from chat.addresses import is_loopback
from chat.errors import ChatError, InvalidRequest, UpstreamError, UpstreamProtocolError
from chat.keys import Secret
from chat.providers.attempt import Attempt
from chat.providers.classify import classify
from chat.providers.endpoint import Endpoint
from chat.providers.error_text import status_inside
from chat.providers.faults import AnswerTooLarge, network_error, stop_error
from chat.providers.fields import Fields, parse_json
from chat.providers.watchdog import StopReason, process_watchdog
from chat.types import JSON, Cancelled, Deadline

__all__ = ["Reply", "Upstream"]

_PIECE = 65536
_MIB = 1024 * 1024
_OK, _NOT_OK, _ERRORS = 200, 300, 400

#: As much of an error answer as is read: its status says most.
_MOST_ERROR_BYTES = _MIB

#: Values in one answer. Short ones take thirty times the memory of their text, once decoded.
_MOST_VALUES = 1_000_000
_SEPARATORS = (b",", b"[", b"{")

#: The watchdog ends a silent call at its deadline. This much later the socket would do it by
#: itself, so that even a mistake in the watchdog cannot hold a thread for ever.
_SILENCE_SLACK_S = 5.0


#: json.dumps would make one for each body.
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))

_NO_HEADERS: Mapping[str, str] = {}
_JSON_HEADERS = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer with a 2xx status and a JSON object; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    fields: Fields


class _RawReply(NamedTuple):
    """An answer as it came, with whatever status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Upstream:
    """Calls one provider over a pool of connections; JSON both ways; thread-safe.

    ``connect_timeout_s`` bounds connecting, TLS included, and ``max_body_bytes`` an answer. ``now``
    is the clock for hints that are dates, in seconds since the epoch. Proxies are taken from the
    environment as it is at the first call, except for an address of this very machine, which a
    proxy could not reach.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        secret: Secret | None = None,
        connect_timeout_s: float = 10.0,
        max_body_bytes: int = 32 * _MIB,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._base_url = base_url.rstrip("/")
        self._secret = secret
        self._connect_timeout_s = connect_timeout_s
        self._max_body_bytes = max_body_bytes
        self._now = now
        parts = urlsplit(self._base_url)
        self._host = parts.netloc
        self._endpoint = Endpoint(self._base_url, secret, direct=is_loopback(parts.hostname or ""))

    def __repr__(self) -> str:
        return f"Upstream({self.name!r}, {self._base_url!r})"

    def close(self) -> None:
        """Close the connections that no call uses now."""
        self._endpoint.close()

    def post(
        self,
        path: str,
        body: JSON,
        *,
        deadline: Deadline,
        cancelled: Cancelled,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send ``body`` to ``path`` under the base URL, exactly once, and return the 2xx answer.

        ``headers`` go with it, beside those that every request has. Nothing is repeated here, not
        even on a connection that the upstream had closed meanwhile: a call that went out may have
        been billed. Raises JobCancelled when ``cancelled`` is set, UpstreamTimeout when
        ``deadline`` passes, InvalidRequest if ``body`` cannot be written as JSON, and for
        everything else an UpstreamError, whose ``billed`` tells whether the request can have
        reached the upstream.
        """
        payload = _encoded(body)
        typed = {**_JSON_HEADERS, **headers} if headers else _JSON_HEADERS
        return self._call("POST", path, typed, payload, deadline, cancelled)

    def get(self, path: str, *, deadline: Deadline, cancelled: Cancelled) -> Reply:
        """Fetch ``path`` under the base URL, held to the same limits; raises what ``post`` does."""
        return self._call("GET", path, _NO_HEADERS, None, deadline, cancelled)

    def refusal(self, status: int, headers: Mapping[str, str], body: object) -> UpstreamError:
        """The error that an error answer stands for; ``body`` is decoded JSON, or text."""
        return classify(self.name, status, headers, body, now=self._now(), secret=self._key)

    @property
    def _key(self) -> str | None:
        return None if self._secret is None else self._secret.reveal()

    def _call(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        payload: bytes | None,
        deadline: Deadline,
        cancelled: Cancelled,
    ) -> Reply:
        remaining = deadline.remaining()
        if cancelled.is_set():
            raise self._stopped(StopReason.CANCELLED, cancelled, sent=False)
        if remaining <= 0:
            raise self._stopped(StopReason.DEADLINE, cancelled, sent=False)

        attempt = Attempt(
            process_watchdog(),
            connect_by=time.monotonic() + self._connect_timeout_s,
            deadline=deadline.at,
            silence_s=remaining + _SILENCE_SLACK_S,
        )
        cancelled.on_set(attempt.cancel)
        outcome: _RawReply | Exception
        with attempt:
            try:
                outcome = self._exchange(attempt, method, path, headers, payload)
            # requests lets some of urllib3's exceptions through; its own are OSErrors.
            except (OSError, urllib3.exceptions.HTTPError, AnswerTooLarge) as error:
                outcome = error
        fault = outcome if isinstance(outcome, Exception) else None
        # Only now is `stopped` final, and a body that was cut short can look complete.
        if attempt.stopped is not None:
            raise self._stopped(attempt.stopped, cancelled, sent=attempt.sent) from fault
        if isinstance(outcome, Exception):
            raise network_error(self.name, self._host, outcome, sent=attempt.sent) from fault
        return self._accepted(outcome)

    def _exchange(
        self,
        attempt: Attempt,
        method: str,
        path: str,
        headers: Mapping[str, str],
        payload: bytes | None,
    ) -> _RawReply:
        """One request and its answer; raises whatever requests and urllib3 raise."""
        connect_s = min(self._connect_timeout_s, attempt.silence_s)
        timeout = connect_s, attempt.silence_s
        response = self._endpoint.send(method, path, headers, payload, timeout)
        try:
            body = self._read(response)
        finally:
            response.close()
        names = {name.lower(): value for name, value in response.headers.items()}
        return _RawReply(response.status_code, names, body)

    def _read(self, response: requests.Response) -> bytes:
        """The body, piece by piece; as much of it as came, if the status tells enough."""
        status_tells = response.status_code >= _ERRORS
        limit = _MOST_ERROR_BYTES if status_tells else self._max_body_bytes
        body = bytearray()
        try:
            for piece in response.raw.stream(_PIECE, decode_content=True):
                body += piece
                _check(len(body), limit, "bytes")
            if len(body) > _MOST_VALUES:
                _check(sum(map(body.count, _SEPARATORS)), _MOST_VALUES, "values")
        except (urllib3.exceptions.HTTPError, AnswerTooLarge):
            if not status_tells:
                raise
        return bytes(body)

    def _accepted(self, raw: _RawReply) -> Reply:
        """The answer, read as JSON whatever its Content-Type; raises if it is an error after all.

        An error may hide in a 200 (OpenRouter docs, errors-and-debugging), with its status inside.
        """
        decoded = _decoded(raw.body)
        if not _OK <= raw.status < _NOT_OK:
            raise self.refusal(raw.status, raw.headers, decoded)
        if not isinstance(decoded, dict):
            kind = "not a JSON object" if raw.body.strip() else "empty"
            raise UpstreamProtocolError(
                f"{self.name} answered {raw.status} with a body that is {kind}; "
                f"check that the base URL is that of {self.name}",
                provider=self.name,
                upstream_status=raw.status,
            )
        if decoded.get("error"):
            raise self.refusal(status_inside(decoded["error"]), raw.headers, decoded)
        fields = Fields(self.name, raw.status, decoded, secret=self._key)
        return Reply(raw.status, raw.headers, fields)

    def _stopped(self, reason: StopReason, cancelled: Cancelled, *, sent: bool) -> ChatError:
        return stop_error(self.name, self._host, reason, why=cancelled.reason or "", sent=sent)


def _check(found: int, limit: int, what: str) -> None:
    if found > limit:
        raise AnswerTooLarge(f"{limit} {what}")


def _encoded(body: JSON) -> bytes:
    """``body`` as ASCII, so that half a surrogate pair in a prompt is no fault either."""
    try:
        return _ENCODER.encode(body).encode("ascii")
    except (ValueError, RecursionError):
        raise InvalidRequest(
            "the request cannot be written as JSON: it holds NaN or Infinity, or is nested too "
            "deeply; leave that out"
        ) from None


def _decoded(body: bytes) -> object:
    """The JSON value in a body, or its text if it is not JSON."""
    try:
        return parse_json(body.decode("utf-8-sig"))
    except ValueError:
        return body.decode("utf-8", "replace")
