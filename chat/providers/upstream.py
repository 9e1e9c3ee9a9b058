"""The way to a provider: one HTTP call, and every fault of it as an error of ``chat.errors``.

requests, urllib3 and sockets end here: whoever calls sees an answer or a ChatError.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from chat.addresses import is_loopback
from chat.errors import ChatError, InvalidRequest, UpstreamError, UpstreamProtocolError
from chat.keys import Secret
from chat.providers.assembly import Assembly
from chat.providers.attempt import Attempt
from chat.providers.bounded import as_it_comes
from chat.providers.classify import classify
from chat.providers.endpoint import Endpoint
from chat.providers.error_text import status_inside
from chat.providers.faults import AnswerCut, network_error, stop_error
from chat.providers.fields import Fields, parse_json
from chat.providers.limits import AnswerTooLarge, check_size, check_values
from chat.providers.records import FAULTS, RecordReader
from chat.providers.watchdog import StopReason, process_watchdog
from chat.types import JSON, Cancelled, Deadline

__all__ = ["Reply", "Upstream"]

_PIECE = 65536
_MIB = 1024 * 1024
_OK, _NOT_OK, _ERRORS = 200, 300, 400

#: As much of an error answer as is read: its status says most.
_MOST_ERROR_BYTES = _MIB

#: The watchdog ends a silent call at its deadline. This much later the socket would do it by
#: itself, so that even a mistake in the watchdog cannot hold a thread for ever.
_SILENCE_SLACK_S = 5.0

#: Seconds for which the end of a body is waited for when the answer in it is there already: its
#: connection can be used again then, and OpenCode says what the call has cost.
_END_WITHIN_S = 1.0

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


_Outcome = TypeVar("_Outcome", bound=_RawReply | Reply)


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
        exchange = partial(self._exchange, "POST", path, _typed(headers), _encoded(body))
        return self._accepted(self._call(exchange, deadline, cancelled))

    def stream(
        self,
        path: str,
        body: JSON,
        assembly: Assembly,
        *,
        deadline: Deadline,
        cancelled: Cancelled,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send ``body`` as ``post`` does, but ask for the answer piece by piece.

        Each record goes to ``assembly`` as soon as it is there, and what is returned is all of them
        together. If the upstream answers with one JSON object all the same, that is returned, and
        ``assembly`` is given nothing. Raises what ``post`` does, also after some records.
        """
        payload = _encoded({**body, "stream": True})
        exchange = partial(self._follow, path, _typed(headers), payload, assembly)
        outcome = self._call(exchange, deadline, cancelled)
        return outcome if isinstance(outcome, Reply) else self._accepted(outcome)

    def get(self, path: str, *, deadline: Deadline, cancelled: Cancelled) -> Reply:
        """Fetch ``path`` under the base URL, held to the same limits; raises what ``post`` does."""
        exchange = partial(self._exchange, "GET", path, _NO_HEADERS, None)
        return self._accepted(self._call(exchange, deadline, cancelled))

    def refusal(self, status: int, headers: Mapping[str, str], body: object) -> UpstreamError:
        """The error that an error answer stands for; ``body`` is decoded JSON, or text."""
        return classify(self.name, status, headers, body, now=self._now(), secret=self._key)

    @property
    def _key(self) -> str | None:
        return None if self._secret is None else self._secret.reveal()

    def _call(
        self, exchange: Callable[[Attempt], _Outcome], deadline: Deadline, cancelled: Cancelled
    ) -> _Outcome:
        """What ``exchange`` brings, unless it is stopped; its faults as errors of our own."""
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
        outcome: _Outcome | Exception
        with attempt:
            try:
                outcome = exchange(attempt)
            except (*FAULTS, AnswerCut, UpstreamError) as error:
                outcome = error
        fault = outcome if isinstance(outcome, Exception) else None
        # Only now is `stopped` final, and a body that was cut short can look complete. Not so one
        # whose last record has come: that is an answer, unless nobody wants one any more.
        answered = isinstance(outcome, Reply) and attempt.stopped is not StopReason.CANCELLED
        if attempt.stopped is not None and not answered:
            raise self._stopped(attempt.stopped, cancelled, sent=attempt.sent) from fault
        if isinstance(outcome, UpstreamError):
            raise outcome
        if isinstance(outcome, Exception):
            raise network_error(self.name, self._host, outcome, sent=attempt.sent) from fault
        return outcome

    def _exchange(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        payload: bytes | None,
        attempt: Attempt,
    ) -> _RawReply:
        """One request and its answer; raises whatever requests and urllib3 raise."""
        response = self._send(method, path, headers, payload, attempt)
        try:
            return _raw(response, self._read(response))
        finally:
            response.close()

    def _follow(
        self,
        path: str,
        headers: Mapping[str, str],
        payload: bytes,
        assembly: Assembly,
        attempt: Attempt,
    ) -> _RawReply | Reply:
        """The same for an answer that comes piece by piece, unless it comes as a whole.

        Raises what ``RecordReader.read`` does as well.
        """
        response = self._send("POST", path, headers, payload, attempt)
        try:
            raw = _raw(response, b"")
            if not _OK <= raw.status < _NOT_OK:
                return raw._replace(body=self._read(response))
            blank = Fields(self.name, raw.status, {}, secret=self._key)
            whole = RecordReader(
                assembly,
                blank,
                self._max_body_bytes,
                refusal=partial(self._refused, raw),
                answered=partial(attempt.answered, _END_WITHIN_S),
            ).read(as_it_comes(response.raw))
        finally:
            response.close()
        if whole is not None:
            check_values(whole)
            return raw._replace(body=whole)
        return Reply(raw.status, raw.headers, replace(blank, values=assembly.whole()))

    def _send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        payload: bytes | None,
        attempt: Attempt,
    ) -> requests.Response:
        """One request, and the answer with its body unread."""
        connect_s = min(self._connect_timeout_s, attempt.silence_s)
        timeout = connect_s, attempt.silence_s
        return self._endpoint.send(method, path, headers, payload, timeout)

    def _read(self, response: requests.Response) -> bytes:
        """The body, piece by piece; as much of it as came, if the status tells enough."""
        status_tells = response.status_code >= _ERRORS
        limit = _MOST_ERROR_BYTES if status_tells else self._max_body_bytes
        body = bytearray()
        try:
            for piece in response.raw.stream(_PIECE, decode_content=True):
                body += piece
                check_size(len(body), limit, "bytes")
            check_values(body)
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
            raise self._refused(raw, decoded)
        fields = Fields(self.name, raw.status, decoded, secret=self._key)
        return Reply(raw.status, raw.headers, fields)

    def _refused(self, raw: _RawReply, decoded: JSON) -> UpstreamError:
        """The error inside a 2xx answer."""
        return self.refusal(status_inside(decoded["error"]), raw.headers, decoded)

    def _stopped(self, reason: StopReason, cancelled: Cancelled, *, sent: bool) -> ChatError:
        return stop_error(self.name, self._host, reason, why=cancelled.reason or "", sent=sent)


def _typed(headers: Mapping[str, str] | None) -> Mapping[str, str]:
    return {**_JSON_HEADERS, **headers} if headers else _JSON_HEADERS


def _raw(response: requests.Response, body: bytes) -> _RawReply:
    names = {name.lower(): value for name, value in response.headers.items()}
    return _RawReply(response.status_code, names, body)


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
