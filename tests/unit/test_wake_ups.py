"""What of the messages of a queue is a wake-up, and the pool that it goes to."""

from __future__ import annotations

import json
import threading

import pytest

from workers.app import envelope, make_celery
from workers.pool import TaskPool
from workers.strategy import Shape

QUEUE = "chat.ollama"
TEMPLATE = envelope(make_celery("redis://localhost"), QUEUE)
JOB, TAG = "job_01kb8dm1x2g8p5k7w3v9n4q6rt", "job_01kb8dm1x2g8p5k7w3v9n4q6rt.17"
WAKE_UP = TEMPLATE.replace("@JOB@", JOB).replace("@TAG@", TAG)


def changed(**headers):
    message = json.loads(WAKE_UP)
    message["headers"].update(headers)
    return json.dumps(message, separators=(",", ":"))


def test_a_wake_up_says_its_job_and_its_tag():
    """As `admit` fills them into the envelope."""
    assert Shape(TEMPLATE).read(WAKE_UP) == (JOB, TAG)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("{}", id="another object"),
        pytest.param(changed(eta="2026-11-30T00:00:00Z"), id="a due time"),
        pytest.param(changed(stamps={"of": "mine"}), id="a stamp"),
        pytest.param(changed(root_id="job_2"), id="another root"),
        pytest.param(changed(more=1), id="one header more"),
        pytest.param(json.dumps(json.loads(WAKE_UP)), id="with spaces"),
        pytest.param(WAKE_UP.replace(QUEUE, "chat.kimi"), id="of another queue"),
        pytest.param(WAKE_UP.replace(JOB, r"job\u005f1"), id="an escape in the job"),
        pytest.param(WAKE_UP.replace(TAG, '1","delivery_tag":"2'), id="two tags"),
        pytest.param(WAKE_UP.replace(TAG, ""), id="no tag"),
        pytest.param(WAKE_UP[:-1], id="cut short"),
        pytest.param(WAKE_UP + " ", id="longer"),
    ],
)
def test_what_differs_in_one_thing_is_left_to_celery(text):
    """It knows what a due time is."""
    assert Shape(TEMPLATE).read(text) is None


def test_a_template_that_ends_with_something_else_fits_nothing():
    """An order of fields that this Celery does not have."""
    template = '{"tag":"@TAG@","id":"@JOB@"}'

    assert Shape(template).read('{"tag":"1","id":"job_1"}') is None


@pytest.mark.parametrize("end", [TaskPool.stop, TaskPool.terminate])
def test_a_pool_that_has_ended_has_done_all_it_was_handed(end):
    """More jobs than threads, one of which fails."""
    pool = TaskPool(2)
    pool.start()
    done: list[int] = []
    begun = threading.Event()
    pool.hand_over(begun.wait)
    pool.hand_over(lambda: 1 / 0)
    for number in range(5):
        pool.on_apply(int, (number,), callback=done.append)
    begun.set()
    end(pool)

    assert sorted(done) == list(range(5))


def test_a_pool_has_no_more_threads_than_it_needs():
    """One for each job that is not over, up to its limit."""
    pool = TaskPool(3)
    before = threading.active_count()
    ends = threading.Event()
    counts = []
    for _ in range(5):
        pool.hand_over(ends.wait)
        counts.append(threading.active_count() - before)
    ends.set()
    pool.stop()

    assert counts == [1, 2, 3, 3, 3]
