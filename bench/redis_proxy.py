"""A proxy between one process and Redis, which strikes at the n-th command that the process sends.

It strikes in one of two places: ``before``, when the command has not been forwarded, or ``after``,
when Redis has answered it and the process has not heard the answer. Then it calls back, so that the
process may be killed, and resets every connection of the process; one that lives may connect again
at once. Until it is armed, and afterwards, it hands everything through.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.resources import files
from typing import Any, TypeVar

from bench.resp import Command, CommandReader, ReplyReader, is_message
from chat.scripts import load_script
from cli.redis_server import free_port

__all__ = ["CommandNames", "Place", "RedisProxy", "Strike"]

T = TypeVar("T")

_PIECE = 1 << 16
#: Closing a socket with this makes it a reset, and discards what was not sent.
_NO_LINGER = struct.pack("ii", 1, 0)
#: These files of ``chat/lua`` are no scripts: they stand before each of them.
_SHARED = frozenset({"prelude", "rates", "budget"})
#: Which argument of a script says what it is to do.
_MODES = {"watch": 2, "release": 0, "audit": 0}
_WITH_SUBCOMMAND = frozenset({"CLIENT", "CONFIG", "SCRIPT", "PUBSUB"})


class Place(StrEnum):
    """On which side of the command the proxy strikes."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Strike:
    """What the proxy is armed with: at command ``n`` it calls ``then`` and resets all connections.

    ``then`` runs in the proxy's thread while nothing is handed through. With ``n`` = 0 the commands
    are counted, and nothing happens. Those whose names are ``uncounted`` pass by.
    """

    n: int
    place: Place
    then: Callable[[], object]
    uncounted: frozenset[str] = frozenset()


class CommandNames:
    """What a command is called in print: a script by its file's name, and by its mode if any."""

    def __init__(self) -> None:
        self._scripts = _scripts()

    def __call__(self, words: tuple[bytes, ...]) -> str:
        """The name of the command with these words."""
        name = words[0].decode("latin-1").upper()
        if name == "EVALSHA":
            return self._script(words)
        if name in _WITH_SUBCOMMAND and len(words) > 1:
            return f"{name} {words[1].decode('latin-1').upper()}"
        return name

    def _script(self, words: tuple[bytes, ...]) -> str:
        sha1 = words[1].decode("latin-1").lower()
        if sha1 not in self._scripts:  # Its file is newer than this process.
            self._scripts |= _scripts()
        name = self._scripts.setdefault(sha1, f"EVALSHA {sha1[:8]}")
        arguments = words[3 + int(words[2]) :]
        mode = _MODES.get(name)
        told = arguments[mode].decode("latin-1") if mode is not None else ""
        return f"{name} {told}".rstrip()


def _scripts() -> dict[str, str]:
    names = {file.name.removesuffix(".lua") for file in (files("chat") / "lua").iterdir()}
    return {_sha1(load_script(name)): name for name in names - _SHARED}


def _sha1(script: str) -> str:
    # The hash by which Redis knows a script; nothing is kept secret with it.
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


@dataclass(slots=True, eq=False)
class _Link:
    """One connection of the process, and the one to Redis behind it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    in_flight: deque[Command] = field(default_factory=deque)
    subscribed: bool = False
    dead: bool = False

    def close(self) -> None:
        """Let both sides hear that it is over."""
        self.client.close()
        self.server.close()

    def reset(self) -> None:
        """Reset the process's side. Redis still gets what was forwarded, then the end."""
        self.dead = True
        connection = self.client.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):  # The process is dead, and so is its socket.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.client.transport.abort()
        self.server.close()


class RedisProxy:
    """The proxy, in a thread of its own. ``seen`` has the names of the commands since ``arm``.

    ``acted`` is set once it has struck. All methods may be called from any thread.
    """

    def __init__(self, redis_port: int) -> None:
        self.port = free_port()
        self.seen: list[str] = []
        self.acted = threading.Event()
        self._redis_port = redis_port
        self._names = CommandNames()
        self._links: set[_Link] = set()
        self._armed: Strike | None = None
        self._awaited: Command | None = None
        self._last = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="redis-proxy", daemon=True)
        self._stopped = asyncio.Event()
        self._ready = threading.Event()

    # -- control

    @property
    def url(self) -> str:
        """What the process gets for its ``redis_url``."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> RedisProxy:
        """Listen in a thread of its own."""
        self._thread.start()
        if not self._ready.wait(10):
            message = "the proxy does not listen"
            raise TimeoutError(message)
        return self

    def stop(self) -> None:
        """Close the port and every connection."""
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)

    def arm(self, strike: Strike) -> None:
        """Count from now on, and strike once.

        A command that waits for its answer already, as a BRPOP does, is one of the first: only its
        answer can still be kept back.
        """

        async def arm() -> None:
            self.acted.clear()
            waiting = [command for link in self._links for command in link.in_flight]
            sent = [one for one in waiting if self._names(one.words) not in strike.uncounted]
            self.seen = [self._names(command.words) for command in sent]
            self._armed, self._last = strike, time.monotonic()
            after = strike.place is Place.AFTER and 0 < strike.n <= len(sent)
            self._awaited = sent[strike.n - 1] if after else None

        self._ask(arm())

    def disarm(self, patience_s: float = 5.0) -> bool:
        """Count no longer; whether command n was sent.

        If it was and its answer is awaited, that answer gets ``patience_s`` to come and be struck.
        """

        async def disarm() -> tuple[bool, bool]:
            strike = self._armed
            if strike is None:
                return self.acted.is_set(), False
            if self._awaited is None:
                self._armed = None
            return 0 < strike.n <= len(self.seen), self._awaited is not None

        async def forget() -> None:
            self._armed = self._awaited = None

        reached, awaited = self._ask(disarm())
        if awaited and not self.acted.wait(patience_s):
            self._ask(forget())
        return reached

    def in_flight(self) -> list[tuple[bytes, ...]]:
        """The words of the commands that wait for their answers."""

        async def look() -> list[tuple[bytes, ...]]:
            return [command.words for link in self._links for command in link.in_flight]

        return self._ask(look())

    def subscribers(self) -> int:
        """How many connections have subscribed to a channel."""

        async def look() -> int:
            return sum(link.subscribed for link in self._links)

        return self._ask(look())

    @property
    def quiet_s(self) -> float:
        """Seconds since the process sent a command."""
        return time.monotonic() - self._last

    def _ask(self, question: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(question, self._loop).result(10)

    # -- the proxy's thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port)
        self._ready.set()
        async with server:
            await self._stopped.wait()
            for link in list(self._links):
                link.close()
        # Their tasks end with the connections.
        left = asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}
        if left:
            await asyncio.wait(left, timeout=5)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._redis_port)
        except OSError:  # Redis is away: the process hears of it as it would without a proxy.
            writer.close()
            return
        link = _Link(writer, server)
        self._links.add(link)
        ways = (self._forward(link, reader), self._answer(link, answers))
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._links.discard(link)
            link.close()
            # The other way ends with its connection; what a broken one raises says nothing new.
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, OSError):
                raise result

    async def _forward(self, link: _Link, reader: asyncio.StreamReader) -> None:
        commands = CommandReader()
        while data := await reader.read(_PIECE):
            for command in commands.feed(data):
                if link.dead or self._strikes(command):
                    return
                link.in_flight.append(command)
                link.subscribed |= command.words[0].upper() == b"SUBSCRIBE"
                link.server.write(command.raw)
            await link.server.drain()

    async def _answer(self, link: _Link, answers: asyncio.StreamReader) -> None:
        replies = ReplyReader()
        while data := await answers.read(_PIECE):
            for reply in replies.feed(data):
                if link.dead:
                    return
                if link.in_flight and not is_message(reply):
                    command = link.in_flight.popleft()
                    if command is self._awaited:
                        self._act()
                        return
                link.client.write(reply)
            await link.client.drain()

    def _strikes(self, command: Command) -> bool:
        """Count a command; whether the proxy has struck and it goes no further."""
        self._last = time.monotonic()
        if self._armed is None:
            return False
        name = self._names(command.words)
        if name in self._armed.uncounted:
            return False
        self.seen.append(name)
        if len(self.seen) != self._armed.n:
            return False
        if self._armed.place is Place.AFTER:
            self._awaited = command
            return False
        self._act()
        return True

    def _act(self) -> None:
        assert self._armed is not None
        strike, self._armed, self._awaited = self._armed, None, None
        struck = list(self._links)
        # Nothing is handed through while this runs: it is the one loop of all connections.
        strike.then()
        for link in struck:
            link.reset()
        self.acted.set()
