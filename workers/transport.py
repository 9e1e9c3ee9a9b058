"""kombu's Redis transport with credit kept in this process, and a gate per queue.

Stock kombu moves every message it receives into an ``unacked`` table and takes it out again when
the task ends: six more commands a task, and a table that has to be swept after a crash. In chatd
the job record is the truth and a message only a wake-up, so nothing here survives the process:

* ``LocalCredit`` counts the messages this worker holds. With ``worker_prefetch_multiplier = 1`` and
  late acknowledgement a worker holds exactly as many as it has threads, none ahead of them.
* ``Gate`` closes single queues of a running worker by leaving them out of the pop's key list.
* ``Channel`` receives as many messages at once as may start, where Redis can (BLMPOP, from version
  7 on). It puts back what was received but never started, and settles the pop in flight when a
  consumer is cancelled: kombu would read that reply only after the running tasks have ended. It
  leaves a connection on which a reply is overdue as soon as Redis is known to answer on others:
  kombu would wait for half a minute and more, and the kernel, after a cut, for as long again.

Everything here runs in the hub's thread, except what ``Gate`` is told and the end of a wake-up. The
classes lean on names of kombu 5.7 that are not public; the system tests run them against a real
server.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from queue import Empty
from typing import Any

import kombu
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.transport.redis import _socket_readable
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads
from kombu.utils.scheduling import priority_cycle

__all__ = [
    "GATE",
    "HELD",
    "Channel",
    "Connection",
    "Gate",
    "GatedCycle",
    "LocalCredit",
    "Transport",
]

_log = logging.getLogger(__name__)

#: Delivery tag -> queue and message that this worker has received and not yet acknowledged: a
#: wake-up as text, anything else as kombu's message. One per process and not per channel, so that a
#: reconnect does not hand out a second window.
HELD: dict[str, tuple[str, Any]] = {}

_VERSION = re.compile(r"redis_version:(\d+)")

#: Seconds after which the gate tries again to interrupt a pop that was sent but has not blocked.
_UNBLOCK_AGAIN_S = 0.005
#: Seconds beyond its own time limit after which the reply to a pop is overdue.
_OVERDUE_S = 2.0


class Gate:
    """Which queues this worker consumes just now.

    Each queue has a most number of messages that may be held at a time, so that each lane always
    has a thread. The gated queue is consumed only as long as there is ``room``: what the job store
    last said may start, less the messages taken since whose start it has not decided on. So one
    worker never takes a batch message for which there is no permit; of several, two may meet, and
    the store parks one of the jobs. With less room than none every queue is shut: the provider is
    drained.

    A pop in flight still has the old key list, so the gate interrupts it with CLIENT UNBLOCK.

    All who tell it something are greenlets of one thread, and none of its methods waits within.
    """

    def __init__(self) -> None:
        self.hub: Any = None
        self.channels: set[Channel] = set()
        self._most: dict[str, int] = {}
        self._held: dict[str, int] = {}
        self._gated = ""
        self._room = 0
        self._undecided: dict[str, int] = {}
        self._shut: frozenset[str] = frozenset()

    def arrange(self, most: Mapping[str, int], gated: str) -> None:
        """How many messages of each queue may be held, and which of them needs room."""
        self._most, self._gated = dict(most), gated
        self._held.clear()
        self._undecided.clear()
        self._room = 0
        self._follow()

    def is_open(self, queue: str) -> bool:
        """Whether the next pop should name ``queue``."""
        return queue not in self._shut

    @property
    def has_room(self) -> bool:
        """Whether the gated queue is short of nothing but messages."""
        return self._room > self._undecided.get(self._gated, 0)

    def at_once(self, queues: Sequence[str], credit: int) -> int:
        """How many messages one pop that names ``queues`` may bring; at least one.

        All of them may come from any of the queues, so each has to have a place for them. Room is
        shared with whatever starts meanwhile: what was taken of any queue may use it up, and of
        what is left other workers get half.
        """
        free = [credit]
        free += [
            self._most[queue] - self._held.get(queue, 0) for queue in queues if queue in self._most
        ]
        if self._gated in queues:
            free.append((self._room - sum(self._undecided.values()) + 1) // 2)
        return max(1, min(free))

    def took(self, queue: str) -> None:
        """A message was received."""
        self._held[queue] = self._held.get(queue, 0) + 1
        self._undecided[queue] = self._undecided.get(queue, 0) + 1
        self._follow()

    def gave_up(self, queue: str) -> None:
        """A message is done with, or put back."""
        self._held[queue] -= 1
        self._follow()

    def has_credit(self) -> None:
        """A thread is free again, where none was: the hub may send a pop."""
        if self.hub is not None:
            self.hub.call_soon(lambda: None)

    def decided(self, queue: str, room: int | None) -> None:
        """The store has decided on a message that was taken; ``None`` when nobody asked it."""
        self._undecided[queue] = max(0, self._undecided.get(queue, 0) - 1)
        if room is not None:
            self._room = room
        self._follow()

    def learn(self, room: int) -> None:
        """The store says how many messages of the gated queue may start now, if any."""
        self._room = room
        self._follow()

    def redis_answers(self) -> None:
        """Redis has just answered this process, on some other connection."""
        if self.hub is not None:
            self.hub.call_soon(self._leave_silent)

    def _leave_silent(self) -> None:
        for channel in list(self.channels):
            channel.leave_if_silent()

    def _follow(self) -> None:
        """Open and shut queues as is due, and have the hub send a new pop if that changes one."""
        shut = {queue for queue, most in self._most.items() if self._held.get(queue, 0) >= most}
        if self._gated and self._room <= self._undecided.get(self._gated, 0):
            shut.add(self._gated)
        if self._room < 0:
            shut.update(self._most)
        if shut == self._shut:
            return
        self._shut = frozenset(shut)
        if self.hub is not None:
            # call_soon also wakes a hub that has no pop out because every queue was shut.
            self.hub.call_soon(self._apply)

    def _apply(self) -> None:
        for channel in list(self.channels):
            channel.follow_gate()


GATE = Gate()


class GatedCycle(priority_cycle):  # type: ignore[misc]  # kombu has no types
    """Queues in the order given, without those the gate has shut; with none left, no pop."""

    #: What the last pop named.
    in_flight: Sequence[str] = ()

    def wanted(self) -> list[str]:
        """The queues the next pop should name."""
        return [queue for queue in self.items if GATE.is_open(queue)]

    def consume(self, _count: int) -> list[str]:
        """What kombu asks for when it builds a BRPOP; it changes the list it gets."""
        self.in_flight = self.wanted()
        return list(self.in_flight)


class LocalCredit(virtual.QoS):  # type: ignore[misc]  # kombu has no types
    """A prefetch window that lives in this process and nowhere else."""

    # The base class would put ``_delivered`` back at exit; it stays empty here.
    restore_at_shutdown = False

    def can_consume(self) -> bool:
        """Whether a thread is free for one more message."""
        return not self.prefetch_count or len(HELD) < self.prefetch_count

    def credit(self) -> int:
        """How many threads are free; one if there is no limit."""
        window: int = self.prefetch_count
        return max(1, window - len(HELD))

    def append(self, message: Any, delivery_tag: str) -> None:
        """Take a message into the window."""
        self.hold(delivery_tag, message.delivery_info["routing_key"], message)

    def hold(self, delivery_tag: str, queue: str, message: Any) -> None:
        """Take what came of ``queue`` into the window: a message, or the text of a wake-up."""
        if delivery_tag not in HELD:
            GATE.took(queue)
        HELD[delivery_tag] = queue, message

    def get(self, delivery_tag: str) -> Any:
        """A message of the window."""
        return HELD[delivery_tag][1]

    def ack(self, delivery_tag: str) -> None:
        """The message is done with: its thread is free."""
        self._pop(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Give a message up, or back to its queue."""
        held = self._pop(delivery_tag)
        if not requeue or held is None:
            return
        queue, message = held
        if isinstance(message, str):
            self.channel._put_back(queue, [message])
        else:
            self.channel._restore(message)

    def _pop(self, delivery_tag: str) -> tuple[str, Any] | None:
        was_free = self.can_consume()
        held = HELD.pop(delivery_tag, None)
        if held is not None:
            GATE.gave_up(held[0])
            if not was_free:
                # kombu has left off polling, and hears nothing of this.
                GATE.has_credit()
        return held

    def restore_visible(self, *_: object, **__: object) -> None:
        """Nothing to sweep: the hub calls this every ten seconds for the unacked table."""


class Channel(kombu_redis.Channel):  # type: ignore[misc]  # kombu has no types
    """The consuming side: credit, gate, and nothing left in a socket."""

    QoS = LocalCredit
    #: The first version of Redis that gives several messages to one pop that waits.
    pops_many_from = 7
    _in_poll: Any
    _brpop_sent_at: float | None
    _brpop_socket: Any = None
    _brpop_client_id: Any = None
    _pops_many = False

    #: Takes the wake-ups among what comes, given queue and text; false for anything else.
    takes: Callable[[str, str], bool] = staticmethod(lambda _queue, _text: False)

    def _restore(self, message: Any, leftmost: bool = False) -> None:  # noqa: FBT001, FBT002, ARG002 - kombu's signature
        """Put a message back where the next pop finds it: it was next, and it still is."""
        priority = self._get_message_priority(message._raw)
        key = self._q_for_pri(message.delivery_info["routing_key"], priority)
        self._put_back(key, [dumps(message._raw)])

    def _put_back(self, key: str, texts: Sequence[str]) -> None:
        """Put messages back in their order, the first of them to be the next again."""
        with self.conn_or_acquire() as client:
            client.rpush(key, *reversed(texts))

    _restore_at_beginning = _restore

    def _brpop_start(self, timeout: float | None = None) -> None:
        connection = self.client.connection
        if connection._sock is None:
            connection.connect()
        if connection._sock is not self._brpop_socket:
            # Once per (re)connection: the gate has to know whom to unblock.
            connection.send_command("CLIENT", "ID")
            self._brpop_client_id = connection.read_response()
            connection.send_command("INFO", "server")
            version = _VERSION.search(bytes_to_str(connection.read_response()))
            self._pops_many = version is not None and int(version[1]) >= self.pops_many_from
            self._brpop_socket = connection._sock
            GATE.channels.add(self)
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        self._in_poll = connection
        self._brpop_sent_at = time.monotonic()
        # kombu's key of a queue is its name, with the one priority step there is.
        seconds = timeout or self.brpop_timeout
        if not self._pops_many:
            connection.send_command("BRPOP", *queues, seconds)
            return
        count = GATE.at_once(queues, self.qos.credit())
        connection.send_command("BLMPOP", seconds, len(queues), *queues, "RIGHT", "COUNT", count)

    def _brpop_read(self, **options: Any) -> bool:
        connection = self.client.connection
        try:
            reply = self.client.parse_response(connection, "BRPOP", **options)
        except self.connection_errors:
            # kombu connects anew in its next round.
            connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if not reply:
            raise Empty
        queue = bytes_to_str(reply[0])
        texts = [bytes_to_str(text) for text in (reply[1] if self._pops_many else reply[1:])]
        if queue not in self.active_queues:
            # Its consumer was cancelled while these were on their way.
            self._put_back(queue, texts)
            return True
        for place, text in enumerate(texts):
            try:
                if not self.takes(queue, text):
                    self.connection._deliver(loads(text), queue)
            except BaseException:
                self._put_back(queue, texts[place + 1 :])
                raise
        # Let the jobs begin first, and send the next pop then: somebody waits for them.
        time.sleep(0)
        return True

    def follow_gate(self) -> None:
        """Interrupt the pop in flight if it names other queues than the gate now wants."""
        cycle = self._queue_cycle
        if not self._in_poll or cycle.in_flight == cycle.wanted():
            return
        if not self._unblock():
            GATE.hub.call_later(_UNBLOCK_AGAIN_S, self.follow_gate)

    def leave_if_silent(self) -> None:
        """Close the connection if its pop should have been answered long ago.

        kombu makes another. Redis' host, or something on the way, has forgotten this one, or its
        kernel waits longer and longer before it sends once more what was lost. A Redis that was
        just slow has answered here as well.
        """
        connection = self._in_poll
        if not connection or not connection._sock or self._brpop_sent_at is None:
            return
        waited = time.monotonic() - self._brpop_sent_at
        if waited > self.brpop_timeout + _OVERDUE_S and not _socket_readable(connection._sock):
            _log.warning("Redis answers, but not to the pop of %.0f s ago: connecting anew", waited)
            connection.disconnect()

    def basic_cancel(self, consumer_tag: str) -> None:
        """Stop consuming and settle the pop in flight now.

        Its reply is nothing, or messages without a consumer, which are put back. Left to kombu, it
        would lie in the socket until the last running task has ended.
        """
        super().basic_cancel(consumer_tag)
        if self._in_poll and not self.active_queues:
            try:
                self._unblock()
                self._brpop_read()
            except (Empty, *self.connection_errors):
                # Empty is the usual answer; without a connection nothing can have been received.
                self._in_poll = None

    def _unblock(self) -> bool:
        with self.conn_or_acquire() as client:
            return bool(client.client_unblock(self._brpop_client_id))

    def close(self) -> None:
        """Close the channel; the gate forgets it."""
        GATE.channels.discard(self)
        super().close()


class Transport(kombu_redis.Transport):  # type: ignore[misc]  # kombu has no types
    """What ``broker_transport`` names."""

    Channel = Channel


class Connection(kombu.Connection):  # type: ignore[misc]  # kombu has no types
    """Reconnects at once: kombu waits 2, 4, 6 … 30 s between its tries, without a setting."""

    def _ensure_connection(self, *args: object, **kwargs: object) -> object:
        return super()._ensure_connection(
            *args, **{**kwargs, "interval_start": 0.2, "interval_step": 0.2, "interval_max": 2}
        )
