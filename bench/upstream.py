"""A scripted model server for load and fault runs: Ollama's and OpenAI's wire on one port.

It answers each call with the caller's own question, so that an answer can be matched to its
request, and counts every call by question, so that a call beyond one per job cannot hide. It may
have limits of its own (``bench.limits``), and then logs every call with what became of it. One
asyncio loop holds thousands of calls at once; run it in a thread (``Upstream``) or as a process
(``python -m bench.upstream PORT [DELAY_S]``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from bench.limits import Limit, NoLimit
from cli.redis_server import free_port

__all__ = ["Conduct", "Seen", "Upstream", "wire_answer"]

_REASONS = {
    200: "OK",
    404: "Not Found",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


_HALF_BODY = b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"model": "m", '
#: Closing a socket with this makes it a reset, and discards what was not sent.
_NO_LINGER = struct.pack("ii", 1, 0)
#: Seconds between half an answer and its reset: the half has to arrive, or it is none.
_HALF_S = 0.01


class Conduct(NamedTuple):
    """What becomes of one call: after ``delay_s`` seconds its ``end``.

    ``answer``, ``reset`` of the connection in the middle of the body, or ``silence`` until the
    caller hangs up.
    """

    delay_s: float
    end: str = "answer"


@dataclass(slots=True)
class Seen:
    """A call as the upstream saw it; times are monotonic seconds.

    ``status`` is 200 for a call that was accepted, ``running`` the number of accepted calls at that
    moment, this one among them. ``ended_at`` is set when an accepted call was answered or dropped,
    and ``became`` says which: ``answered``, ``reset`` or ``dropped`` by its caller; empty before.
    """

    at: float
    question: str
    model: str
    status: int
    running: int
    retry_after: str | None = None
    ended_at: float | None = None
    became: str = ""

    @property
    def accepted(self) -> bool:
        """Whether no limit refused it."""
        return self.status == 200


@dataclass
class Upstream:
    """What the server does (``delay_s``, ``hold``, ``reply``, ``limits``) and what it has seen.

    ``conduct`` tells of each question what becomes of its call, in place of ``delay_s``; the
    server's thread asks it in the order of arrival. ``limits`` has limits by a glob that model ids
    match, of which the first counts; put another dictionary in its place to change them while it
    runs. A call that a limit refuses is answered at once. ``calls`` counts by question.
    ``answered`` counts whole answers sent, ``dropped`` the calls whose client went away first;
    ``dropped_at`` has the moment (monotonic seconds) by question. ``log`` has every call in the
    order of arrival.
    """

    delay_s: float = 0.0
    half_body: bool = False
    tls: ssl.SSLContext | None = None
    reply: Callable[[str, dict[str, Any]], tuple[int, Any] | None] = lambda _path, _body: None
    limits: Mapping[str, Limit] = field(default_factory=dict)
    conduct: Callable[[str], Conduct] | None = None
    calls: Counter[str] = field(default_factory=Counter)
    log: list[Seen] = field(default_factory=list)
    dropped_at: dict[str, float] = field(default_factory=dict)
    answered: int = 0
    dropped: int = 0
    in_flight: int = 0
    peak: int = 0
    port: int = 0
    host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        self._gate = threading.Event()
        self._gate.set()
        self._opened: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None

    # -- control, from any thread

    def start(self, port: int = 0) -> Upstream:
        """Serve in a thread of its own."""
        ready = threading.Event()
        port = port or free_port()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self.serve(port, ready)), name="upstream", daemon=True
        )
        self._thread.start()
        ready.wait(10)
        return self

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http{'s' if self.tls else ''}://{self.host}:{self.port}"

    def hold(self) -> None:
        """Answer nothing from now on."""
        self._gate.clear()
        self._call("_opened", "clear")

    def release(self) -> None:
        """Answer everything that is held, and all that follows."""
        self._gate.set()
        self._call("_opened", "set")

    def stop(self) -> None:
        """Close the port and every connection."""
        self._call("_stopped", "set")
        self._thread.join(10)

    def _call(self, event: str, method: str) -> None:
        if self._loop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(getattr(getattr(self, event), method))

    # -- the server

    async def serve(self, port: int, ready: threading.Event | None = None) -> None:
        """Serve until ``stop``."""
        self._loop = asyncio.get_running_loop()
        self._opened, self._stopped = asyncio.Event(), asyncio.Event()
        if self._gate.is_set():
            self._opened.set()
        server = await asyncio.start_server(
            self._connection, self.host, port, ssl=self.tls, backlog=4096, limit=64 << 20
        )
        self.port = server.sockets[0].getsockname()[1]
        if ready is not None:
            ready.set()
        async with server:
            await self._stopped.wait()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line, *lines = head.decode("latin-1").split("\r\n")
                method, path, _ = line.split(" ")
                headers = dict(h.lower().split(": ", 1) for h in lines if ": " in h)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if method == "GET":
                    self._send(writer, *self._list(path))
                else:
                    await self._chat(path, json.loads(body), reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, ssl.SSLError):
            pass  # The client has closed its connection, or this server is stopping.
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def _chat(
        self,
        path: str,
        body: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        question = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        self.calls[question] += 1
        limit, now = self._limit(body["model"]), time.monotonic()
        refusal = limit.refusal(now)
        if refusal is not None:
            self.log.append(
                Seen(
                    now,
                    question,
                    body["model"],
                    refusal.status,
                    self.in_flight,
                    refusal.retry_after,
                )
            )
            self._send(writer, refusal.status, refusal.body(path), refusal.headers)
            return
        limit.begin(now)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        seen = Seen(now, question, body["model"], 200, self.in_flight)
        self.log.append(seen)
        if self.half_body:
            writer.write(_HALF_BODY)
        conduct = None if self.conduct is None else self.conduct(question)
        try:
            if conduct or self.delay_s or not self._gate.is_set():
                await self._wait_or_gone(question, reader, conduct)
            seen.became = "reset" if conduct and conduct.end == "reset" else "answered"
        finally:
            self.in_flight -= 1
            seen.ended_at = time.monotonic()
            seen.became = seen.became or "dropped"
            limit.end(seen.ended_at)
        if seen.became == "reset":
            await _reset(writer)
        status, answer = self.reply(path, body) or (
            200,
            wire_answer(path, body["model"], f"echo: {question}"),
        )
        self._send(writer, status, answer)
        self.answered += 1

    def _limit(self, model: str) -> Limit:
        found = (limit for glob, limit in self.limits.items() if fnmatchcase(model, glob))
        return next(found, NoLimit())

    async def _wait_or_gone(
        self, question: str, reader: asyncio.StreamReader, conduct: Conduct | None
    ) -> None:
        """Wait as told, unless the client closes the connection first."""
        assert self._opened is not None
        assert self._stopped is not None
        opened, stopped = self._opened, self._stopped

        async def wait() -> None:
            await opened.wait()
            if conduct and conduct.end == "silence":
                await stopped.wait()
            await asyncio.sleep(conduct.delay_s if conduct else self.delay_s)

        waiting = asyncio.ensure_future(wait())
        gone = asyncio.ensure_future(reader.read(1))
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            waiting.cancel()
            self.dropped += 1
            self.dropped_at[question] = time.monotonic()
            message = "the client has gone"
            raise ConnectionResetError(message)
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone

    def _list(self, path: str) -> tuple[int, object]:
        if path == "/stats":
            return 200, {
                "calls": self.calls.total(),
                "questions": len(self.calls),
                "repeated": sum(n - 1 for n in self.calls.values()),
                "answered": self.answered,
                "dropped": self.dropped,
            }
        return 200, {"models": [{"name": "echo:latest", "model": "echo:latest"}]}

    def _send(
        self,
        writer: asyncio.StreamWriter,
        status: int,
        answer: object,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        body = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)


async def _reset(writer: asyncio.StreamWriter) -> None:
    """Send half an answer and break the connection. Raises ``ConnectionResetError``."""
    writer.write(_HALF_BODY)
    await writer.drain()
    await asyncio.sleep(_HALF_S)
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()
    message = "reset in mid-body, as told"
    raise ConnectionResetError(message)


def wire_answer(path: str, model: str, content: str) -> dict[str, Any]:
    """An answer with ``content`` in the wire form of the API that ``path`` belongs to."""
    counts = {"prompt_eval_count": 7, "eval_count": 3, "done": True, "done_reason": "stop"}
    if path.endswith("/api/generate"):
        return {"model": model, "response": content, **counts}
    if path.endswith("/api/chat"):
        return {"model": model, "message": {"role": "assistant", "content": content}, **counts}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content},
        "finish_reason": "stop",
    }
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return {
        "id": "gen-1",
        "object": "chat.completion",
        "model": model,
        "choices": [choice],
        "usage": usage,
    }


if __name__ == "__main__":
    asyncio.run(Upstream(delay_s=float((sys.argv[2:] or ["0"])[0])).serve(int(sys.argv[1])))
