"""A client that asks for one stream over a socket of its own, and leaves it as it is told."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

from bench.streams.decoding import Response
from bench.streams.reading import Form, Reading

__all__ = ["Follower", "request"]

#: Closing a socket with this makes it a reset.
_NO_LINGER = struct.pack("ii", 1, 0)


def request(
    url: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """A request of HTTP/1.1."""
    lines = {"Host": urlsplit(url).netloc, "Content-Type": "application/json", **(headers or {})}
    if method == "POST":
        lines["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


class Follower:
    """One request and what comes of it, in ``response`` and ``reading``.

    Methods that read raise ``TimeoutError`` when nothing comes for ``patience_s`` seconds.
    ``began`` is the moment at which the request left, ``closed_at`` that at which it was left.
    """

    def __init__(self, url: str, sent: bytes, reading: Reading, *, patience_s: float = 60) -> None:
        self.response = Response()
        self.reading = reading
        self.closed_at = 0.0
        self.broke = False
        parts = urlsplit(url)
        address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._socket = socket.create_connection(address, timeout=patience_s)
        self.began = time.monotonic()
        self._socket.sendall(sent)

    @classmethod
    def asking(
        cls,
        url: str,
        form: Form,
        question: str,
        *,
        headers: Mapping[str, str] | None = None,
        patience_s: float = 60,
        **fields: Any,
    ) -> Self:
        """One that asks a question."""
        sent = request(url, "POST", form.path, form.body(question, **fields), headers)
        return cls(url, sent, Reading(form.format), patience_s=patience_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def job_id(self) -> str:
        """The job behind it, as the head of the response names it."""
        return self.response.headers.get("x-chatd-job-id", "")

    @property
    def over(self) -> bool:
        """Whether no more will come."""
        return self.response.over or self.broke

    def refusal(self) -> dict[str, Any]:
        """The error that was answered in place of a stream."""
        found: dict[str, Any] = json.loads(self.response.body)["error"]
        return found

    def until(self, reached: Callable[[Reading], bool]) -> None:
        """Read until the reading is so far, or no more comes."""
        while not self.over and not reached(self.reading):
            self._read()

    def rest(self) -> None:
        """Read to the end."""
        self.until(lambda _: False)

    def close(self, *, reset: bool = False) -> None:
        """Hang up, with a reset or in an orderly way."""
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.closed_at = time.monotonic()
        self._socket.close()

    def _read(self) -> None:
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            self.broke = True
            return
        if not data:
            self.response.closed()
            self.broke = not self.response.over
            return
        for event in self.response.feed(data):
            self.reading.take(event)
