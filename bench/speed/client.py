"""One connection of the load generator: asks, waits, checks the answer, asks again."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Protocol, cast

from bench.speed.forms import Form
from bench.speed.framing import message

__all__ = ["Client", "Ledger", "verdict"]

#: Stands for the number of the question in a request that is written once.
_NUMBER = "#" * 10
#: Seconds before a connection that broke is opened again: a dead server is not to be hammered.
_PAUSE_S = 0.1


class Ledger(Protocol):
    """What hands out questions and keeps account of the answers."""

    @property
    def counting(self) -> bool:
        """Whether what is asked now counts."""

    def next_question(self) -> int | None:
        """The number of the next question, None if there is none for now."""

    def rest(self, client: Client) -> None:
        """The client has nothing to ask for now."""

    def answered(self, verdict: str, seconds: float, *, counted: bool) -> None:
        """An answer came after so many seconds."""

    def lost(self, *, counted: bool) -> None:
        """No answer came."""

    def stray(self) -> None:
        """Something came that nobody had asked for."""


def verdict(form: Form, head: bytes, body: bytes, expected: str) -> str:
    """What an answer is: ``right``, ``wrong``, or the status and code of an error."""
    status = int(head[9:12])
    try:
        answer: Any = json.loads(body)
    except ValueError:
        return "wrong" if status == form.status else str(status)
    if status != form.status:
        error = answer.get("error") if isinstance(answer, dict) else None
        code = error.get("code") if isinstance(error, dict) else None
        return f"{status} {code}" if code else str(status)
    try:
        said = form.said(answer)
    except (KeyError, IndexError, TypeError):
        return "wrong"
    return "right" if said == expected else "wrong"


class Client(asyncio.Protocol):
    """A connection that ``connect`` opens, and that is opened again whenever it breaks.

    ``server`` is host and port, ``path`` and ``headers`` go into each request.
    """

    def __init__(
        self,
        ledger: Ledger,
        form: Form,
        server: tuple[str, int],
        *,
        path: str,
        headers: dict[str, str],
        model: str,
        tag: str,
    ) -> None:
        self._ledger = ledger
        self._form = form
        self._server = server
        self._expected = f"echo: {tag} "
        body = form.body(model, f"{tag} {_NUMBER}")
        lines = {"Host": f"{server[0]}:{server[1]}", "Content-Type": "application/json", **headers}
        lines["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._request = f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._asked: str | None = None
        self._sent_at = 0.0
        self._counted = False
        self._closed = False
        self._opening: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Open the connection. Raises ``OSError``."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, *self._server)

    def close(self) -> None:
        """Close it for good."""
        self._closed = True
        if self._transport is not None:
            self._transport.close()

    def ask(self) -> None:
        """Ask the next question, if there is one."""
        if self._transport is None:
            self._reopen()
            return
        number = self._ledger.next_question()
        if number is None:
            self._ledger.rest(self)
            return
        digits = f"{number:0{len(_NUMBER)}d}"
        self._asked = self._expected + digits
        self._counted = self._ledger.counting
        self._sent_at = time.perf_counter()
        self._transport.write(self._request.replace(_NUMBER.encode(), digits.encode()))

    def give_up_before(self, moment: float) -> None:
        """Break the connection if it has been waiting for an answer since before this moment."""
        if self._asked is not None and self._sent_at < moment and self._transport is not None:
            self._transport.abort()

    # -- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        # uvloop's transports have asyncio's methods, not its classes.
        self._transport, self._buffer = cast("asyncio.Transport", transport), b""

    def data_received(self, data: bytes) -> None:
        """A piece of an answer."""
        now = time.perf_counter()
        self._buffer = self._buffer + data if self._buffer else data
        found = message(self._buffer)
        if found is None:
            return
        head, body, self._buffer = found
        if self._asked is None:
            self._ledger.stray()
            self._drop()
            return
        said = verdict(self._form, head, body, self._asked)
        self._asked = None
        self._ledger.answered(said, now - self._sent_at, counted=self._counted)
        if self._buffer:
            self._ledger.stray()
        if self._buffer or b"\r\nconnection: close" in head:
            self._drop()
        else:
            self.ask()

    def connection_lost(self, _: Exception | None) -> None:
        """The connection is closed, whoever wanted it."""
        self._transport = None
        if self._asked is not None:
            self._asked = None
            self._ledger.lost(counted=self._counted)
        if not self._closed:
            self._reopen()

    # -- in between

    def _drop(self) -> None:
        """End the connection; ``connection_lost`` follows, and opens another one."""
        if self._transport is not None:
            self._transport.abort()

    def _reopen(self) -> None:
        if self._opening is None or self._opening.done():
            self._opening = asyncio.get_running_loop().create_task(self._open_and_ask())

    async def _open_and_ask(self) -> None:
        """Connect, or count a question as lost for each time that it cannot be done."""
        while not self._closed:
            try:
                await self.connect()
            except OSError:
                if self._ledger.next_question() is None:
                    self._ledger.rest(self)
                    return
                self._ledger.lost(counted=self._ledger.counting)
                await asyncio.sleep(_PAUSE_S)
            else:
                self.ask()
                return
