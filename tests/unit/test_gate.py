"""Which queues a worker consumes: by what it holds, and by the room it was told of."""

from __future__ import annotations

import socket
import time

import pytest

from workers.transport import Channel, Gate

PEOPLE, BATCH = "chat.ollama", "chat.ollama.batch"


class Hub:
    """Counts how often it was asked to look at the queues again."""

    def __init__(self):
        self.calls = 0

    def call_soon(self, callback):
        callback()
        self.calls += 1


@pytest.fixture
def gate():
    gate = Gate()
    gate.hub = Hub()
    gate.arrange({PEOPLE: 3, BATCH: 2}, gated=BATCH)
    return gate


def test_without_room_nothing_of_the_gated_queue_is_taken(gate):
    """It is shut until the store has said that there is room; the other is open."""
    before = gate.is_open(BATCH)
    gate.learn(1)

    assert (before, gate.is_open(BATCH), gate.is_open(PEOPLE)) == (False, True, True)


def test_room_is_used_up_by_what_is_taken(gate):
    """One place, one message: the second stays in its queue without anybody being asked."""
    gate.learn(1)
    gate.took(BATCH)

    assert not gate.is_open(BATCH)
    assert not gate.has_room


def test_what_the_store_decided_is_in_the_room_it_tells(gate):
    """Of two places one is taken; the message that took it no longer counts beside it."""
    gate.learn(2)
    gate.took(BATCH)
    gate.decided(BATCH, 1)

    assert gate.is_open(BATCH)


def test_a_message_that_was_never_decided_on_gives_its_place_back(gate):
    """As when the worker is stopping: the room stays what it was."""
    gate.learn(1)
    gate.took(BATCH)
    gate.decided(BATCH, None)

    assert gate.is_open(BATCH)


def test_each_lane_keeps_a_thread_from_the_other(gate):
    """However much room there is, no more are held than a lane may."""
    gate.learn(100)
    for _ in range(2):
        gate.took(BATCH)
        gate.decided(BATCH, 100)
    for _ in range(3):
        gate.took(PEOPLE)
        gate.decided(PEOPLE, 100)
    shut = [gate.is_open(queue) for queue in (PEOPLE, BATCH)]
    for queue in (PEOPLE, BATCH):
        gate.gave_up(queue)

    assert shut == [False, False]
    assert all(gate.is_open(queue) for queue in (PEOPLE, BATCH))


def test_the_hub_is_woken_only_when_a_queue_opens_or_shuts(gate):
    """Each wake-up of the hub costs a round trip to Redis."""
    gate.learn(5)
    once = gate.hub.calls
    gate.took(BATCH)
    gate.decided(BATCH, 4)
    gate.took(PEOPLE)
    gate.decided(PEOPLE, 3)
    gate.learn(2)

    assert gate.hub.calls == once


@pytest.mark.parametrize(
    ("queues", "credit", "room", "taken", "brings"),
    [
        pytest.param([PEOPLE], 9, 0, [], 3, id="as many as its lane may hold"),
        pytest.param([PEOPLE], 1, 0, [], 1, id="as many as there are free threads"),
        pytest.param([PEOPLE], 9, 0, [PEOPLE], 2, id="less what is held"),
        pytest.param([PEOPLE, BATCH], 9, 9, [], 2, id="all may be of the smaller lane"),
        pytest.param([PEOPLE, BATCH], 9, 2, [], 1, id="half of the room"),
        pytest.param([PEOPLE, BATCH], 9, 3, [PEOPLE], 1, id="which what was taken may use up"),
        pytest.param([PEOPLE, BATCH], 9, 1, [PEOPLE, PEOPLE], 1, id="one at the least"),
        pytest.param(["else"], 5, 0, [], 5, id="a queue of which it was told nothing"),
    ],
)
def test_a_pop_brings_no_more_than_may_start(gate, queues, credit, room, taken, brings):
    """Whichever of its queues they come from."""
    gate.learn(room)
    for queue in taken:
        gate.took(queue)

    assert gate.at_once(queues, credit) == brings


def test_a_drained_provider_shuts_every_queue(gate):
    """Until the store speaks of room again: none for batch is enough to fetch for people."""
    gate.learn(2)
    gate.took(PEOPLE)
    gate.decided(PEOPLE, -1)
    shut = [gate.is_open(queue) for queue in (PEOPLE, BATCH)]
    asks = not gate.has_room
    gate.gave_up(PEOPLE)
    still = [gate.is_open(queue) for queue in (PEOPLE, BATCH)]
    gate.learn(0)

    assert (shut, asks, still) == ([False, False], True, [False, False])
    assert [gate.is_open(queue) for queue in (PEOPLE, BATCH)] == [True, False]


class Line:
    """A connection to Redis on which nothing has come."""

    def __init__(self, sock):
        self._sock = sock

    def disconnect(self):
        self._sock = None


def waiting(sock, seconds):
    """A channel whose BRPOP was sent so many seconds ago."""
    channel = Channel.__new__(Channel)
    channel.brpop_timeout = 1
    channel._in_poll = Line(sock)
    channel._brpop_sent_at = time.monotonic() - seconds
    return channel


@pytest.mark.parametrize(
    ("sent_s_ago", "came", "stays"),
    [
        pytest.param(60, b"", False, id="overdue"),
        pytest.param(60, b"*-1", True, id="the reply is here, unread"),
        pytest.param(0, b"", True, id="not yet due"),
    ],
)
def test_a_connection_that_redis_has_forgotten_is_left(gate, sent_s_ago, came, stays):
    """As soon as Redis is known to answer on another one."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(came)
        channel = waiting(ours, sent_s_ago)
        gate.channels.add(channel)
        gate.redis_answers()

        assert (channel._in_poll._sock is not None) == stays


def test_a_channel_without_a_brpop_has_none_that_is_overdue(gate):
    """Every queue is shut, or the connection has just been lost."""
    channel = waiting(None, 60)
    gate.channels.add(channel)
    gate.redis_answers()
    channel._in_poll = None
    gate.redis_answers()

    assert channel._in_poll is None
