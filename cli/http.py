"""Calls to chatd over HTTP, as commands make them: over one connection, with errors for people."""

from __future__ import annotations

from typing import Any, BinaryIO, ClassVar

import requests
from urllib3.exceptions import HTTPError

from chat.types import JSON
from cli.overview import plain
from cli.session import new_session

__all__ = ["PIECE", "CallError", "HttpClient", "Unavailable"]

#: Bytes that are in memory at a time.
PIECE = 64 * 1024

#: Seconds one call may take; a front end whose Redis is away needs a few to say so.
_TIMEOUT_S = 15
#: Seconds without a byte of a download.
_DOWNLOAD_TIMEOUT_S = 60

_OK = 200
_TOO_MANY = 429
_SERVER_ERROR = 500


class CallError(Exception):
    """A call that came to nothing; the message is one line and says why and what to do."""


class Unavailable(CallError):
    """No answer, or one that the same call may be spared later."""


class HttpClient:
    """Calls at the chatd at ``base``, over one connection.

    ``serves`` is what a chatd has to have that can answer them, for the message to who has found
    something else there.
    """

    serves: ClassVar[str]

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")
        self._session = new_session(base)

    def call(self, method: str, path: str, **options: Any) -> JSON:
        """The object that a call answers with 2xx. Raises ``CallError``."""
        response = self._send(method, path, **options)
        if not response.ok:
            raise self._refusal(response)
        try:
            answer = response.json()
        except requests.JSONDecodeError as error:
            raise self.stranger() from error
        if not isinstance(answer, dict):
            raise self.stranger()
        return answer

    def fetch(self, path: str, out: BinaryIO, what: str, **options: Any) -> None:
        """Write what a call answers to ``out``. Raises ``CallError`` if it does not come whole.

        ``what`` is its name in messages. What ``out`` raises goes through.
        """
        # Not compressed on the way: the length that is announced is then that of what is written.
        headers = {"Accept-Encoding": "identity"}
        with self._send(
            "GET", path, stream=True, headers=headers, timeout=_DOWNLOAD_TIMEOUT_S, **options
        ) as response:
            if response.status_code != _OK:
                raise self._refusal(response)
            count = 0
            try:
                for piece in response.iter_content(PIECE):
                    out.write(piece)
                    count += len(piece)
            except requests.RequestException as error:
                raise CallError(
                    f"{self.base} broke off in {what} after {count} bytes "
                    f"({type(error).__name__}); try again"
                ) from error

    def stranger(self) -> CallError:
        """The error of an answer that is none of chatd's."""
        return CallError(
            f"{self.base} answers, but is not a chatd with {self.serves}; look at --url"
        )

    def _send(self, method: str, path: str, **options: Any) -> requests.Response:
        options = {"timeout": _TIMEOUT_S, **options}
        try:
            return self._session.request(
                method, f"{self.base}{path}", allow_redirects=False, **options
            )
        # requests lets some of urllib3's own through, such as that of a host with a label too long.
        except (requests.RequestException, HTTPError) as error:
            raise Unavailable(
                f"{self.base} does not answer ({type(error).__name__}); is `chatd up` running?"
            ) from error

    def _refusal(self, response: requests.Response) -> CallError:
        """What an answer other than 2xx means."""
        later = response.status_code == _TOO_MANY or response.status_code >= _SERVER_ERROR
        kind = Unavailable if later else CallError
        try:
            answer = response.json()
        except requests.JSONDecodeError:
            answer = None
        except requests.RequestException as error:
            return Unavailable(f"{self.base} broke off in its answer ({type(error).__name__})")
        match answer:
            case {"error": {"code": str(code), "message": str(message)}}:
                return kind(plain(f"{code}: {message}"))
        if later:
            return kind(f"{self.base} answers {response.status_code} and does not say why")
        return self.stranger()
