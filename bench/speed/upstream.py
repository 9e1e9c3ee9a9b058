"""A model server that costs next to nothing, so that a table shows what stands before it.

    python -m bench.speed.upstream PORT [DELAY_S]

It speaks Ollama's and OpenAI's wire on one port and answers each call with the caller's own
question, DELAY_S seconds after the call is there whole. It has no faults and no limits
(``bench.upstream`` has). GET /stats says how many calls it has seen, how many questions came more
than once, how many were answered and how many of their callers had gone.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any, cast

import uvloop

from bench.processes import allow_descriptors
from bench.programs import ModelServer
from bench.speed.framing import message

__all__ = ["UpstreamProcess"]

_HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_OLLAMA = (
    b'{"model":%b,"message":{"role":"assistant","content":%b},"done":true,"done_reason":"stop",'
    b'"prompt_eval_count":7,"eval_count":3}'
)
_OPENAI = (
    b'{"id":"gen-1","object":"chat.completion","created":1760000000,"model":%b,"choices":[{"index":'
    b'0,"message":{"role":"assistant","content":%b},"finish_reason":"stop"}],"usage":'
    b'{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}'
)
_FORMS = {
    b"/api/chat": _OLLAMA,
    b"/v1/chat/completions": _OPENAI,
    b"/chat/completions": _OPENAI,
}
_LISTS: dict[bytes, Any] = {
    b"/api/tags": {"models": [{"name": "echo:latest", "model": "echo:latest"}]},
    b"/v1/models": {"object": "list", "data": [{"id": "echo", "object": "model"}]},
}


class _Server:
    """What all connections share: the answers that are not due yet, and the counts.

    The delay is the same for all calls, so that answers fall due in the order of the calls, and one
    timer is enough. It never fires early; what falls due within a millisecond leaves together.
    """

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._due: deque[tuple[float, asyncio.Transport, bytes]] = deque()
        self._asked: Counter[str] = Counter()
        self._answered = self._dropped = 0

    def call(self, form: bytes, body: bytes, transport: asyncio.Transport) -> None:
        """Take a call whose answer has this form."""
        asked = json.loads(body)
        question = asked["messages"][-1]["content"]
        self._asked[question] += 1
        answer = form % (_encoded(asked["model"]), _encoded(f"echo: {question}"))
        if not self._delay_s:
            self._send(transport, answer)
            return
        self._due.append((time.monotonic() + self._delay_s, transport, answer))
        if len(self._due) == 1:
            self._sleep()

    def stats(self) -> dict[str, int]:
        """The counts so far."""
        calls = self._asked.total()
        return {
            "calls": calls,
            "repeated": calls - len(self._asked),
            "answered": self._answered,
            "dropped": self._dropped,
        }

    def _sleep(self) -> None:
        # The loop rounds to milliseconds, to the nearest one; a rest below half of one would spin.
        rest_ms = math.ceil((self._due[0][0] - time.monotonic()) * 1000)
        asyncio.get_running_loop().call_later(max(rest_ms, 1) / 1000, self._wake)

    def _wake(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, transport, answer = self._due.popleft()
            self._send(transport, answer)
        if self._due:
            self._sleep()

    def _send(self, transport: asyncio.Transport, answer: bytes) -> None:
        if transport.is_closing():
            self._dropped += 1
            return
        self._answered += 1
        transport.write(_HEAD % (b"200 OK", len(answer)) + answer)


class _Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        # uvloop's transports have asyncio's methods, not its classes.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        buffer = self._buffer + data if self._buffer else data
        while (found := message(buffer)) is not None:
            head, body, buffer = found
            path = head.split(b" ", 2)[1]
            if path in _FORMS:
                self._server.call(_FORMS[path], body, self._transport)
            else:
                self._tell(path)
        self._buffer = buffer

    def _tell(self, path: bytes) -> None:
        told = self._server.stats() if path == b"/stats" else _LISTS.get(path)
        answer = json.dumps(told if told is not None else {"error": "no such path"}).encode()
        status = b"200 OK" if told is not None else b"404 Not Found"
        self._transport.write(_HEAD % (status, len(answer)) + answer)


class UpstreamProcess(ModelServer):
    """The upstream as a process of its own."""

    def __init__(self, folder: Path, port: int, delay_s: float) -> None:
        super().__init__("bench.speed.upstream", folder, port, str(delay_s))
        self.delay_s = delay_s


def _encoded(text: str) -> bytes:
    return json.dumps(text).encode()


async def _serve(port: int, delay_s: float) -> None:
    server = _Server(delay_s)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(
        lambda: _Connection(server), "127.0.0.1", port, backlog=4096
    )
    print(f"listens on {port}", flush=True)
    async with listener:
        await listener.serve_forever()


if __name__ == "__main__":
    allow_descriptors()
    uvloop.run(_serve(int(sys.argv[1]), float((sys.argv[2:] or ["0"])[0])))
