"""Who of a worker's threads asks for the next permit."""

from __future__ import annotations

import threading
from functools import partial

from tests.waiting import eventually
from workers.line import Line


def test_nobody_waits_for_nobody():
    """Without a line the first question is asked at once."""
    line = Line()
    with line.place(lines_up=True) as one, line.place(lines_up=True) as two:
        assert one.comes_next()
        assert two.comes_next()


def test_a_newcomer_stands_behind_those_who_wait():
    """And comes next when they have left."""
    line = Line()
    with line.place(lines_up=True) as first:
        first.wait(0)
        with line.place(lines_up=True) as second:
            asked = threading.Event()

            def ask():
                while not second.comes_next(60):
                    pass
                asked.set()

            thread = threading.Thread(target=ask)
            thread.start()
            line.call()
            before = asked.is_set()
            first.leave()
            thread.join(30)

            assert (before, asked.is_set()) == (False, True)


def test_a_batch_job_never_stands_in_line():
    """It asks whoever waits: the store decides, or parks it."""
    line = Line()
    with line.place(lines_up=True) as first, line.place(lines_up=False) as batch:
        first.wait(0)

        assert batch.comes_next()


def test_whoever_waits_too_long_asks_out_of_turn():
    """So that its wake-up is not taken for lost."""
    line = Line()
    with line.place(lines_up=True) as first:
        first.wait(0)
        with line.place(lines_up=True) as second:
            assert second.comes_next(0)


def has(served, count):
    return len(served) == count


def test_permits_go_round_in_the_order_of_arrival():
    """Eight threads and one permit, given back again and again."""
    line, permit = Line(), threading.Semaphore(0)
    served: list[int] = []

    def serve(number):
        with line.place(lines_up=True) as place:
            place.wait(0)
            joined.release()
            while not (place.comes_next(60) and permit.acquire(blocking=False)):
                place.wait(0.01)
            served.append(number)

    joined = threading.Semaphore(0)
    threads = []
    for number in range(8):
        threads.append(threading.Thread(target=serve, args=(number,)))
        threads[-1].start()
        joined.acquire(timeout=30)
    for count in range(1, 9):
        permit.release()
        line.call()
        eventually(partial(has, served, count))
    for thread in threads:
        thread.join(30)

    assert served == list(range(8))
