"""An upstream whose answers are here already, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from chat.providers.attempt import Attempt
from chat.providers.upstream import Upstream
from tests.wire.providers import NOW, SECRETS

__all__ = ["CannedUpstream"]


class CannedUpstream(Upstream):
    """Answers each request with ``pieces``, read one by one; ``asked`` has what was sent."""

    def __init__(self, name: str, pieces: Sequence[bytes] = (), *, status: int = 200) -> None:
        super().__init__(name, "http://upstream.invalid", secret=SECRETS[name], now=lambda: NOW)
        self.pieces = pieces
        self.status = status
        self.asked: list[bytes] = []
        self._endpoint.send = self._answer  # type: ignore[method-assign,assignment]

    def _answer(self, _method: str, _path: str, _headers: object, body: bytes, _: object) -> Any:
        self.asked.append(body)
        attempt = Attempt.current()
        assert attempt is not None
        attempt.sent = True
        return _Answer(self.status, self.pieces)


class _Answer:
    """What is read of an answer of requests, and of that of urllib3 in it."""

    def __init__(self, status: int, pieces: Sequence[bytes]) -> None:
        self.status_code = status
        self.headers: dict[str, str] = {}
        self.raw = self
        self._pieces = iter(pieces)

    def stream(self, _size: int, *, decode_content: bool) -> Iterator[bytes]:
        assert decode_content
        return self._pieces

    def read1(self, _size: int, *, decode_content: bool) -> bytes:
        assert decode_content
        return next(self._pieces, b"")

    def close(self) -> None:
        """Nothing: no connection was opened."""
