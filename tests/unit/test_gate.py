"""Which queues a worker consumes: by what it holds, and by the room it was told of."""

from __future__ import annotations

import pytest

from workers.transport import Gate

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
