"""A model server that streams at a set pace and writes down when each piece has left.

    python -m bench.streams.upstream PORT

It speaks Ollama's and OpenAI's wire on one port; what it says, how fast, and what goes wrong with
it stands in the question (``bench.streams.script``). GET /calls tells of each call by the name of
its script, with monotonic times, which all processes of a machine share; GET /calls/NAME of one.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote

import requests
import uvloop

from bench.processes import allow_descriptors
from bench.programs import ModelServer
from bench.speed.framing import message
from bench.streams.answers import WIRES, Wire
from bench.streams.script import Script

__all__ = ["Call", "StreamUpstream"]

_HEAD = b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\n"
_LISTS: dict[str, Any] = {
    "/api/tags": {"models": [{"name": "echo:latest", "model": "echo:latest"}]},
    "/v1/models": {"object": "list", "data": [{"id": "echo", "object": "model"}]},
}


@dataclass(slots=True)
class Call:
    """A call as the upstream saw it.

    ``sent`` has the moment at which each piece left. ``became`` is ``answered``, ``failed`` as the
    script has it, or ``dropped`` by the caller, at ``ended_at``; empty as long as it goes on.
    """

    name: str
    streamed: bool
    asked_at: float
    sent: list[float] = field(default_factory=list)
    became: str = ""
    ended_at: float = 0.0


class _Server:
    """What all connections share: every call by its name, and how many pieces have left."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Call]] = {}
        self.pieces = 0

    def told(self, path: str) -> Any:
        """What GET answers; ``None`` for what is not there."""
        if path == "/pieces":
            return {"pieces": self.pieces}
        if path == "/calls":
            return {name: list(map(asdict, calls)) for name, calls in self.calls.items()}
        if path.startswith("/calls/"):
            name = unquote(path.removeprefix("/calls/"))
            return list(map(asdict, self.calls.get(name, [])))
        return _LISTS.get(path)


class _Connection(asyncio.Protocol):
    """One keep-alive connection, with at most one call at a time."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._buffer = b""
        self._transport: asyncio.Transport
        self._call: Call | None = None
        self._script: Script
        self._wire: Wire
        self._pieces: Sequence[bytes] = ()
        self._model = ""

    # -- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        # uvloop's transports have asyncio's methods, not its classes.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """A piece of a request."""
        self._buffer += data
        while (found := message(self._buffer)) is not None:
            head, body, self._buffer = found
            method, path, _ = head.split(b" ", 2)
            if method == b"get":
                told = self._server.told(path.decode())
                known = told is not None
                self._answer(200 if known else 404, told if known else {"error": "no such path"})
            elif path in WIRES:
                self._begin(WIRES[path], json.loads(body))
            else:
                self._answer(404, {"error": "no such path"})

    def eof_received(self) -> None:
        """The caller will send no more: it has closed its connection."""
        self._gone()

    def connection_lost(self, _: Exception | None) -> None:
        """The connection is closed, whoever wanted it."""
        self._gone()

    # -- a call

    def _begin(self, wire: Wire, body: dict[str, Any]) -> None:
        assert self._call is None, "two calls at a time on one connection"
        self._model = body["model"]
        script = Script.of(body["messages"][-1]["content"])
        streamed = bool(body.get("stream", wire.streams_by_default))
        self._call = Call(script.name, streamed, time.monotonic())
        self._server.calls.setdefault(script.name, []).append(self._call)
        self._script, self._wire = script, wire
        loop = asyncio.get_running_loop()
        if script.status != 200:
            self._end("failed")
            told = {"error": {"code": script.status, "message": "as the script has it"}}
            self._answer(script.status, told)
        elif streamed:
            self._pieces = list(wire.pieces(script, self._model))
            head = _HEAD % (200, b"OK", wire.content_type.encode())
            self._transport.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
            loop.call_later(script.first_ms / 1000, self._next, self._call)
        else:
            length_ms = script.first_ms + script.pause_ms + script.every_ms * script.pieces
            loop.call_later(length_ms / 1000, self._whole, self._call)

    def _whole(self, call: Call) -> None:
        if call is not self._call:
            return  # Its caller has gone.
        if self._script.fails:
            self._end("failed")
            self._transport.abort()
            return
        self._end("answered")
        self._answer(200, self._wire.whole(self._script, self._model))

    def _next(self, call: Call) -> None:
        """Send the piece that is due, and what is late with it."""
        script = self._script
        while call is self._call:
            number = len(call.sent)
            if script.fails and number == script.fails_after:
                self._fail()
                return
            if number == len(self._pieces):
                self._chunk(self._wire.end(script, self._model))
                self._transport.write(b"0\r\n\r\n")
                self._end("answered")
                return
            now = time.monotonic()
            due = call.asked_at + self._due_s(number)
            if number and due > now:
                # The loop rounds to milliseconds, and to the nearest one.
                asyncio.get_running_loop().call_later(max(due - now, 0.001), self._next, call)
                return
            self._chunk(self._pieces[number])
            call.sent.append(now)
            self._server.pieces += 1

    def _due_s(self, number: int) -> float:
        script = self._script
        pause_ms = script.pause_ms if number >= max(len(self._pieces) // 2, 1) else 0.0
        return (script.first_ms + pause_ms + number * script.every_ms) / 1000

    def _fail(self) -> None:
        how = self._script.fails
        if how == "silence":
            return
        self._end("failed")
        if how == "reset":
            self._transport.abort()
            return
        if how == "error":
            self._chunk(self._wire.error)
        self._transport.write(b"0\r\n\r\n")

    def _gone(self) -> None:
        if self._call is not None:
            self._end("dropped")

    def _end(self, became: str) -> None:
        assert self._call is not None
        self._call.became, self._call.ended_at = became, time.monotonic()
        self._call = None

    # -- bytes

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _answer(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        head = _HEAD % (status, b"As told", b"application/json")
        self._transport.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


class StreamUpstream(ModelServer):
    """The upstream as a process of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__("bench.streams.upstream", folder, port)
        self._http = requests.Session()
        self._http.trust_env = False

    def stop(self) -> None:
        """End it, and show what it had to say of its own faults."""
        self._http.close()
        super().stop()
        assert "Traceback" not in self._child.output(), self._child.output()[-2000:]

    def pieces(self) -> int:
        """How many pieces have left so far."""
        found: int = self._get("/pieces")["pieces"]
        return found

    def calls(self) -> dict[str, list[Call]]:
        """Every call so far, by the name of its script."""
        told = self._get("/calls")
        return {name: [Call(**call) for call in calls] for name, calls in told.items()}

    def calls_of(self, name: str) -> list[Call]:
        """The calls of one script, whose name has only small letters."""
        return [Call(**call) for call in self._get(f"/calls/{quote(name)}")]

    def _get(self, path: str) -> Any:
        return self._http.get(f"{self.url}{path}", timeout=60).json()


async def _serve(port: int) -> None:
    server = _Server()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(
        lambda: _Connection(server), "127.0.0.1", port, backlog=4096
    )
    print(f"listens on {port}", flush=True)
    async with listener:
        await listener.serve_forever()


if __name__ == "__main__":
    allow_descriptors()
    uvloop.run(_serve(int(sys.argv[1])))
