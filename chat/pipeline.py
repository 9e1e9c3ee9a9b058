"""Scripts of many callers in one round trip: group commit.

A round trip of its own for each script costs a caller's process more than all the rest of the call:
a connection taken and given back, a write, a read, two switches. Here whoever finds nobody in
charge takes charge: it sends its own command with everything that waits by then, hands the replies
to their owners, and leaves the charge to the first who has come meanwhile. One caller alone has its
round trip at once and in its own thread; under load commands travel in batches that grow with it.

A process that has much to do reads a reply late: when a thousand requests come at once, greenlets
run all of them up to here before one looks whether something has come. So once enough are waiting
somebody takes charge of another connection, if there may be more than one, and Redis and workers
have something to do meanwhile.

Threading primitives only, so that gevent may turn them into greenlets.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

if TYPE_CHECKING:
    import redis
    from redis.connection import AbstractConnection

__all__ = ["ScriptPipeline"]

#: What travels together at the most: commands, and bytes (a longer command travels alone), so that
#: neither the time limit of a write nor the patience of the first one is used up.
_MOST_COMMANDS = 128
_MOST_BYTES = 1 << 20
#: As many wait when a second connection is taken; twice as many for each that follows.
_CROWD = 32


class _Call:
    """One command of one caller, and what becomes of it."""

    __slots__ = ("command", "ended", "fault", "leads", "reply", "shared", "turn")

    def __init__(self, command: bytes) -> None:
        self.command = command
        self.reply: Any = None
        self.fault: Exception | None = None
        self.shared = False
        self.ended = False
        self.leads = False
        #: Set when the call has ended or its caller is to take charge, if that is waited for. A
        #: greenlet has less work with an event than with a lock; a thread would have more.
        self.turn: threading.Event | None = None

    def end(self, reply: Any, fault: Exception | None = None, *, shared: bool = False) -> None:
        self.reply, self.fault, self.shared = reply, fault, shared
        self.ended = True
        if not self.leads:
            self.go_on()

    def go_on(self) -> None:
        """Wake the caller, if it waits."""
        if self.turn is not None:
            self.turn.set()

    def outcome(self) -> Any:
        if self.fault is None:
            return self.reply
        if self.shared:
            # Each caller raises one of its own: a traceback belongs to one thread.
            raise type(self.fault)(*self.fault.args) from self.fault
        raise self.fault


class ScriptPipeline:
    """Runs scripts for any number of threads of one process, on up to so many ``connections``.

    Only for scripts that are quick and may be sent twice: one that takes its time holds up all the
    others, and after trouble with the connection what has no reply yet is sent again.
    """

    def __init__(self, client: redis.Redis, connections: int = 1) -> None:
        self._pool = client.connection_pool
        self._most = connections
        self._made = 0
        self._opened = connections == 1
        self._free: list[AbstractConnection] = []
        self._lock = threading.Lock()
        self._leaders = 0
        self._waiting: deque[_Call] = deque()

    def run(self, sha: str, args: Sequence[str | int]) -> Any:
        """The reply of the script that the server knows by ``sha``.

        Raises what redis-py would: a script's own error for its caller alone, ``NoScriptError``
        among them; trouble with the connection for all who are waiting at that moment, since each
        would wait in vain as long as the one in charge has.
        """
        call = _Call(_packed(sha, args))
        if self._joined(call) and self._lead(call) > 1 and not self._opened:
            # As soon as callers meet: a crowd would wait for connections as it would for replies.
            self._opened = True
            threading.Thread(target=self._open_others, name="connections", daemon=True).start()
        return call.outcome()

    def _joined(self, call: _Call) -> bool:
        """Wait until the call has ended (false), or until its caller is in charge (true)."""
        with self._lock:
            if self._is_crowd_for(self._leaders):
                self._leaders += 1
                call.leads = True
                return True
            turn = call.turn = threading.Event()
            self._waiting.append(call)
        try:
            turn.wait()
        except BaseException:
            # A greenlet that is killed must not take the charge with it.
            with self._lock:
                if call in self._waiting:
                    self._waiting.remove(call)
                leads = call.leads
            if leads:
                self._pass_on()
            raise
        return call.leads

    def _connection(self) -> AbstractConnection:
        # To take one from the pool and give it back costs as much as a command itself.
        self._made += 1
        made = self._pool.connection_class(**self._pool.connection_kwargs)
        return cast("AbstractConnection", made)

    def _open_others(self) -> None:
        # Without them a crowd makes its own.
        with suppress(RedisError, OSError):
            while self._made < self._most:
                connection = self._connection()
                connection.connect()
                self._free.append(connection)

    def _is_crowd_for(self, leaders: int) -> bool:
        """Whether so many wait that one more than ``leaders`` is to be in charge."""
        if not leaders:
            return True
        crowd = min(_CROWD << (leaders - 1), _MOST_COMMANDS)
        return leaders < self._most and len(self._waiting) >= crowd

    def _lead(self, call: _Call) -> int:
        """Take the call to Redis with those that wait; returns how many got there."""
        batch = self._batch(call)
        try:
            connection = self._free.pop()
        except IndexError:
            connection = self._connection()
        try:
            connection.retry.call_with_retry(
                lambda: _exchange(connection, batch), lambda _: connection.disconnect()
            )
        except Exception as fault:  # noqa: BLE001 - it is raised in the threads of those it concerns
            with self._lock:
                batch += self._waiting
                self._waiting.clear()
            for one in batch:
                if not one.ended:
                    one.end(None, fault, shared=True)
            return 0
        except BaseException:
            # This caller is made to stop, in the middle of a reply perhaps; the others are not.
            connection.disconnect()
            with self._lock:
                self._waiting.extendleft(one for one in reversed(batch[1:]) if not one.ended)
            raise
        finally:
            self._free.append(connection)
            self._pass_on()
        return len(batch)

    def _batch(self, first: _Call) -> list[_Call]:
        batch, size = [first], len(first.command)
        if not self._waiting:
            return batch
        with self._lock:
            while self._waiting and len(batch) < _MOST_COMMANDS:
                size += len(self._waiting[0].command)
                if size > _MOST_BYTES:
                    break
                batch.append(self._waiting.popleft())
        return batch

    def _pass_on(self) -> None:
        """Leave the charge to the first who waits, or to those who are in charge as well."""
        with self._lock:
            if not self._waiting or not self._is_crowd_for(self._leaders - 1):
                self._leaders -= 1
                return
            following = self._waiting.popleft()
            following.leads = True
        following.go_on()


def _exchange(connection: AbstractConnection, batch: list[_Call]) -> None:
    """Send what has no reply yet, and read the replies. Raises what is to be tried again."""
    calls = [call for call in batch if not call.ended]
    connection.send_packed_command([b"".join([call.command for call in calls])])
    for call in calls:
        try:
            call.end(connection.read_response())
        except ReadOnlyError:
            # The server has become a replica: the connection is at fault, not the script.
            raise
        except ResponseError as error:
            call.end(None, error)
        except UnicodeDecodeError as error:
            # redis-py has given up the connection, with the replies of the others.
            call.end(None, error)
            raise RedisConnectionError("a reply before this one is no text") from error


def _packed(sha: str, args: Sequence[str | int]) -> bytes:
    """``EVALSHA`` as Redis reads it.

    redis-py's own packing takes twice the time and is part of a connection; here each caller packs
    for itself, so that what cannot be sent fails for its caller alone.
    """
    parts = [_head(sha, len(args))]
    for arg in args:
        text = arg if isinstance(arg, str) else str(arg)
        size = len(text) if text.isascii() else len(text.encode())
        parts.append(f"${size}\r\n{text}\r\n")
    return "".join(parts).encode()


@cache
def _head(sha: str, count: int) -> str:
    """The command up to its arguments: of each script there is one, or a few."""
    return f"*{count + 3}\r\n$7\r\nEVALSHA\r\n${len(sha)}\r\n{sha}\r\n$1\r\n0\r\n"
