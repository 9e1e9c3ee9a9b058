"""One base URL and the requests that go there, with all that is settled before the first call.

A session of requests asks anew for every call what the environment says of proxies and
authorities, looks for cookies and .netrc, and goes through hooks and redirects. All of that takes
longer than the call. Here the first call to a path settles it, and those that follow are handed to
requests' adapter, which is what makes the call in a session too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

import requests
from requests.auth import AuthBase

from chat.keys import Secret
from chat.providers.connection import StoppableAdapter

__all__ = ["Endpoint"]

#: Connections kept per host, of those that calls have needed at the same time. More calls than this
#: at once work too, on connections of their own, which are as dear as the call.
_POOL_SIZE = 1024


def _version() -> str:
    try:
        return metadata.version("chatd")
    except metadata.PackageNotFoundError:
        return "0"


_HEADERS = {
    "Accept": "application/json",
    # A compressed answer that was cut short is one more way for half an answer to look whole.
    "Accept-Encoding": "identity",
    "User-Agent": f"chatd/{_version()}",
}


class _Bearer(AuthBase):
    """Puts the key into the Authorization header.

    An auth object rather than a header, since a name and a password in a URL replace a header. For
    the same reason it is there without a key as well.
    """

    def __init__(self, secret: Secret | None) -> None:
        self._secret = secret

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._secret is not None:
            request.headers["Authorization"] = f"Bearer {self._secret.reveal()}"
        return request


@dataclass(frozen=True, slots=True)
class _Target:
    """A method at a URL: what requests makes of both, once for all calls.

    ``verify`` is the path of a bundle of authorities, or true for those that come with requests.
    """

    method: str
    url: str
    headers: Mapping[str, str | bytes]
    verify: bool | str
    proxies: dict[str, str]

    def request(self, headers: Mapping[str, str], body: bytes | None) -> requests.PreparedRequest:
        """The request of one call; ``headers`` go beside those of every call."""
        merged = {**self.headers, **headers}
        if body is not None:
            merged["Content-Length"] = str(len(body))
        request = requests.PreparedRequest()
        request.method, request.url, request.body = self.method, self.url, body
        # Only for looking up without regard to case, which nobody does, requests has its own type;
        # copying one takes ten times as long.
        request.headers = merged  # type: ignore[assignment]
        return request


class Endpoint:
    """Sends requests to paths under ``base_url``; thread-safe.

    No answer is followed to another address: the key and the prompt would go with it. No cookie is
    kept, since calls of different people go out from here. Proxies and the bundle of authorities
    are those of the environment when a path is first asked for; with ``direct`` there is no proxy.
    """

    def __init__(self, base_url: str, secret: Secret | None, *, direct: bool) -> None:
        self._base_url = base_url
        self._auth = _Bearer(secret)
        self._direct = direct
        self._adapter = StoppableAdapter(pool_maxsize=_POOL_SIZE)
        # Of two threads that come first both settle the same.
        self._targets: dict[tuple[str, str], _Target] = {}

    def close(self) -> None:
        """Close the connections that no call uses now."""
        self._adapter.close()

    def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: tuple[float, float],
    ) -> requests.Response:
        """Send one request and return its answer with the body unread.

        ``timeout`` is for connecting and for silence, in seconds. Raises what requests' adapter
        raises, and what requests raises for a URL that is none.
        """
        target = self._targets.get((method, path))
        if target is None:
            target = self._targets[method, path] = self._settled(method, path)
        return self._adapter.send(
            target.request(headers, body),
            stream=True,
            timeout=timeout,
            verify=target.verify,
            proxies=target.proxies,
        )

    def _settled(self, method: str, path: str) -> _Target:
        prepared = requests.Request(
            method, f"{self._base_url}{path}", headers=_HEADERS, auth=self._auth
        ).prepare()
        url = prepared.url or ""
        with requests.Session() as session:
            settings = session.merge_environment_settings(
                url, {"http": "", "https": ""} if self._direct else {}, None, None, None
            )
        headers = dict(prepared.headers)
        # That of a call without body, which requests counts as one of no bytes.
        headers.pop("Content-Length", None)
        return _Target(method, url, headers, settings["verify"], settings["proxies"])
